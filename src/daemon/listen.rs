//! The two sockets: handed over by systemd, or made here.

use std::fs::{File, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::net::UnixListener;

use crate::report::{Fault, Kind};

const API: &str = "api.sock";
const PLUGIN: &str = "plugin.sock";

pub struct Sockets {
    /// For everybody on the host.
    pub api: UnixListener,
    /// For dockerd, which is root.
    pub plugin: UnixListener,
    /// Where those are that we made ourselves; the others are systemd's.
    pub made: Vec<PathBuf>,
}

/// Makes sure that no other daemon uses `run`; held as long as the file is.
pub fn only_one(run: &Path) -> Result<File> {
    let path = run.join("daemon.lock");
    let open = || {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(run)?;
        File::options().create(true).truncate(false).write(true).open(&path)
    };
    let lock = open().with_context(|| format!("open {}", path.display()))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => {
            let what = format!("another daemon holds {}", run.display());
            Err(Fault::new(Kind::Failed, what).next("end it first, or use that one").into())
        }
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
    }
}

/// systemd's sockets by their names (`FileDescriptorName=`), or our own.
pub fn sockets(run: &Path) -> Result<Sockets> {
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let mut handed = listenfd::ListenFd::from_env();
    let mut api = None;
    let mut plugin = None;
    for (index, name) in names.split(':').enumerate().take(handed.len()) {
        let socket = handed.take_unix_listener(index).context("take the socket that systemd handed over")?;
        match name {
            "plugin" => plugin = socket,
            _ => api = socket,
        }
    }
    let mut made = Vec::new();
    let mut ready = |handed: Option<StdListener>, name: &str, mode: u32| match handed {
        Some(socket) => listening(socket),
        None => {
            let path = run.join(name);
            let socket = bind(&path, mode)?;
            made.push(path);
            listening(socket)
        }
    };
    let (api, plugin) = (ready(api, API, 0o666)?, ready(plugin, PLUGIN, 0o600)?);
    Ok(Sockets { api, plugin, made })
}

fn listening(socket: StdListener) -> Result<UnixListener> {
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket).context("use a socket")
}

/// Binds `path`; the lock makes sure that a socket left there belongs to nobody. Nobody connects before the
/// permissions are right: the socket gets its name last.
fn bind(path: &Path, mode: u32) -> Result<StdListener> {
    let fresh = path.with_extension("new");
    let make = || -> std::io::Result<StdListener> {
        match std::fs::remove_file(&fresh) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let socket = StdListener::bind(&fresh)?;
        std::fs::set_permissions(&fresh, Permissions::from_mode(mode))?;
        std::fs::rename(&fresh, path)?;
        Ok(socket)
    };
    make().with_context(|| format!("make the socket {}", path.display()))
}

/// Takes the sockets that we made away, so that callers are told at once that nobody is there. Those of systemd stay:
/// it listens on them and starts the next daemon.
pub fn close(made: &[PathBuf]) {
    for path in made {
        let _ = std::fs::remove_file(path);
    }
}
