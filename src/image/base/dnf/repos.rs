//! What the `*.repo` files of a base name (dnf.conf(5)): which address, with which keys, on which line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::report::{Fault, Kind};
use crate::site::{BaseDefinition, RepoFile};

/// One enabled repository.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Repository {
    pub id: String,
    /// `file:line` of its `[id]`.
    pub place: String,
    /// `baseurl`, with the variables as they are written.
    pub urls: Vec<Setting>,
    /// `mirrorlist` or `metalink`, with the variables.
    pub lists: Vec<Setting>,
    /// Each `gpgkey`, an address.
    pub keys: Vec<Setting>,
    /// Files of this host that it is asked with: `sslclientcert` and the like. Never part of an image.
    pub secrets: Vec<Setting>,
    /// Where `gpgcheck` was switched off.
    unchecked: Option<String>,
}

/// A value and the `file:line` it stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    pub value: String,
    pub place: String,
}

/// The enabled repositories of all `*.repo` files, in the order of the files.
pub(super) fn repositories(files: &BTreeMap<String, RepoFile>) -> Vec<Repository> {
    let mut found = Vec::new();
    let files = files.iter().filter(|(name, _)| name.ends_with(".repo"));
    for (_, file) in files {
        read(&String::from_utf8_lossy(&file.content), &file.origin, &mut found);
    }
    found
}

fn read(text: &str, origin: &str, found: &mut Vec<Repository>) {
    let mut current: Option<Repository> = None;
    let mut enabled = true;
    let mut key = String::new();
    let mut end = |current: Option<Repository>, enabled: bool| {
        found.extend(current.filter(|repository| enabled && repository.id != "main"));
    };
    for (number, line) in (1..).zip(text.lines()) {
        let place = format!("{origin}:{number}");
        if line.starts_with(['#', ';']) || line.trim().is_empty() {
            continue;
        }
        if let Some(id) = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            end(current.take(), std::mem::replace(&mut enabled, true));
            current = Some(Repository { id: id.to_owned(), place, ..Repository::default() });
            continue;
        }
        // A line that is indented goes on with the value before it.
        let value = match line.split_once('=').filter(|_| !line.starts_with([' ', '\t'])) {
            Some((name, value)) => {
                key = name.trim().to_ascii_lowercase();
                value
            }
            None => line,
        };
        let Some(repository) = &mut current else { continue };
        let is_off = ["0", "no", "false", "off"].contains(&value.trim().to_ascii_lowercase().as_str());
        let words = value.split([' ', '\t', ',']).filter(|word| !word.is_empty());
        let words = words.map(|word| Setting { value: word.to_owned(), place: place.clone() });
        match key.as_str() {
            "enabled" => enabled = !is_off,
            "gpgcheck" => repository.unchecked = is_off.then_some(place),
            "baseurl" => repository.urls.extend(words),
            "mirrorlist" | "metalink" => repository.lists.extend(words),
            "gpgkey" => repository.keys.extend(words),
            "sslcacert" | "sslclientcert" | "sslclientkey" => repository.secrets.extend(words),
            _ => {}
        }
    }
    end(current, enabled);
}

/// A key that is a file: where a repository says that it is, and where it is on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyFile {
    pub named: PathBuf,
    pub here: PathBuf,
}

