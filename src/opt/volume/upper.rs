//! What the daemon puts into a volume before anybody else sees it.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Stat, Uid, XattrFlags, fchmod, fchown, fsetxattr, mkdirat, openat, renameat,
    unlinkat,
};
use rustix::io::Errno;

use crate::opt::beneath::{self, Inner};
use crate::opt::copy;
use crate::opt::staging::Staging;
use crate::report::{Fault, Kind};

/// The fresh upper directory of a volume that is not mounted yet. Paths are relative to `/opt`.
pub struct Upper {
    pub(super) handle: OwnedFd,
    /// The layers below, topmost first.
    lowers: Vec<OwnedFd>,
}

/// Who a file belongs to and what may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rights {
    uid: u32,
    gid: u32,
    mode: u32,
}

const PLAIN: Rights = Rights { uid: 0, gid: 0, mode: 0o755 };

impl Upper {
    /// The merged root shows the upper's owner, mode and attributes: they are made the topmost layer's.
    pub(super) fn new(handle: OwnedFd, lowers: Vec<OwnedFd>) -> Result<Upper> {
        match lowers.first() {
            Some(top) => copy::imitate(top, &handle)?,
            None => give(&handle, PLAIN)?,
        }
        Ok(Upper { handle, lowers })
    }

    /// The root filesystem of a container that was never started, as the engine keeps it: the same rules hold there.
    /// Paths are relative to its root, `lowers` are topmost first.
    pub fn of_root(upper: &Path, lowers: &[PathBuf]) -> Result<Upper> {
        let open = |path: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
        };
        Ok(Upper {
            handle: open(upper)?,
            lowers: lowers.iter().map(|lower| open(lower)).collect::<Result<_>>()?,
        })
    }

    /// Makes the directory `path` and those on its way. One that a layer has keeps its owner and mode; another is
    /// root's, 0755.
    pub fn make_dirs(&self, path: &str) -> Result<()> {
        self.directory(&inner(path)?).map(drop)
    }

    /// Writes a file, in place of one that a layer may have there. Directories on its way are made.
    pub fn write_file(&self, path: &str, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<()> {
        let path = inner(path)?;
        let (parent, name) = path.split().context("a file needs a name")?;
        let directory = self.directory(&parent)?;
        if let Some(stat) = self.below(&path)?
            && beneath::sort(&stat).is_dir()
        {
            return Err(in_the_way(&path, "a directory"));
        }
        let write = || -> Result<()> {
            match unlinkat(&directory, name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(e) => return Err(e.into()),
            }
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut file = File::from(openat(&directory, name, flags, Mode::RUSR | Mode::WUSR)?);
            file.write_all(content)?;
            Ok(give(&file, Rights { uid: owner.0, gid: owner.1, mode })?)
        };
        write().with_context(|| format!("write /opt/{path}"))
    }

    /// Moves the checkout `name` from a staging directory to `to`. What the layers have there is hidden by it. The person
    /// sees nothing of the staging directory any more.
    pub fn move_checkout(&self, staging: &Staging, name: &str, to: &str) -> Result<()> {
        let (from, to) = (inner(name)?, inner(to)?);
        let (from_parent, from_name) = from.split().context("a checkout needs a name")?;
        let (to_parent, to_name) = to.split().context("a checkout cannot be all of /opt")?;
        let directory = self.directory(&to_parent)?;
        if let Some(stat) = self.below(&to)?
            && !beneath::sort(&stat).is_dir()
        {
            return Err(in_the_way(&to, "a file or link"));
        }
        let move_it = || -> Result<()> {
            staging.detach()?;
            let source = beneath::handle(&staging.handle, &from_parent)?;
            // It must be a directory: that is what is opened here, and what is marked below.
            beneath::handle(&source, &inner(&String::from_utf8_lossy(from_name))?)?;
            renameat(&source, from_name, &directory, to_name)?;
            let moved = beneath::open(&self.handle, &to, OFlags::RDONLY | OFlags::DIRECTORY)?;
            // Without this mark the overlay would mix the layers' directory into the checkout.
            Ok(fsetxattr(&moved, "trusted.overlay.opaque", b"y", XattrFlags::empty())?)
        };
        move_it().with_context(|| {
            format!("move the checkout {} to /opt/{to}", staging.path().join(name).display())
        })
    }

    /// Makes a home directory, 0750, which belongs to that user and group.
    pub fn make_home(&self, path: &str, uid: u32, gid: u32) -> Result<()> {
        self.make_directory(path, 0o750, (uid, gid))
    }

    /// Makes a directory with this mode and owner, also where there is one.
    pub fn make_directory(&self, path: &str, mode: u32, (uid, gid): (u32, u32)) -> Result<()> {
        let path = inner(path)?;
        let directory = self.directory(&path)?;
        give(&directory, Rights { uid, gid, mode }).with_context(|| format!("make /opt/{path}"))
    }

    /// The content of a regular file that is in the directory itself, at most so many bytes; none where there is none.
    pub fn content(&self, path: &str, most: u64) -> Result<Option<Vec<u8>>> {
        use std::io::Read as _;
        let path = inner(path)?;
        // A FIFO must not make us wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = match beneath::open(&self.handle, &path, flags) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR | Errno::NXIO) => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("open /{path}")),
        };
        let read = || -> std::io::Result<Option<Vec<u8>>> {
            let mut content = Vec::new();
            if !file.metadata()?.is_file() {
                return Ok(None);
            }
            file.take(most).read_to_end(&mut content)?;
            Ok(Some(content))
        };
        read().with_context(|| format!("read /{path}"))
    }

    /// Opens a directory of the upper, making it and those on its way as the layers have them.
    fn directory(&self, path: &Inner) -> Result<OwnedFd> {
        for prefix in path.prefixes() {
            match beneath::look(&self.handle, &prefix)? {
                Some(stat) if beneath::sort(&stat).is_dir() => continue,
                Some(_) => return Err(in_the_way(&prefix, "a file or link")),
                None => {}
            }
            let rights = match self.below(&prefix)? {
                Some(stat) if beneath::sort(&stat).is_dir() => rights(&stat),
                Some(stat) if beneath::sort(&stat).is_symlink() => {
                    return Err(in_the_way(&prefix, "a symbolic link"));
                }
                Some(_) => return Err(in_the_way(&prefix, "a file")),
                None => PLAIN,
            };
            let Some((parent, name)) = prefix.split() else { continue };
            let make = || -> rustix::io::Result<()> {
                mkdirat(beneath::handle(&self.handle, &parent)?, name, Mode::RWXU)?;
                give(beneath::open(&self.handle, &prefix, OFlags::RDONLY | OFlags::DIRECTORY)?, rights)
            };
            make().with_context(|| format!("make /opt/{prefix}"))?;
        }
        beneath::open(&self.handle, path, OFlags::RDONLY | OFlags::DIRECTORY)
            .with_context(|| format!("open /opt/{path}"))
    }

    /// What the topmost layer that has something at `path` has there. Parents are judged before their children, so a link
    /// or file on the way hides what deeper layers have.
    fn below(&self, path: &Inner) -> Result<Option<Stat>> {
        for lower in &self.lowers {
            match beneath::look(lower, path) {
                // A whiteout: an upper that became a layer has removed it.
                Ok(Some(stat)) if beneath::sort(&stat).is_char_device() => return Ok(None),
                Ok(Some(stat)) => return Ok(Some(stat)),
                Ok(None) => {}
                Err(Errno::LOOP | Errno::NOTDIR) => return Ok(None),
                Err(e) => return Err(e).with_context(|| format!("look at /opt/{path} in a layer")),
            }
        }
        Ok(None)
    }
}

fn inner(path: &str) -> Result<Inner> {
    let bad = |why| Fault::new(Kind::Usage, format!("{path:?} is not a path below /opt: {why}"));
    Ok(Inner::parse(path.as_bytes()).map_err(bad)?)
}

fn in_the_way(path: &Inner, what: &str) -> anyhow::Error {
    Fault::new(Kind::Failed, format!("the /opt archive has {what} at /opt/{path}"))
        .why("it is in the way of what has to be put there, and links are not followed")
        .next("take it out of the archive, then run the same command again")
        .into()
}

fn rights(stat: &Stat) -> Rights {
    Rights { uid: stat.st_uid, gid: stat.st_gid, mode: stat.st_mode & 0o7777 }
}

fn give(file: impl std::os::fd::AsFd, rights: Rights) -> rustix::io::Result<()> {
    fchown(&file, Some(Uid::from_raw(rights.uid)), Some(Gid::from_raw(rights.gid)))?;
    fchmod(&file, Mode::from_raw_mode(rights.mode))
}
