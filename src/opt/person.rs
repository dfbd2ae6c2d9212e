//! Doing something with the rights of the person who asked, and opening what they name.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use rustix::fs::{Access, AtFlags, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use rustix::{fs::Gid, fs::Uid};
use serde::{Deserialize, Serialize};

use crate::report::{Fault, Kind};

/// The numbers that decide what a person may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

impl Person {
    /// Runs `work` on a thread of its own that has this person's rights and no others. Descriptors it opens are good
    /// for the caller; the rights end with the thread.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let groups: Vec<Gid> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new().name("person".into()).spawn_scoped(scope, || {
                // Groups first, uid last: the uid takes the right to change the others with it.
                set_thread_groups(&groups)?;
                set_thread_res_gid(gid, gid, gid)?;
                set_thread_res_uid(uid, uid, uid)?;
                Ok::<T, Errno>(work())
            })?;
            worker
                .join()
                .map_err(|_| anyhow!("the work as uid {} panicked", self.uid))?
                .with_context(|| format!("become uid {}", self.uid))
        })
    }

    /// Opens the regular file `path`, which must be below one of `roots`, for reading as the person.
    pub fn open_file(&self, path: &Path, roots: &[PathBuf]) -> Result<OwnedFd> {
        let below = Below::find(path, roots)?;
        // Not blocking: a FIFO in place of the file must not hold the thread.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = self.run(|| below.open(flags))??;
        match super::beneath::sort(&rustix::fs::fstat(&file)?).is_file() {
            true => Ok(file),
            false => Err(Fault::new(Kind::Usage, format!("{} is not a regular file", path.display()))
                .next(format!("ls -la {}", path.display()))
                .into()),
        }
    }

    /// Opens the file or directory `path`, below one of `roots`, to be mounted: the person must be able to read it,
    /// and to write it where `write` is asked. Returns the root it was allowed under, too.
    pub fn open_mount(&self, path: &Path, roots: &[PathBuf], write: bool) -> Result<(OwnedFd, PathBuf)> {
        let below = Below::find(path, roots)?;
        let source = self.run(|| -> Result<OwnedFd> {
            let source = below.open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
            let sort = super::beneath::sort(&rustix::fs::fstat(&source)?);
            let denied = |e: Errno, what: &str| below.fault(e, what);
            if sort.is_dir() {
                let wanted = if write { Access::WRITE_OK | Access::EXEC_OK } else { Access::EXEC_OK };
                rustix::fs::accessat(&source, ".", wanted, AtFlags::empty())
                    .map_err(|e| denied(e, if write { "write" } else { "enter" }))?;
            } else if sort.is_file() {
                if write {
                    below.open(OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOCTTY)?;
                }
            } else {
                let what = format!("{} is neither a file nor a directory", path.display());
                return Err(Fault::new(Kind::Usage, what).next(format!("ls -la {}", path.display())).into());
            }
            Ok(source)
        })??;
        Ok((source, below.root.to_owned()))
    }
}

/// A path below a root that the host's configuration allows.
struct Below<'a> {
    path: &'a Path,
    root: &'a Path,
    rest: &'a Path,
    /// The root itself, opened by us: where it lies is the administrator's word.
    handle: OwnedFd,
}

impl<'a> Below<'a> {
    fn find(path: &'a Path, roots: &'a [PathBuf]) -> Result<Self> {
        let allowed = || match roots {
            [] => "no path is allowed on this host".to_owned(),
            _ => format!("allowed below {}", list(roots)),
        };
        let refuse = |why: &str| {
            Fault::new(Kind::Denied, format!("{} is not allowed", path.display()))
                .why(why)
                .why(allowed())
                .next("use a path below those, or ask an admin to allow it in /etc/moorage/config.toml")
        };
        if !path.is_absolute() {
            return Err(refuse("it is not absolute").into());
        }
        if path.components().any(|c| c == Component::ParentDir) || path.as_os_str().as_bytes().contains(&0) {
            return Err(refuse("it has a `..`").into());
        }
        if path.components().count() == 1 {
            return Err(refuse("it is the whole host").into());
        }
        let root = roots
            .iter()
            .filter(|root| path.starts_with(root))
            .max_by_key(|root| root.components().count())
            .ok_or_else(|| refuse("it is outside of what the host's configuration allows"))?;
        let rest = path.strip_prefix(root)?;
        let handle =
            rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|e| {
                    Fault::new(Kind::NotFound, format!("{} cannot be opened", path.display()))
                        .why(format!("{}: {}", root.display(), e))
                        .next(format!("an admin of this host has to make {}", root.display()))
                })?;
        Ok(Below { path, root, rest, handle })
    }

    fn open(&self, flags: OFlags) -> Result<OwnedFd> {
        let rest = if self.rest.as_os_str().is_empty() { Path::new(".") } else { self.rest };
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        openat2(self.handle.as_fd(), rest, flags | OFlags::CLOEXEC, Mode::empty(), inside)
            .map_err(|e| self.fault(e, "open").into())
    }

    fn fault(&self, error: Errno, doing: &str) -> Fault {
        let path = self.path.display();
        match error {
            Errno::NOENT | Errno::NOTDIR => Fault::new(Kind::NotFound, format!("{path} does not exist"))
                .why(error.to_string())
                .next("name one that is on this host"),
            Errno::LOOP => Fault::new(Kind::Denied, format!("{path} goes through a symbolic link"))
                .next(format!("name the path that `realpath {path}` prints")),
            Errno::ACCESS | Errno::PERM | Errno::ROFS => {
                Fault::new(Kind::Denied, format!("you may not {doing} {path}"))
                    .why(error.to_string())
                    .next("ask whoever it belongs to")
            }
            _ => Fault::new(Kind::Failed, format!("{doing} {path}"))
                .why(error.to_string())
                .next(format!("ls -la {path}")),
        }
    }
}

fn list(roots: &[PathBuf]) -> String {
    roots.iter().map(|r| r.display().to_string()).collect::<Vec<_>>().join(", ")
}
