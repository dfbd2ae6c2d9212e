//! What dnf said when a base could not be made, as an error that names the file and the line.

use super::repos::{Repository, repositories};
use crate::report::{Fault, Kind};
use crate::site::BaseDefinition;

/// The first of dnf's words (in the C locale) that says why, with its place in the site's files.
pub(super) fn explain(definition: &BaseDefinition, said: &[String]) -> Option<Fault> {
    let found = repositories(&definition.repos);
    let causes: [(&[&str], &str, &str); 5] = [
        (
            &[
                "Couldn't connect",
                "Couldn't resolve",
                "Could not resolve",
                "Timeout was reached",
                "Couldn't read a file",
                "Couldn't open file",
            ],
            "the repository cannot be reached",
            "check the address there, the network and the proxy, then run the same command again",
        ),
        (
            &["GPG signature verification error", "Bad GPG signature", "repomd.xml GPG"],
            "the signature of the repository's metadata is wrong",
            "name the key of this repository there (gpgkey), or do not use this mirror until who runs it has explained why",
        ),
        (
            &["is not signed"],
            "the repository has a package that is not signed",
            "have whoever runs the repository sign it (rpmsign --addsign)",
        ),
        (
            &["are already installed but they are not correct", "GPG check FAILED", "Public key for"],
            "a package is signed with another key than those that are named there",
            "name the key of this repository there (gpgkey)",
        ),
        (
            &["Status code: 404", "Status code: 403", "checksum doesn't match", "Cannot download"],
            "the repository does not have this",
            "check the baseurl there; a mirror in the middle of an update does that for a while",
        ),
    ];
    for (signs, what, next) in causes {
        let has_sign = |line: &&String| signs.iter().any(|sign| line.contains(sign));
        let Some(first) = said.iter().find(has_sign) else { continue };
        // Which repository it was may be said on another line.
        let mut lines = said.iter().filter(has_sign).chain(said);
        let place = lines.find_map(|line| place(&found, line)).or_else(|| match found.as_slice() {
            [only] => Some(at(only)),
            _ => None,
        });
        let place = place.unwrap_or(&definition.origin);
        return Some(Fault::new(Kind::Failed, format!("{place}: {what}")).why(plain(first)).next(next));
    }
    missing_package(definition, said)
}

fn missing_package(definition: &BaseDefinition, said: &[String]) -> Option<Fault> {
    let line = said.iter().find(|line| line.contains("No match for argument"))?;
    let named = line.rsplit(' ').next()?;
    let (place, package) = match definition.packages.iter().find(|placed| placed.text == named) {
        Some(placed) => (&placed.place, &placed.text),
        None => (&definition.origin, &named.to_owned()),
    };
    Some(
        Fault::new(Kind::Usage, format!("{place}: there is no package {package:?}"))
            .why(plain(line))
            .next("correct the name there, or add the repository that has it"),
    )
}

fn plain(line: &str) -> &str {
    line.trim_start_matches([' ', '-']).trim_start_matches("Error:").trim()
}

fn at(repository: &Repository) -> &str {
    repository.urls.first().map_or(repository.place.as_str(), |url| url.place.as_str())
}

/// The address of the repository that the line names.
fn place<'a>(found: &'a [Repository], line: &str) -> Option<&'a str> {
    let names = |repository: &&Repository| {
        let id = &repository.id;
        [format!("'{id}'"), format!("\"{id}\"")].iter().any(|quoted| line.contains(quoted))
    };
    found.iter().find(names).map(at)
}

#[cfg(test)]
mod tests {
    use super::super::super::repos::tests::files;
    use super::*;
    use crate::site::{HostConfig, Placed, Site};

    #[test]
    fn dnf_s_words_are_given_a_place() {
        let mut base = Site::load(None, HostConfig::default()).unwrap().base("debian-12").unwrap();
        base.packages = vec![Placed { text: "gti".into(), place: "bases/x.toml:4:13".into() }];
        let text = "[one]\nname=1\nbaseurl=http://m/one\n[two]\nname=2\nbaseurl=http://m/two\n";
        base.repos = files(&[("a.repo", text)]);
        let all = [
            &[
                "Errors during downloading metadata for repository 'two':",
                "  - Curl error (7): Couldn't connect to server for http://m/two/repodata/repomd.xml [Failed to connect]",
                "Error: Failed to download metadata for repo 'two': Cannot download repomd.xml",
            ][..],
            &["Error: Failed to download metadata for repo 'one': repomd.xml GPG signature verification error: Bad GPG signature"],
            &["Package hello-1.0-1.noarch.rpm is not signed", "Error: GPG check FAILED"],
            &[
                "The GPG keys listed for the \"one\" repository are already installed but they are not correct for this package.",
                "Error: GPG check FAILED",
            ],
            &["  - Status code: 404 for http://m/one/repodata/repomd.xml", "Error: Failed to download metadata for repo 'one'"],
            &["No match for argument: gti", "Error: Unable to find a match: gti"],
            &["Error: something else"],
        ]
        .map(|said| {
            let said: Vec<String> = said.iter().map(|line| (*line).to_owned()).collect();
            explain(&base, &said).map(|fault| fault.what)
        });
        insta::assert_debug_snapshot!(all);
    }
}
