//! What an image is to be, as lines of a Dockerfile: all that an import takes besides its tar.

use std::collections::HashMap;

use bollard::models::ImageConfig;

/// What an image of one layer has in place of its configuration's stop signal.
const STOP_SIGNAL: &str = "moorage.stop-signal";

/// The signal that ends what an image starts, if it says one.
pub(super) fn stop_signal(config: &ImageConfig) -> Option<String> {
    let labels = config.labels.as_ref();
    config.stop_signal.clone().or_else(|| labels?.get(STOP_SIGNAL).cloned())
}

/// An image's configuration; `labels` go before its own.
pub(super) fn changes(config: &ImageConfig, labels: &[(&str, &str)]) -> Vec<String> {
    let json = |words: &Vec<String>| serde_json::to_string(words).unwrap_or_default();
    let mut lines = Vec::new();
    lines.extend(
        config.entrypoint.as_ref().filter(|e| !e.is_empty()).map(|e| format!("ENTRYPOINT {}", json(e))),
    );
    lines.extend(config.cmd.as_ref().filter(|c| !c.is_empty()).map(|c| format!("CMD {}", json(c))));
    for pair in config.env.iter().flatten() {
        if let Some((name, value)) = pair.split_once('=') {
            lines.push(format!("ENV {name}={}", quoted(value)));
        }
    }
    let plain = [("WORKDIR", &config.working_dir), ("USER", &config.user)];
    for (word, value) in plain {
        lines.extend(value.as_ref().filter(|value| !value.is_empty()).map(|value| format!("{word} {value}")));
    }
    lines.extend(config.volumes.as_ref().filter(|v| !v.is_empty()).map(|v| format!("VOLUME {}", json(v))));
    lines.extend(config.exposed_ports.iter().flatten().map(|port| format!("EXPOSE {port}")));
    let mut own: HashMap<String, String> = config.labels.clone().unwrap_or_default();
    // An import takes none.
    own.extend(config.stop_signal.clone().map(|signal| (STOP_SIGNAL.to_owned(), signal)));
    let own = own.iter().filter(|(name, _)| !labels.iter().any(|(other, _)| name == other));
    let mut all: Vec<(&str, &str)> = own.map(|(name, value)| (name.as_str(), value.as_str())).collect();
    all.extend(labels);
    all.sort_unstable();
    lines.extend(all.iter().map(|(name, value)| format!("LABEL {}={}", quoted(name), quoted(value))));
    lines
}

/// A word of a Dockerfile that means exactly this text.
fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\' | '$') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_written_as_a_dockerfile_takes_it() {
        let config = ImageConfig {
            cmd: Some(vec!["/sbin/init".into(), "a \"b\"".into()]),
            env: Some(vec!["PATH=/bin:/sbin".into(), "ODD=a $b \"c\" \\d".into()]),
            user: Some(String::new()),
            labels: Some(
                [("moorage.root".to_owned(), "old".to_owned()), ("z".to_owned(), "kept".to_owned())].into(),
            ),
            stop_signal: Some("SIGRTMIN+4".into()),
            ..ImageConfig::default()
        };
        assert_eq!(
            changes(&config, &[("moorage.root", "new")]),
            [
                r#"CMD ["/sbin/init","a \"b\""]"#,
                r#"ENV PATH="/bin:/sbin""#,
                r#"ENV ODD="a \$b \"c\" \\d""#,
                r#"LABEL "moorage.root"="new""#,
                r#"LABEL "moorage.stop-signal"="SIGRTMIN+4""#,
                r#"LABEL "z"="kept""#,
            ]
        );
    }
}
