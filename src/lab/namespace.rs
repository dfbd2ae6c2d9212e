//! Named network namespaces, kept the way `ip netns` keeps them: a bind mount of the namespace on `/run/netns/<name>`.

use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags};

const DIRECTORY: &str = "/run/netns";
/// statfs(2): the filesystem of namespaces.
const NSFS_MAGIC: u64 = 0x6e73_6673;

fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// The namespace; `None` where there is none, or a file of its name without one.
pub fn open(name: &str) -> Result<Option<File>> {
    let path = path(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).with_context(|| format!("open {}", path.display())),
    };
    let filesystem = rustix::fs::fstatfs(&file).with_context(|| format!("look at {}", path.display()))?;
    Ok((filesystem.f_type as u64 == NSFS_MAGIC).then_some(file))
}

/// What tells one namespace from another.
pub fn inode(namespace: &File) -> Result<u64> {
    Ok(namespace.metadata().context("look at the network namespace")?.ino())
}

/// Makes the namespace; a file left behind by an interrupted attempt is taken over.
pub fn create(name: &str) -> Result<File> {
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(DIRECTORY).context("make /run/netns")?;
    share().with_context(|| format!("make {DIRECTORY} a shared mount"))?;
    let path = path(name);
    File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("make {}", path.display()))?;
    inside(None, || {
        unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
        rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)
            .with_context(|| format!("mount the namespace on {}", path.display()))
    })?;
    open(name)?.with_context(|| format!("{} holds no namespace", path.display()))
}

/// As ip-netns(8) does: shared, so that the namespaces in it appear and go away in other mount namespaces too, and so
/// that a later `ip netns add` does not hide ours behind a second mount.
fn share() -> rustix::io::Result<()> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match rustix::mount::mount_change(DIRECTORY, flags) {
        Err(Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(DIRECTORY, DIRECTORY)?;
            rustix::mount::mount_change(DIRECTORY, flags)
        }
        other => other,
    }
}

/// Removes the namespace; nothing there is no error. It lives on as long as a process is in it.
pub fn remove(name: &str) -> Result<()> {
    let path = path(name);
    while open(name)?.is_some() {
        rustix::mount::unmount(&path, UnmountFlags::DETACH)
            .with_context(|| format!("unmount {}", path.display()))?;
    }
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Runs `work` on a thread of its own, in `namespace` where one is given. The thread ends with it: no thread of
/// anybody else ever changes its namespace.
pub fn inside<T: Send>(namespace: Option<&File>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            if let Some(namespace) = namespace {
                setns(namespace, CloneFlags::CLONE_NEWNET).context("enter the network namespace")?;
            }
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("the thread in the network namespace panicked"),
        }
    })
}
