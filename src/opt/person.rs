//! Doing something with the rights of the person who asked, and opening what they name.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::unistd::{setfsgid, setfsuid};
use rustix::fs::{
    Access, AtFlags, Gid, Mode, OFlags, ResolveFlags, Stat, StatVfsMountFlags, fstatvfs, openat2,
};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, capabilities, set_thread_groups};
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
    /// Runs `work` on a thread of its own that has this person's rights to files and no others. Descriptors it opens are
    /// good for the caller; the rights end with the thread.
    ///
    /// Only what decides about files is the person's (credentials(7)): were the thread's other user IDs theirs, too, they
    /// could send it signals, and with it the daemon. access(2) asks for those others: it needs `AT_EACCESS` here.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let worker = std::thread::Builder::new().name("person".into()).spawn_scoped(scope, || {
                self.take_rights()?;
                Ok::<T, anyhow::Error>(work())
            })?;
            worker
                .join()
                .map_err(|_| anyhow!("the work as uid {} panicked", self.uid))?
                .with_context(|| format!("take the rights of uid {}", self.uid))
        })
    }

    /// Gives this thread the person's rights to files. The uid goes last: the kernel takes root's own rights to files with
    /// it (capabilities(7)).
    fn take_rights(&self) -> Result<()> {
        let groups: Vec<Gid> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        set_thread_groups(&groups).context("take the groups")?;
        let (uid, gid) = (nix::unistd::Uid::from_raw(self.uid), nix::unistd::Gid::from_raw(self.gid));
        // These two answer with what was before and never say that they failed (setfsuid(2)).
        setfsgid(gid);
        setfsuid(uid);
        ensure!(setfsgid(gid) == gid && setfsuid(uid) == uid, "the kernel does not let this process");
        let over_files = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::FOWNER;
        let kept = capabilities(None).context("look at the capabilities")?.effective;
        ensure!(uid.is_root() || !kept.intersects(over_files), "root's rights to files are still there");
        Ok(())
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
    ///
    /// In a container the person is root, so the rights of what is below a directory, and the owner of what is writable,
    /// bind nobody there. Such a source has to belong to the person, or to root with a mode that lets all others read it
    /// (for a directory: and enter it, and not sticky as /tmp is). The latter is how an administrator shares a directory:
    /// everything below it can be read, and where it is mapped writable changed, by whoever may map it.
    ///
    /// What is writable has to be on a nosuid mount: a setuid program of root's, made inside, is one on the host, too.
    /// Other mounts of the same filesystem on the host have to be nosuid as well; that is the administrator's to see to.
    pub fn open_mount(&self, path: &Path, roots: &[PathBuf], write: bool) -> Result<(OwnedFd, PathBuf)> {
        let below = Below::find(path, roots)?;
        let source = self.run(|| -> Result<OwnedFd> {
            let source = below.open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
            let sort = super::beneath::sort(&rustix::fs::fstat(&source)?);
            let denied = |e: Errno, what: &str| below.fault(e, what);
            if sort.is_dir() {
                let wanted = if write { Access::WRITE_OK | Access::EXEC_OK } else { Access::EXEC_OK };
                rustix::fs::accessat(&source, ".", wanted, AtFlags::EACCESS)
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
        let stat = rustix::fs::fstat(&source)?;
        if (super::beneath::sort(&stat).is_dir() || write) && !self.may_hand_on(&stat) {
            return Err(Fault::new(Kind::Denied, format!("{} does not belong to you", path.display()))
                .why("root inside a container may do with it, and with all below it, what only its owner may")
                .next("name one of your own, or ask for one that belongs to root and that all may read")
                .into());
        }
        if write && !fstatvfs(&source)?.f_flag.contains(StatVfsMountFlags::NOSUID) {
            return Err(Fault::new(Kind::Denied, format!("{} cannot be mapped writable", path.display()))
                .why("root inside a container could make a setuid program in it that works on the host")
                .next("mount that filesystem with nosuid, or map it read-only (`:ro`)")
                .into());
        }
        Ok((source, below.root.to_owned()))
    }

    /// Whether root in a container of this person may have what `stat` describes.
    fn may_hand_on(&self, stat: &Stat) -> bool {
        let mode = Mode::from_raw_mode(stat.st_mode);
        let shared = match super::beneath::sort(stat).is_dir() {
            true => mode.contains(Mode::ROTH | Mode::XOTH) && !mode.contains(Mode::SVTX),
            false => mode.contains(Mode::ROTH),
        };
        stat.st_uid == self.uid || (stat.st_uid == 0 && shared)
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
