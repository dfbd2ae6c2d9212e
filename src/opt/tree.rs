//! Whole trees: removing one that somebody may still be writing to, and adding up what one holds.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Dir, FileType, renameat, statat, unlinkat};
use rustix::io::{Errno, Result};

use super::beneath;

/// How deep a walk goes with one descriptor a level. A tree made deeper than this on purpose is flattened while it is
/// removed, and its deeper part is not counted.
pub const DEEPEST: usize = 100;

/// How often a directory that is written to while it is being emptied is read again.
const ATTEMPTS: usize = 20;

/// Removes `name` in `directory` with everything below it, following no symbolic link and entering no other mount.
/// What does not exist is no error.
pub fn remove(directory: impl AsFd, name: &str) -> Result<()> {
    let directory = directory.as_fd();
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match unlinkat(directory, &name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(e) => return Err(e),
    }
    for _ in 0..ATTEMPTS {
        let top = match beneath::list(directory, &name) {
            Ok(top) => top,
            Err(Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e),
        };
        // What was flattened arrives in `top` after it has been read: hence the outer loop.
        let flattened = empty(top.as_fd(), top.as_fd(), 0)?;
        match unlinkat(directory, &name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY) if flattened => return remove_flattened(directory, &name),
            Err(Errno::NOTEMPTY) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::NOTEMPTY)
}

/// The rest of a tree that was too deep: each round takes `DEEPEST` levels off, so it ends.
fn remove_flattened(directory: BorrowedFd<'_>, name: &CString) -> Result<()> {
    let mut idle = 0;
    while idle < ATTEMPTS {
        let top = beneath::list(directory, name)?;
        if !empty(top.as_fd(), top.as_fd(), 0)? {
            idle += 1;
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::NOTEMPTY) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::NOTEMPTY)
}

/// Empties `directory`. Says whether anything was moved up to `top` because it was too deep.
fn empty(directory: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize) -> Result<bool> {
    let mut flattened = false;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() != FileType::Directory {
            match unlinkat(directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => continue,
                Err(Errno::ISDIR) => {}
                Err(e) => return Err(e),
            }
        }
        match unlinkat(directory, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => continue,
            Err(Errno::NOTEMPTY) => {}
            // It has become something else: the next round sees what.
            Err(Errno::NOTDIR) => continue,
            Err(e) => return Err(e),
        }
        if depth >= DEEPEST {
            renameat(directory, name, top, format!(".deep-{:016x}", rand::random::<u64>()))?;
            flattened = true;
            continue;
        }
        let child = match beneath::list(directory, name) {
            Ok(child) => child,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(e) => return Err(e),
        };
        for _ in 0..ATTEMPTS {
            flattened |= empty(child.as_fd(), top, depth + 1)?;
            match unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) => {}
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => break,
                Err(e) => return Err(e),
            }
        }
    }
    Ok(flattened)
}

/// Bytes on disk of what is below `directory`, which others may be writing to.
pub fn disk_bytes(directory: impl AsFd) -> Result<u64> {
    count(directory.as_fd(), 0)
}

fn count(directory: BorrowedFd<'_>, depth: usize) -> Result<u64> {
    let mut bytes = 0;
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
            // st_blocks counts 512 bytes each, whatever the filesystem's block is (stat(2)).
            Ok(stat) => bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e),
        }
        if entry.file_type() == FileType::Directory && depth < DEEPEST {
            match beneath::list(directory, name) {
                Ok(child) => bytes += count(child.as_fd(), depth + 1)?,
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    #[test]
    fn a_tree_goes_and_what_its_links_point_at_stays() {
        let place = tempfile::tempdir().unwrap();
        let outside = place.path().join("outside");
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("kept"), "x").unwrap();
        let tree = place.path().join("tree");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::os::unix::fs::symlink(&outside, tree.join("a/link")).unwrap();
        std::fs::write(tree.join("a/b/file"), vec![1; 10_000]).unwrap();
        let directory = File::open(place.path()).unwrap();
        assert!(disk_bytes(File::open(&tree).unwrap()).unwrap() >= 10_000);
        remove(&directory, "tree").unwrap();
        remove(&directory, "tree").unwrap();
        assert!(!tree.exists());
        assert!(outside.join("kept").exists());
    }

    #[test]
    fn a_tree_deeper_than_a_walk_goes_too() {
        let place = tempfile::tempdir().unwrap();
        let directory = File::open(place.path()).unwrap();
        std::fs::create_dir(place.path().join("tree")).unwrap();
        let mut at = rustix::fs::openat(
            &directory,
            "tree",
            rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
        for _ in 0..600 {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
            at = beneath::list(&at, c"d").unwrap();
        }
        remove(&directory, "tree").unwrap();
        assert!(!place.path().join("tree").exists());
    }
}
