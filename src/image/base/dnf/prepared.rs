//! What the host prepares: the directories of both stages, the definition's files, keys and certificates.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::apart::Apart;
use super::repos::{self, KeyFile, Setting, repositories};
use super::{INSIDE, OUT, metadata};
use crate::image::base::work::Work;
use crate::report::{Fault, Kind};
use crate::site::BaseDefinition;

/// Debian's rpm has its database in the person's home unless it is told otherwise.
const MACROS: &str = "%_dbpath /var/lib/rpm\n";
/// In stage 0, before its dnf runs (`"$@"`): keys and certificates to where the repositories name them.
pub(super) const INSTALL: &str = r#"set -eu
number=0
while read -r named; do
    mkdir -p "${named%/*}"
    cp "/moorage/files/$number" "$named"
    number=$((number + 1))
done </moorage/names
exec "$@""#;

/// What the host prepares for both stages.
pub(super) struct Prepared {
    /// The directory that stage 0 sees as [`INSIDE`].
    pub directory: PathBuf,
    pub stage0: PathBuf,
    pub home: PathBuf,
    keys: Vec<(String, Vec<KeyFile>)>,
}

impl Prepared {
    pub fn new(definition: &BaseDefinition, work: &Work) -> Result<Prepared> {
        is_one_word(work.path())?;
        let repos = work.repos(definition)?;
        let keys = repos::keys(definition, &repos)?;
        let at = |name: &str| work.path().join(name);
        for name in ["moorage/repos", "moorage/files", "stage0/out", "home"] {
            std::fs::create_dir_all(at(name)).with_context(|| format!("make {name}"))?;
        }
        std::fs::remove_dir(at("moorage/repos")).context("make room for the repos")?;
        std::fs::rename(&repos, at("moorage/repos")).context("hand the repos in")?;
        let write =
            |name: &str, text: &str| std::fs::write(at(name), text).with_context(|| format!("write {name}"));
        write("home/.rpmmacros", MACROS)?;
        write("moorage/dnf.conf", "[main]\n")?;
        let moved = |key: KeyFile| match key.here.strip_prefix(&repos) {
            Ok(beside) => KeyFile { here: at("moorage/repos").join(beside), ..key },
            Err(_) => key,
        };
        let keys = keys.into_iter().map(|(id, keys)| (id, keys.into_iter().map(moved).collect())).collect();
        Ok(Prepared { directory: at("moorage"), stage0: at("stage0"), home: at("home"), keys })
    }

    /// Where each repository's keys are on this host, where it names another place.
    pub fn overrides(&self, definition: &BaseDefinition) -> Vec<String> {
        let all = repositories(&definition.repos);
        let of = |(id, files): &(String, Vec<KeyFile>)| {
            let repository = all.iter().find(|repository| repository.id == *id)?;
            let key = |Setting { value, .. }: &Setting| {
                let file = files
                    .iter()
                    .find(|file| value.strip_prefix("file://").map(Path::new) == Some(&file.named));
                file.map_or_else(|| value.clone(), |file| format!("file://{}", file.here.display()))
            };
            let keys: Vec<String> = repository.keys.iter().map(key).collect();
            Some(format!("--setopt={id}.gpgkey={}", keys.join(",")))
        };
        self.keys.iter().filter_map(of).collect()
    }

    /// Copies keys and certificates to where stage 0 finds them, the keys first; answers how many keys there are.
    pub fn hand_in(&self, definition: &BaseDefinition) -> Result<usize> {
        let keys: Vec<&KeyFile> = self.keys.iter().flat_map(|(_, keys)| keys).collect();
        let count = keys.len();
        let secrets = repositories(&definition.repos).into_iter().flat_map(|repository| repository.secrets);
        let secrets: Vec<Setting> = secrets.collect();
        let missing = secrets.iter().find(|secret| !Path::new(&secret.value).is_file());
        if let Some(Setting { value, place }) = missing {
            let what = format!("{place}: {value} is not there, which the repository is asked with");
            return Err(Fault::new(Kind::Missing, what)
                .next("subscription-manager register, or copy it there from a host that is registered")
                .into());
        }
        let keys = keys.into_iter().map(|key| (key.here.clone(), key.named.display().to_string()));
        let secrets = secrets.iter().map(|secret| (PathBuf::from(&secret.value), secret.value.clone()));
        let mut names = String::new();
        for (number, (from, named)) in keys.chain(secrets).enumerate() {
            let to = self.directory.join("files").join(number.to_string());
            std::fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
            names.push_str(&named);
            names.push('\n');
        }
        std::fs::write(self.directory.join("names"), names).context("write the names of keys")?;
        Ok(count)
    }

    /// Stage 0 as what is run in it sees it: how names are resolved, and repositories that are directories.
    pub fn inside(&self, definition: &BaseDefinition, release: &str) -> Apart {
        let into = |path: &str| self.stage0.join(path.trim_start_matches('/'));
        let mut binds = vec![(self.directory.clone(), into(INSIDE))];
        if let Ok(resolver) = std::fs::canonicalize("/etc/resolv.conf") {
            binds.push((resolver, into("/etc/resolv.conf")));
        }
        for (url, _) in metadata(&definition.repos, release) {
            let directory =
                url.strip_prefix("file://").and_then(|path| path.strip_suffix("/repodata/repomd.xml"));
            binds.extend(directory.map(|path| (PathBuf::from(path), into(path))));
        }
        let roots = vec![self.stage0.clone(), self.stage0.join(OUT.trim_start_matches('/'))];
        Apart { roots, binds, home: "/root".into() }
    }

    pub fn chroot(&self, script: &str, words: Vec<String>) -> Vec<String> {
        let chroot =
            ["chroot", &self.stage0.display().to_string(), "/bin/sh", "-c", script, "sh"].map(str::to_owned);
        chroot.into_iter().chain(words).collect()
    }
}

/// dnf takes a list of directories apart at blanks and commas, and knows no quotes (dnf.conf(5), list).
fn is_one_word(directory: &Path) -> Result<(), Fault> {
    let text = directory.display().to_string();
    match text.contains(|c: char| c.is_whitespace() || c == ',') {
        false => Ok(()),
        true => Err(Fault::new(Kind::Usage, format!("dnf cannot work in {text:?}"))
            .why("it takes a directory's name apart at blanks and commas")
            .next("the same command with TMPDIR=/var/tmp")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_dnf_would_take_apart_is_refused() {
        is_one_word(Path::new("/var/tmp/moorage-base-x")).unwrap();
        for bad in ["/var/my tmp/x", "/var/a,b/x", "/var/a\tb"] {
            assert_eq!(is_one_word(Path::new(bad)).unwrap_err().kind, Kind::Usage, "{bad:?}");
        }
    }
}
