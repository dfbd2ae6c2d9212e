//! What differs between the specification that a container was made from and the one asked for now. Pure.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::spec::ContainerSpec;

/// One line a field that differs. Who may log in is no part of what a container is: keys come and go.
pub fn differences(have: &ContainerSpec, want: &ContainerSpec) -> Vec<String> {
    let (have, want) = (fields(have), fields(want));
    let keys: BTreeSet<&String> = have.keys().chain(want.keys()).collect();
    keys.into_iter()
        .filter(|key| key.as_str() != "authorized_keys" && have.get(*key) != want.get(*key))
        .map(|key| match key.as_str() {
            // A licence is not for everybody's terminal.
            "files" => "files: the content differs".to_owned(),
            _ => format!("{key}: {} here, {} asked for", shown(have.get(key)), shown(want.get(key))),
        })
        .collect()
}

fn fields(spec: &ContainerSpec) -> serde_json::Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    }
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "nothing".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::sample::spec;

    #[test]
    fn fields_that_differ_are_named_with_both_values() {
        let (have, mut want) = (spec(), spec());
        assert!(differences(&have, &want).is_empty());
        want.image = "moorage/other:latest".into();
        want.ready = None;
        want.files[0].content = vec![9];
        insta::assert_debug_snapshot!(differences(&have, &want), @r#"
        [
            "files: the content differs",
            "image: moorage/siem:latest here, moorage/other:latest asked for",
            "ready: curl -fsk https://localhost/health here, nothing asked for",
        ]
        "#);
    }

    #[test]
    fn a_new_key_is_no_other_machine() {
        let (have, mut want) = (spec(), spec());
        want.authorized_keys.insert("ann".into(), vec!["ssh-ed25519 AAAA".into()]);
        assert!(differences(&have, &want).is_empty());
    }
}
