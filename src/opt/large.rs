//! Files that a first write would copy whole.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Dir, FileType, statat};
use rustix::io::Errno;

use super::store::Store;
use super::volume::Kind;

/// How deep it is looked for large files.
const DEEPEST: usize = 64;

/// A file of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeFile {
    /// Relative to `/opt`.
    pub path: PathBuf,
    pub bytes: u64,
}

impl Store {
    /// The files of a volume of at least `least` bytes, in its layers or its own directory, largest first. Walks all of them;
    /// a file that a higher layer hides may be among them.
    pub fn large_files(&self, name: &str, least: u64) -> Result<Vec<LargeFile>> {
        let record = self.record(name)?;
        let Kind::Overlay { layers, .. } = &record.kind else { return Ok(Vec::new()) };
        let mut trees: Vec<OwnedFd> = self.lowers(layers)?;
        trees.push(self.upper_of(name, &record)?);
        let mut found = BTreeMap::new();
        for tree in trees {
            walk(tree.as_fd(), &mut PathBuf::new(), least, &mut found)
                .with_context(|| format!("look for large files in {name}"))?;
        }
        let mut files: Vec<LargeFile> =
            found.into_iter().map(|(path, bytes)| LargeFile { path, bytes }).collect();
        files.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.path.cmp(&b.path)));
        Ok(files)
    }
}

fn walk(
    tree: BorrowedFd<'_>,
    path: &mut PathBuf,
    least: u64,
    found: &mut BTreeMap<PathBuf, u64>,
) -> rustix::io::Result<()> {
    use std::os::unix::ffi::OsStrExt as _;
    if path.components().count() > DEEPEST {
        return Ok(());
    }
    for entry in Dir::read_from(tree)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
        match entry.file_type() {
            FileType::Directory => match super::beneath::list(tree, name) {
                Ok(child) => walk(child.as_fd(), path, least, found)?,
                Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            },
            FileType::RegularFile => match statat(tree, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) if stat.st_size as u64 >= least => {
                    found.insert(path.clone(), stat.st_size as u64);
                }
                Ok(_) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e),
            },
            _ => {}
        }
        path.pop();
    }
    Ok(())
}
