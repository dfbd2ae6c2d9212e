//! Where the signed metadata of a site's rpm repositories are.

use std::collections::BTreeMap;

use super::repos::{self, repositories};
use crate::site::RepoFile;

/// The files of signed metadata, with the place that names their repository. Of one that only names a list of mirrors the
/// list, which is never what a lock has: dnf is asked then.
pub(crate) fn metadata(files: &BTreeMap<String, RepoFile>, release: &str) -> Vec<(String, String)> {
    let of = |repository: repos::Repository| {
        let (url, rest) = match repository.urls.first() {
            Some(url) => (url.clone(), "/repodata/repomd.xml"),
            None => (repository.lists.first()?.clone(), ""),
        };
        let address = substituted(&url.value, files, release);
        Some((format!("{}{rest}", address.trim_end_matches('/')), url.place))
    };
    repositories(files).into_iter().filter_map(of).collect()
}

/// dnf's variables (dnf.conf(5)): its own, and those of the files in `vars/`.
fn substituted(text: &str, files: &BTreeMap<String, RepoFile>, release: &str) -> String {
    let own = files.iter().filter_map(|(name, file)| {
        let value =
            String::from_utf8_lossy(&file.content).lines().next().unwrap_or_default().trim().to_owned();
        Some((name.strip_prefix("vars/")?.to_owned(), value))
    });
    let known =
        [("releasever", release), ("basearch", std::env::consts::ARCH), ("arch", std::env::consts::ARCH)];
    let known = known.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Longer names first: one may begin with another.
    let mut all: Vec<(String, String)> = own.chain(known).collect();
    all.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    all.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::repos::tests::files;
    use super::*;

    #[test]
    fn metadata_are_where_the_variables_lead() {
        let text = "[a]\nname=a\nbaseurl=https://m/$contentdir/${releasever}/$basearch/os/\n[b]\nmirrorlist=https://l/?r=$releasever\n";
        let found = metadata(&files(&[("a.repo", text), ("vars/contentdir", "pub\n")]), "9");
        let arch = std::env::consts::ARCH;
        let wanted = [
            (format!("https://m/pub/9/{arch}/os/repodata/repomd.xml"), "r/a.repo:3".to_owned()),
            ("https://l/?r=9".to_owned(), "r/a.repo:5".to_owned()),
        ];
        assert_eq!(found, wanted);
    }
}
