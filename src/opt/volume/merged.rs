//! Changing what a volume shows, all its layers together, while nobody else sees it yet.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, mkdirat, openat, unlinkat};
use rustix::io::Errno;

use crate::opt::beneath::{self, Inner};

/// The most that is read of one file, bytes.
const LARGEST: u64 = 1 << 20;

/// A volume's root as its container will have it. Paths are relative to `/opt`; no symbolic link is followed.
pub struct Merged {
    root: OwnedFd,
}

impl Merged {
    pub(super) fn new(root: OwnedFd) -> Merged {
        Merged { root }
    }

    /// What a regular file says; `None` where there is none, or a link or directory is in its place.
    pub fn read_file(&self, path: &str) -> Result<Option<Vec<u8>>> {
        let path = inner(path)?;
        match beneath::look(&self.root, &path) {
            Ok(Some(stat)) if beneath::sort(&stat).is_file() => {}
            Ok(_) | Err(Errno::LOOP | Errno::NOTDIR) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("look at /opt/{path}")),
        }
        let read = || -> Result<Vec<u8>> {
            let file = File::from(beneath::open(&self.root, &path, OFlags::RDONLY | OFlags::NONBLOCK)?);
            let mut content = Vec::new();
            file.take(LARGEST + 1).read_to_end(&mut content)?;
            anyhow::ensure!(content.len() as u64 <= LARGEST, "it is too large");
            Ok(content)
        };
        read().map(Some).with_context(|| format!("read /opt/{path}"))
    }

    /// Makes a directory unless there is one. Its parent has to be there.
    ///
    /// # Errors
    /// A file or link is in its place.
    pub fn make_directory(&self, path: &str, mode: u32, owner: (u32, u32)) -> Result<()> {
        let path = inner(path)?;
        let make = || -> rustix::io::Result<()> {
            let Some((parent, name)) = path.split() else { return Ok(()) };
            let parent = beneath::handle(&self.root, &parent)?;
            match mkdirat(&parent, name, Mode::RWXU) {
                Err(Errno::EXIST) => return beneath::handle(&self.root, &path).map(drop),
                other => other?,
            }
            give(&beneath::open(&self.root, &path, OFlags::RDONLY | OFlags::DIRECTORY)?, mode, owner)
        };
        make().with_context(|| format!("make /opt/{path}"))
    }

    /// Writes a file anew. Its directory has to be there.
    pub fn write_file(&self, path: &str, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<()> {
        let path = inner(path)?;
        let write = || -> Result<()> {
            let (parent, name) = path.split().context("a file needs a name")?;
            let parent = beneath::handle(&self.root, &parent)?;
            match unlinkat(&parent, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&parent, name, flags, Mode::RUSR | Mode::WUSR)?);
            file.write_all(content)?;
            Ok(give(&file, mode, owner)?)
        };
        write().with_context(|| format!("write /opt/{path}"))
    }
}

fn inner(path: &str) -> Result<Inner> {
    Inner::parse(path.as_bytes()).with_context(|| format!("{path:?} is not a path below /opt"))
}

fn give(file: &impl std::os::fd::AsFd, mode: u32, (uid, gid): (u32, u32)) -> rustix::io::Result<()> {
    let file = file.as_fd();
    fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    fchmod(file, Mode::from_raw_mode(mode))
}
