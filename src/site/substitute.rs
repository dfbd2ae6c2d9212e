//! `{branch}`, `{project}`, `{owner}` in the texts of a project's file.

/// What the placeholders stand for. One without a value stays as it is written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Values<'a> {
    pub project: Option<&'a str>,
    pub branch: Option<&'a str>,
    pub owner: Option<&'a str>,
}

impl Values<'_> {
    /// With some name for each that has no value.
    pub fn filled(&self) -> Values<'_> {
        let some = Some("x");
        Values { project: self.project.or(some), branch: self.branch.or(some), owner: self.owner.or(some) }
    }
}

/// Replaces the placeholders; `{{` and `}}` are written for braces. An unknown or open placeholder is an error that
/// says so.
pub(super) fn substitute(text: &str, values: &Values<'_>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        out.push_str(&rest[..at]);
        let brace = &rest[at..=at];
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix(brace) {
            out.push_str(brace);
            rest = after;
        } else if brace == "}" {
            out.push('}');
        } else {
            let Some((name, after)) = rest.split_once('}') else {
                return Err(format!("a {{ without its }} in {text:?} ({{{{ is written for a brace)"));
            };
            let value = match name {
                "project" => values.project,
                "branch" => values.branch,
                "owner" => values.owner,
                _ => {
                    return Err(format!(
                        "unknown placeholder {{{name}}} in {text:?}; there are {{project}}, {{branch}} and {{owner}}, \
                         and {{{{ is written for a brace"
                    ));
                }
            };
            match value {
                Some(value) => out.push_str(value),
                None => out.push_str(&format!("{{{name}}}")),
            }
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> = Values { project: Some("siem"), branch: Some("9.2"), owner: None };

    #[test]
    fn placeholders_are_replaced_and_braces_escaped() {
        assert_eq!(substitute("{project}:{branch}/{owner}", &VALUES).unwrap(), "siem:9.2/{owner}");
        assert_eq!(substitute("${{HOME}}/{branch} }", &VALUES).unwrap(), "${HOME}/9.2 }");
        assert_eq!(substitute("{{branch}}", &VALUES).unwrap(), "{branch}");
        for bad in ["{x}", "{}", "{branch", "${HOME}"] {
            assert!(substitute(bad, &VALUES).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_is_not_substituted_again() {
        let values = Values { branch: Some("{owner}"), ..VALUES };
        assert_eq!(substitute("{branch}", &values).unwrap(), "{owner}");
    }

    proptest::proptest! {
        #[test]
        fn any_text_comes_back_when_its_braces_are_doubled(text in "\\PC*") {
            let doubled = text.replace('{', "{{").replace('}', "}}");
            proptest::prop_assert_eq!(substitute(&doubled, &VALUES).unwrap(), text);
        }
    }
}
