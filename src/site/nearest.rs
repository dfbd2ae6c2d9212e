//! "Did you mean": the nearest valid name to what was typed.

use crate::report::{Fault, Kind};

/// The candidate most like `typed`, where one is like it at all.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|name| (strsim::jaro_winkler(&typed.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, name)| name)
}

/// `; did you mean "siem"?`, or nothing.
pub fn hint<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(typed, candidates).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

/// What a person gets for a name that does not exist: the nearest one, and all there are.
pub(crate) fn not_found<'a, I>(sort: &str, typed: &str, existing: I) -> Fault
where
    I: IntoIterator<Item = &'a str> + Clone,
{
    let hint = hint(typed, existing.clone());
    let all = existing.into_iter().collect::<Vec<_>>().join(", ");
    let all = if all.is_empty() { "none".to_owned() } else { all };
    Fault::new(Kind::NotFound, format!("there is no {sort} {typed:?}{hint}"))
        .why(format!("there are: {all}"))
        .next("name one of these, or add it to the site")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_junk_finds_none() {
        assert_eq!(nearest("imge", ["opt", "image", "mounts"]), Some("image"));
        assert_eq!(nearest("SEIM", ["demo", "siem"]), Some("siem"));
        assert_eq!(nearest("zzz", ["demo", "siem"]), None);
    }
}
