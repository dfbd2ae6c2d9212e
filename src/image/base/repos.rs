//! What the repository files of a base name: which URI, with which keys, on which line.

use std::collections::BTreeMap;
use std::path::Path;

use crate::site::RepoFile;

/// One place that packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Without the slash at its end.
    pub uri: String,
    /// The distributions below `dists/`; a name that ends in `/` is a path of a flat repository.
    pub suites: Vec<String>,
    /// The file with these keys; none where the definition's `keyring` verifies it.
    pub signed_by: Option<String>,
    /// `file:line` of the URI, and of `Signed-By`.
    pub place: String,
    pub signed_by_place: String,
}

impl Entry {
    /// Where the signed metadata are (Debian repository format, "Release" files).
    pub fn metadata(&self) -> impl Iterator<Item = String> {
        self.suites.iter().map(|suite| match suite.strip_suffix('/') {
            Some(flat) => format!("{}/{}/InRelease", self.uri, flat.trim_matches('/')),
            None => format!("{}/dists/{suite}/InRelease", self.uri),
        })
    }
}

/// The entries of all `*.sources` and `*.list` files (sources.list(5)), in the order of the files.
pub(crate) fn entries(files: &BTreeMap<String, RepoFile>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, file) in files {
        let text = String::from_utf8_lossy(&file.content);
        match Path::new(name).extension().and_then(|extension| extension.to_str()) {
            Some("sources") => stanzas(&text, &file.origin, &mut entries),
            Some("list") => lines(&text, &file.origin, &mut entries),
            _ => {}
        }
    }
    entries
}

/// deb822: `Name: value`, continued on lines that begin with a space, a blank line between two stanzas.
fn stanzas(text: &str, origin: &str, entries: &mut Vec<Entry>) {
    let mut fields: BTreeMap<String, Vec<(usize, String)>> = BTreeMap::new();
    let mut last = String::new();
    for (number, line) in (1..).zip(text.lines().chain([""])) {
        if line.starts_with('#') {
            continue;
        }
        if line.trim().is_empty() {
            stanza(&std::mem::take(&mut fields), origin, entries);
        } else if line.starts_with([' ', '\t']) {
            fields.entry(last.clone()).or_default().push((number, line.trim().to_owned()));
        } else if let Some((name, value)) = line.split_once(':') {
            last = name.trim().to_ascii_lowercase();
            fields.entry(last.clone()).or_default().push((number, value.trim().to_owned()));
        }
    }
}

fn stanza(fields: &BTreeMap<String, Vec<(usize, String)>>, origin: &str, entries: &mut Vec<Entry>) {
    let words = |name: &str| -> Vec<(usize, String)> {
        let lines = fields.get(name).into_iter().flatten();
        lines
            .flat_map(|(number, text)| text.split_whitespace().map(|word| (*number, word.to_owned())))
            .collect()
    };
    let disabled = words("enabled").first().is_some_and(|(_, word)| word.eq_ignore_ascii_case("no"));
    if disabled || !words("types").iter().any(|(_, word)| word == "deb") {
        return;
    }
    let keys = words("signed-by").into_iter().find(|(_, word)| word.starts_with('/'));
    for (number, uri) in words("uris") {
        entries.push(Entry {
            uri: uri.trim_end_matches('/').to_owned(),
            suites: words("suites").into_iter().map(|(_, suite)| suite).collect(),
            signed_by: keys.as_ref().map(|(_, path)| path.clone()),
            place: format!("{origin}:{number}"),
            signed_by_place: keys
                .as_ref()
                .map_or_else(String::new, |(number, _)| format!("{origin}:{number}")),
        });
    }
}

/// `deb [option=value …] URI suite component…`
fn lines(text: &str, origin: &str, entries: &mut Vec<Entry>) {
    for (number, line) in (1..).zip(text.lines()) {
        let Some(rest) = line.trim().strip_prefix("deb").filter(|rest| rest.starts_with([' ', '\t'])) else {
            continue;
        };
        let (options, rest) = match rest.trim().strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace();
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        let keys = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
        entries.push(Entry {
            uri: uri.trim_end_matches('/').to_owned(),
            suites: vec![suite.to_owned()],
            signed_by: keys.filter(|path| path.starts_with('/')).map(str::to_owned),
            place: format!("{origin}:{number}"),
            signed_by_place: format!("{origin}:{number}"),
        });
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn files(named: &[(&str, &str)]) -> BTreeMap<String, RepoFile> {
        let file = |(name, text): &(&str, &str)| {
            ((*name).to_owned(), RepoFile { origin: format!("r/{name}"), content: text.as_bytes().to_vec() })
        };
        named.iter().map(file).collect()
    }

    #[test]
    fn both_formats_are_read_with_their_lines() {
        let sources = "# a mirror\nTypes: deb\nURIs: http://a/debian/\n  http://b/debian\nSuites: x x-updates\n\
                       Signed-By: /k.gpg\n\nTypes: deb-src\nURIs: http://c\nSuites: x\n\n\
                       Types: deb\nEnabled: no\nURIs: http://d\nSuites: x\n";
        let list = "# deb http://no y main\ndeb-src http://no y main\ndeb [arch=amd64 signed-by=/l.gpg] http://e y main\ndeb http://f ./\n";
        let found =
            entries(&files(&[("a.sources", sources), ("b.list", list), ("apt.conf", "URIs: http://x")]));
        let short: Vec<String> = found
            .iter()
            .map(|entry| {
                let metadata = entry.metadata().collect::<Vec<_>>().join(" ");
                format!("{} {} {:?} {}", entry.place, entry.uri, entry.signed_by, metadata)
            })
            .collect();
        insta::assert_debug_snapshot!(short);
    }

    #[test]
    fn every_built_in_base_names_its_repositories() {
        let site = crate::site::Site::load(None, crate::site::HostConfig::default()).unwrap();
        for name in site.bases().unwrap() {
            let base = site.base(&name).unwrap();
            if let crate::site::Family::Apt { suite, .. } = &base.family {
                let entries = entries(&base.repos);
                assert!(entries.iter().any(|entry| entry.suites.contains(suite)), "{name}");
            }
        }
    }
}