impl Repository {
    /// Its keys that are files. One of that name beside the repos, in `directory`, is preferred to the host's own.
    ///
    /// No key, a check that is switched off, a key over plain HTTP: [`Kind::Usage`], with file and line, since no package
    /// could be verified. A file that is not there: [`Kind::Missing`].
    pub fn key_files(&self, directory: &Path) -> Result<Vec<KeyFile>, Fault> {
        let wrong = |place: &str, why: &str| {
            Fault::new(Kind::Usage, format!("{place}: {why}, so no package of {} can be verified", self.id))
                .next("name the key of its packages there: gpgkey=…, with gpgcheck=1")
        };
        if let Some(place) = &self.unchecked {
            return Err(wrong(place, "gpgcheck is switched off"));
        }
        if self.keys.is_empty() {
            return Err(wrong(&self.place, "there is no gpgkey"));
        }
        let mut files = Vec::new();
        for Setting { value, place } in &self.keys {
            let Some(path) = value.strip_prefix("file://") else {
                match value.starts_with("https://") {
                    true => continue,
                    false => return Err(wrong(place, "a gpgkey is file:///… or https://…")),
                }
            };
            let named = PathBuf::from(path);
            let beside = named.file_name().map(|name| directory.join(name)).filter(|path| path.is_file());
            match beside.or_else(|| named.is_file().then(|| named.clone())) {
                Some(here) => files.push(KeyFile { named, here }),
                None => {
                    let what = format!("{place}: the key {path} is not there, so no package can be verified");
                    return Err(Fault::new(Kind::Missing, what).next(format!(
                        "put the vendor's key beside the repos, as {}, and compare its fingerprint",
                        named.file_name().unwrap_or_default().display()
                    )));
                }
            }
        }
        Ok(files)
    }
}

/// All keys that are files, once each; a definition without a repository is none.
pub(super) fn keys(
    definition: &BaseDefinition,
    directory: &Path,
) -> Result<Vec<(String, Vec<KeyFile>)>, Fault> {
    let repositories = repositories(&definition.repos);
    if repositories.is_empty() {
        let what = format!("{}: its *.repo files have no enabled repository", definition.origin);
        return Err(Fault::new(Kind::Usage, what).next("put a *.repo file into common/repos/<os>-<release>"));
    }
    let of = |repository: &Repository| Ok((repository.id.clone(), repository.key_files(directory)?));
    repositories.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::super::super::repos::tests::files;
    use super::*;

    const TEXT: &str = "# ours\n[main]\ngpgcheck=1\n[baseos]\nname = Base\nbaseurl=https://m/$releasever/os/\n  https://n/os\n\
                        gpgkey=file:///etc/pki/rpm-gpg/KEY\nsslclientcert = /etc/pki/x.pem\n\n[off]\nenabled=0\nbaseurl=http://x\n[open]\n\
                        baseurl = file:///srv/x\ngpgcheck = no\n";

    #[test]
    fn the_enabled_ones_are_read_with_their_lines() {
        insta::assert_debug_snapshot!(repositories(&files(&[("a.repo", TEXT), ("dnf.conf", "[x]\n")])));
    }

    #[test]
    fn without_a_key_nothing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let told = |text: &str| {
            let found = repositories(&files(&[("a.repo", text)]));
            let fault = found[0].key_files(directory.path()).unwrap_err();
            (fault.kind, fault.what)
        };
        insta::assert_debug_snapshot!([
            told("[x]\nbaseurl=http://x\n"),
            told("[x]\ngpgkey=file:///nowhere/KEY\n"),
            told("[x]\n\ngpgkey=http://x/KEY\n"),
            told("[x]\ngpgkey=file:///nowhere/KEY\ngpgcheck=0\n"),
        ]);
        std::fs::write(directory.path().join("KEY"), "").unwrap();
        let found = repositories(&files(&[("a.repo", "[x]\ngpgkey=file:///nowhere/KEY https://x/K\n")]));
        let beside = KeyFile { named: "/nowhere/KEY".into(), here: directory.path().join("KEY") };
        assert_eq!(found[0].key_files(directory.path()).unwrap(), [beside]);
    }

    #[test]
    fn every_built_in_base_names_a_key() {
        let site = crate::site::Site::load(None, crate::site::HostConfig::default()).unwrap();
        for name in site.bases().unwrap() {
            let base = site.base(&name).unwrap();
            if let crate::site::Family::Rpm { .. } = &base.family {
                let found =
                    keys(&base, Path::new("/nowhere")).unwrap_or_else(|fault| panic!("{name}: {fault}"));
                assert!(found.len() >= 2, "{name}");
            }
        }
    }
}
