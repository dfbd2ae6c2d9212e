//! Naming and opening things below a directory descriptor, never through a symbolic link. What a container's root
//! or a person can write is reached only this way.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, RawMode, ResolveFlags, openat2};
use rustix::io::{Errno, Result};

/// Stay below the directory, follow no symbolic link, enter no other filesystem.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A path that stays inside a tree by its form: relative, without `..`. Kept without `.` and doubled slashes; empty for
/// the tree's own root.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Inner(Vec<u8>);

/// Why a name cannot be one inside a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadInner {
    Empty,
    Absolute,
    Parent,
    Nul,
}

impl fmt::Display for BadInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadInner::Empty => "it is empty",
            BadInner::Absolute => "it is absolute",
            BadInner::Parent => "it has a `..`",
            BadInner::Nul => "it has a NUL byte",
        })
    }
}

impl std::error::Error for BadInner {}

impl Inner {
    pub fn parse(name: &[u8]) -> std::result::Result<Inner, BadInner> {
        if name.is_empty() {
            return Err(BadInner::Empty);
        }
        if name[0] == b'/' {
            return Err(BadInner::Absolute);
        }
        if name.contains(&0) {
            return Err(BadInner::Nul);
        }
        let mut clean = Vec::with_capacity(name.len());
        for part in name.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".") {
            if part == b".." {
                return Err(BadInner::Parent);
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(part);
        }
        Ok(Inner(clean))
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    pub fn as_bytes(&self) -> &[u8] {
        match self.is_root() {
            true => b".",
            false => &self.0,
        }
    }

    /// The directory it is in and its last component; none for the root.
    pub fn split(&self) -> Option<(Inner, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => (Inner(self.0[..at].to_vec()), &self.0[at + 1..]),
            None => (Inner(Vec::new()), &self.0),
        })
    }

    /// Every directory on the way and itself, outermost first, without the root.
    pub fn prefixes(&self) -> impl Iterator<Item = Inner> {
        let ends = self.0.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
        let whole = (!self.is_root()).then_some(self.0.len());
        ends.chain(whole).map(|end| Inner(self.0[..end].to_vec()))
    }
}

impl fmt::Display for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(self.as_bytes()))
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

/// Opens `path` below `directory`. A symbolic link anywhere is `ELOOP`, except a last one with `O_PATH | O_NOFOLLOW`.
pub fn open(directory: impl AsFd, path: &Inner, flags: OFlags) -> Result<OwnedFd> {
    openat2(directory, path.as_bytes(), flags | OFlags::CLOEXEC, Mode::empty(), INSIDE)
}

/// Opens the directory `path` as a handle for the `*at` calls only.
pub fn handle(directory: impl AsFd, path: &Inner) -> Result<OwnedFd> {
    open(directory, path, OFlags::PATH | OFlags::DIRECTORY)
}

/// Opens the directory `name`, one component, for reading its entries.
pub fn list(directory: impl AsFd, name: &std::ffi::CStr) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(directory, name, flags, Mode::empty(), INSIDE)
}

/// What is at `path`, not following a last symbolic link; none where nothing is.
pub fn look(directory: impl AsFd, path: &Inner) -> Result<Option<rustix::fs::Stat>> {
    match open(directory, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(found) => rustix::fs::fstat(found).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What sort of thing `stat` describes.
pub fn sort(stat: &rustix::fs::Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode as RawMode)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_and_escapes_refused() {
        assert_eq!(Inner::parse(b"./a//b/./c/").unwrap().as_bytes(), b"a/b/c");
        assert!(Inner::parse(b"./").unwrap().is_root());
        assert_eq!(Inner::parse(b""), Err(BadInner::Empty));
        assert_eq!(Inner::parse(b"/etc/passwd"), Err(BadInner::Absolute));
        assert_eq!(Inner::parse(b"a/../../b"), Err(BadInner::Parent));
        assert_eq!(Inner::parse(b"a\0b"), Err(BadInner::Nul));
        assert_eq!(Inner::parse(b"a/..b").unwrap().as_bytes(), b"a/..b");
    }

    #[test]
    fn split_and_prefixes() {
        let path = Inner::parse(b"a/b/c").unwrap();
        let (parent, name) = path.split().unwrap();
        assert_eq!((parent.as_bytes(), name), (&b"a/b"[..], &b"c"[..]));
        let prefixes: Vec<_> = path.prefixes().map(|p| p.to_string()).collect();
        assert_eq!(prefixes, ["a", "a/b", "a/b/c"]);
        assert_eq!(Inner::parse(b".").unwrap().prefixes().count(), 0);
    }

    proptest::proptest! {
        #[test]
        fn no_name_gets_out(name: Vec<u8>) {
            if let Ok(inner) = Inner::parse(&name) {
                proptest::prop_assert!(!inner.as_bytes().starts_with(b"/"));
                proptest::prop_assert!(inner.as_bytes().split(|b| *b == b'/').all(|part| part != b".."));
            }
        }
    }
}
