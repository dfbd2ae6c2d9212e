//! What a base was made of, exactly: the packages with their versions, and the repositories' metadata they came from.
//!
//! A lock in the site (`containerauthor/bases/<name>.lock`) is what the base is made of, on every host alike, until it is
//! made anew with `--refresh`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::report::{Fault, Kind};
use crate::spec::Digest;

/// The version of the lock's layout.
const VERSION: u32 = 1;

/// The content of a lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    pub version: u32,
    pub base: String,
    /// Digest of the definition it was made from.
    pub definition: Digest,
    /// Digest of the root filesystem, an uncompressed tar.
    pub root: Digest,
    /// SHA-256 of every signed file of metadata, by apt's or dnf's name for it.
    pub metadata: BTreeMap<String, Digest>,
    /// `name:architecture` and version of every package.
    pub packages: BTreeMap<String, String>,
}

impl Lock {
    pub fn new(base: &str, definition: Digest, root: Digest, made: Made) -> Lock {
        Lock {
            version: VERSION,
            base: base.to_owned(),
            definition,
            root,
            metadata: made.metadata,
            packages: made.packages,
        }
    }

    /// Reads the text of `origin`, for the base `name` as it is defined now.
    pub fn parse(origin: &str, text: &str, name: &str, definition: Digest) -> Result<Lock, Fault> {
        let anew = format!("make it anew: moorage make-base-image {name} --refresh --lock {origin}");
        let lock: Lock = toml::from_str(text).map_err(|error| {
            Fault::new(Kind::Usage, format!("{origin} is no lock of a base: {}", error.message())).next(&anew)
        })?;
        if lock.version != VERSION || lock.base != name {
            let what = format!("{origin} is a lock of {:?}, version {}", lock.base, lock.version);
            return Err(Fault::new(Kind::Usage, what).next(anew));
        }
        match lock.definition == definition {
            true => Ok(lock),
            false => Err(Fault::new(
                Kind::Usage,
                format!("{origin} is the lock of another definition of {name}: that has changed since"),
            )
            .next(anew)),
        }
    }

    /// The text of a lock file.
    pub fn text(&self) -> anyhow::Result<String> {
        let body = toml::to_string(self)?;
        Ok(format!(
            "# What {0} is made of: moorage make-base-image {0} makes the same again, byte for byte.\n\
             # With --refresh it takes the newest packages and writes this anew.\n{body}",
            self.base
        ))
    }

    /// apt_preferences(5) under which apt takes exactly these versions.
    pub fn preferences(&self) -> String {
        let mut text = String::new();
        for (package, version) in &self.packages {
            let name = package.strip_suffix(":all").unwrap_or(package);
            // Writing to a String cannot fail.
            let _ = write!(text, "Package: {name}\nPin: version {version}\nPin-Priority: 1001\n\n");
        }
        text
    }

    /// What the repositories gave instead of the locked packages.
    pub fn differences(&self, made: &Made) -> Vec<String> {
        differences(&self.packages, &made.packages)
    }
}

/// What became of packages between two lists: `name 1 → 2`, `name 1 is gone`, `name 1 is new`.
pub fn differences(before: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<String> {
    let mut all: Vec<&String> = before.keys().chain(now.keys()).collect();
    all.sort();
    all.dedup();
    all.into_iter()
        .filter_map(|name| match (before.get(name), now.get(name)) {
            (Some(one), Some(two)) if one != two => Some(format!("{name} {one} → {two}")),
            (Some(one), None) => Some(format!("{name} {one} is gone")),
            (None, Some(two)) => Some(format!("{name} {two} is new")),
            _ => None,
        })
        .collect()
}

/// What went into a root filesystem.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Made {
    pub metadata: BTreeMap<String, Digest>,
    pub packages: BTreeMap<String, String>,
}

impl Made {
    /// From the output of `sha256sum` and of `dpkg-query -W` or `rpm -qa` (`name:architecture version` a line).
    pub fn read(metadata: &str, packages: &str) -> Made {
        let pair =
            |line: &str| line.split_once(' ').map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
        Made {
            metadata: metadata
                .lines()
                .filter_map(|line| {
                    let (digest, name) = pair(line)?;
                    Some((name, digest.parse().ok()?))
                })
                .collect(),
            packages: packages.lines().filter_map(pair).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock() -> Lock {
        let made = Made::read(
            &format!("{}  h_dists_x_InRelease\n", "ab".repeat(32)),
            "bash:amd64 5.2-1\ntzdata:all 2026a\n",
        );
        Lock::new("debian-12", Digest([1; 32]), Digest([2; 32]), made)
    }

    #[test]
    fn what_is_written_is_read_again() {
        let lock = lock();
        let text = lock.text().unwrap();
        insta::assert_snapshot!(text);
        assert_eq!(Lock::parse("x.lock", &text, "debian-12", Digest([1; 32])).unwrap(), lock);
        insta::assert_snapshot!(lock.preferences());
    }

    #[test]
    fn a_lock_of_something_else_is_refused() {
        let text = lock().text().unwrap();
        let told = |text: &str, name: &str, digest| {
            Lock::parse("x.lock", text, name, Digest([digest; 32])).unwrap_err().what
        };
        insta::assert_debug_snapshot!([
            told(&text, "debian-13", 1),
            told(&text, "debian-12", 9),
            told("version = 1", "debian-12", 1),
        ]);
    }

    #[test]
    fn differences_say_what_happened_to_a_package() {
        let mut made = Made { packages: lock().packages, ..Made::default() };
        made.packages.insert("bash:amd64".into(), "5.2-2".into());
        made.packages.insert("zsh:amd64".into(), "1".into());
        made.packages.remove("tzdata:all");
        assert_eq!(
            lock().differences(&made),
            ["bash:amd64 5.2-1 → 5.2-2", "tzdata:all 2026a is gone", "zsh:amd64 1 is new"]
        );
    }
}
