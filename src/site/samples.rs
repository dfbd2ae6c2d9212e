//! Names that a branch's pattern matches, for checking what is made of them.

use globset::GlobBuilder;

/// The most names that are made of one pattern: alternatives multiply.
const MOST: usize = 16;

/// Names that the glob `pattern` matches: one of a plain pattern, one for each combination of its alternatives
/// (`{9.1,9.2}`), at most 16. `*`, `?` and a class become one character that fits. None where none was found.
pub(super) fn samples(pattern: &str) -> Vec<String> {
    let Ok(glob) = GlobBuilder::new(pattern).build() else { return Vec::new() };
    let matcher = glob.compile_matcher();
    let mut found = expand(pattern);
    found.retain(|name| matcher.is_match(name));
    found.sort();
    found.dedup();
    found.truncate(MOST);
    found
}

fn expand(pattern: &str) -> Vec<String> {
    let mut names = vec![String::new()];
    let mut rest = pattern;
    let each = |names: &mut Vec<String>, ends: &[String]| {
        let longer = names.iter().flat_map(|name| ends.iter().map(move |end| format!("{name}{end}")));
        *names = longer.take(MOST).collect();
    };
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        let (ends, next) = match first {
            '*' => (vec!["1".to_owned()], after.trim_start_matches('*')),
            '?' => (vec!["1".to_owned()], after),
            '\\' => {
                let escaped: String = after.chars().take(1).collect();
                let next = &after[escaped.len()..];
                (vec![escaped], next)
            }
            '[' => class(after),
            '{' => alternatives(after),
            plain => (vec![plain.to_string()], after),
        };
        each(&mut names, &ends);
        rest = next;
    }
    names
}

/// One character of a class, and what follows it.
fn class(text: &str) -> (Vec<String>, &str) {
    let begin = usize::from(text.starts_with(['!', '^']));
    // A bracket that comes first is one of the characters.
    let end = text.char_indices().skip(begin + 1).find(|(_, c)| *c == ']').map_or(text.len(), |(at, _)| at);
    let (inside, rest) = text.split_at(end);
    let matcher = GlobBuilder::new(&format!("[{inside}]")).build().map(|glob| glob.compile_matcher());
    let own = inside.chars().skip(begin).take(1);
    let fits = |c: &char| matcher.as_ref().is_ok_and(|matcher| matcher.is_match(c.to_string()));
    let one = own.chain(['1', 'a', 'Z', '_']).find(fits);
    (one.map(String::from).into_iter().collect(), rest.get(1..).unwrap_or_default())
}

/// The texts of `a,b}`, and what follows it.
fn alternatives(text: &str) -> (Vec<String>, &str) {
    let (mut depth, mut begin, mut all) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            ',' if depth == 0 => {
                all.extend(expand(&text[begin..at]));
                begin = at + 1;
            }
            '}' if depth == 0 => {
                all.extend(expand(&text[begin..at]));
                return (all, &text[at + 1..]);
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    (all, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alternative_gets_a_name() {
        assert_eq!(samples("9.2"), ["9.2"]);
        assert_eq!(samples("9.*"), ["9.1"]);
        assert_eq!(samples("{9.1,9.2}-rc?"), ["9.1-rc1", "9.2-rc1"]);
        assert_eq!(samples("{main,release/{8,9}.*}"), ["main", "release/8.1", "release/9.1"]);
        assert_eq!(samples("v[0-9]"), ["v0"]);
        assert_eq!(samples("v[!0-9]"), ["va"]);
        assert_eq!(samples(r"a\*b"), ["a*b"]);
        assert!(samples("[9").is_empty());
    }

    proptest::proptest! {
        #[test]
        fn what_is_made_of_a_pattern_matches_it(pattern in "[a-c0-9.*?{},\\[\\]!-]{1,12}") {
            // That nothing panics, and that it is no other branch's name; samples() keeps only what matches.
            for name in samples(&pattern) {
                let glob = GlobBuilder::new(&pattern).build().unwrap().compile_matcher();
                proptest::prop_assert!(glob.is_match(&name));
            }
        }
    }
}
