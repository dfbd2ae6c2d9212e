//! What apt said when a base could not be made, as an error that names the file and the line.

use super::repos::{Entry, entries};
use crate::report::{Fault, Kind};
use crate::site::BaseDefinition;

/// The first of apt's words (in the C locale) that says why, with its place in the site's files.
pub(super) fn explain<'a>(
    definition: &BaseDefinition,
    said: impl IntoIterator<Item = &'a str> + Clone,
) -> Option<Fault> {
    let entries = entries(&definition.repos);
    let causes: [(&[&str], &str, &str); 6] = [
        // What apt says of a repository after it could not be reached is a consequence, so this comes first.
        (
            &[
                "Could not resolve",
                "Could not connect",
                "Connection failed",
                "Connection refused",
                "Unable to connect",
                "Connection timed out",
                "No route to host",
                "Connection reset",
            ],
            "the repository cannot be reached",
            "check the address there, the network and the proxy, then run the same command again",
        ),
        (
            &["is expired", "is not valid yet"],
            "the repository's metadata are out of date",
            "take a mirror that is kept up to date; for one that is closed for good: Acquire::Check-Valid-Until \
             \"false\"; in apt.conf beside it",
        ),
        (
            &[
                "NO_PUBKEY",
                "signatures couldn't be verified",
                "no valid OpenPGP data",
                "unsupported filetype",
            ],
            "the repository is signed with another key than those of the keyring",
            "name the keyring of this repository there (Signed-By), or in the base's file (keyring)",
        ),
        (
            &["BADSIG", "signatures were invalid", "EXPKEYSIG", "REVKEYSIG", "Clearsigned file isn't valid"],
            "the repository's signature is wrong",
            "do not use this mirror until who runs it has explained why",
        ),
        (
            &["Hash Sum mismatch", "File has unexpected size"],
            "the repository gives other bytes than its metadata promise",
            "a mirror in the middle of an update does that for a while: run the same command again",
        ),
        (
            &["does not have a Release file", "is not signed", "404  Not Found", "File not found"],
            "the repository does not have this",
            "check the URI and the suite there",
        ),
    ];
    for (signs, what, next) in causes {
        let has_sign = |line: &&str| signs.iter().any(|sign| line.contains(sign));
        let Some(first) = said.clone().into_iter().find(has_sign) else { continue };
        // apt says why on a line of its own first, and then once more with the repository's name.
        let named =
            said.clone().into_iter().filter(has_sign).find_map(|line| Some((line, place(&entries, line)?)));
        let failed = || said.clone().into_iter().find_map(|line| place(&entries, line));
        let (line, at) = named.map_or_else(|| (first, failed()), |(line, entry)| (line, Some(entry)));
        let place = at.map_or(definition.origin.as_str(), |entry| entry.place.as_str());
        let fault = Fault::new(Kind::Failed, format!("{place}: {what}"));
        return Some(fault.why(told(line)).next(next));
    }
    missing_package(definition, said)
}

/// `E: Unable to locate package x`, `E: Version '1' for 'x' was not found`.
fn missing_package<'a>(
    definition: &BaseDefinition,
    said: impl IntoIterator<Item = &'a str>,
) -> Option<Fault> {
    let line = said.into_iter().find(|line| {
        line.contains("Unable to locate package") || line.contains("has no installation candidate")
    })?;
    let package = line.split_whitespace().map(|word| word.trim_matches(['\'', '"', '.', ',']));
    let placed = definition.packages.iter().find(|placed| package.clone().any(|word| word == placed.text))?;
    Some(
        Fault::new(Kind::Usage, format!("{}: there is no package {:?}", placed.place, placed.text))
            .why(told(line))
            .next("correct the name there, or add the repository that has it"),
    )
}

fn told(line: &str) -> &str {
    line.trim_start_matches(['E', 'W']).trim_start_matches(':').trim()
}

/// The entry whose URI the line names; the longest where several do.
fn place<'a>(entries: &'a [Entry], line: &str) -> Option<&'a Entry> {
    // apt writes `copy:/x` for `copy:///x`.
    let names = |entry: &&Entry| {
        let short = entry.uri.replacen(":///", ":/", 1);
        line.contains(&entry.uri) || [" ", "/"].iter().any(|end| line.contains(&format!("{short}{end}")))
    };
    entries.iter().filter(names).max_by_key(|entry| {
        // Of two entries with one URI, the one whose suite is named.
        (entry.uri.len(), entry.suites.iter().any(|suite| line.contains(&format!("{suite} "))))
    })
}

#[cfg(test)]
mod tests {
    use super::super::repos::tests::files;
    use super::*;
    use crate::site::{HostConfig, Placed, Site};

    #[test]
    fn apt_s_words_are_given_a_place() {
        let mut base = Site::load(None, HostConfig::default()).unwrap().base("debian-12").unwrap();
        base.packages = vec![Placed { text: "gti".into(), place: "bases/x.toml:4:13".into() }];
        base.repos = files(&[
            (
                "a.sources",
                "Types: deb\nURIs: http://m/debian\nSuites: x x-updates\n\nTypes: deb\nURIs: http://m/debian-security\nSuites: x-security\n",
            ),
            ("b.list", "deb http://127.0.0.1:1/local ./\ndeb copy:///nowhere x main\n"),
        ]);
        let all = [
            "W: GPG error: http://m/debian-security x-security InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 54404762BBB6E853",
            "E: Failed to fetch http://127.0.0.1:1/local/./InRelease  Could not connect to 127.0.0.1:1 (127.0.0.1). - connect (111: Connection refused)",
            "E: Release file for http://m/debian/dists/x-updates/InRelease is expired (invalid since 3d 2h 1min 5s). Updates for this repository will not be applied.",
            "W: GPG error: http://m/debian x InRelease: The following signatures were invalid: BADSIG 0123 Somebody",
            "E: The repository 'http://m/debian y Release' does not have a Release file.",
            "E: Failed to fetch http://m/debian/pool/x.deb  Hash Sum mismatch",
            "  The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 6ED0",
            "E: The repository 'copy:/nowhere x Release' does not have a Release file.",
            "E: Unable to locate package gti",
            "E: Unable to locate package others",
        ]
        .map(|line| explain(&base, [line, "E: something after it"]).map(|fault| fault.what));
        insta::assert_debug_snapshot!(all);
    }
}
