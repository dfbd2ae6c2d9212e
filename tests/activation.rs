//! Whose sockets the daemon takes away when it ends: those that it made, never those that systemd handed over.
#![allow(clippy::unwrap_used, reason = "a test ends at what it did not expect")]

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

const MOORAGE: &str = env!("CARGO_BIN_EXE_moorage");

/// A daemon in namespaces and directories of its own. `first` is run by bash before it becomes the daemon.
fn daemon(directory: &Path, first: &str) -> Child {
    let path = |name: &str| directory.join(name).to_string_lossy().into_owned();
    std::fs::write(path("config.toml"), format!("storage = '{}'\n", path("containers"))).unwrap();
    Command::new("unshare")
        .args(["--mount", "--net", "bash", "-ec"])
        .arg(format!("ip link set lo up; mount -t tmpfs store {0}; {first} exec \"$@\"", path("containers")))
        .args(["bash", MOORAGE, "daemon"])
        .args(["--config", &path("config.toml"), "--state", &path("state"), "--run", &path("run")])
        .spawn()
        .unwrap()
}

fn directory() -> tempfile::TempDir {
    assert!(rustix::process::geteuid().is_root(), "the daemon needs root");
    let directory = tempfile::tempdir().unwrap();
    for name in ["run", "containers"] {
        std::fs::create_dir(directory.path().join(name)).unwrap();
    }
    directory
}

/// What the daemon says to a request for its version.
fn version(stream: &mut UnixStream) -> String {
    stream.write_all(b"GET /v1/version HTTP/1.1\r\nHost: moorage\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn end(mut daemon: Child) {
    kill_process(Pid::from_child(&daemon), Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn sockets_that_were_handed_over_stay() {
    let directory = directory();
    let path = |name: &str| directory.path().join("run").join(name);
    let sockets = [path("api.sock"), path("plugin.sock")].map(|path| UnixListener::bind(path).unwrap());
    for socket in &sockets {
        rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty()).unwrap();
    }
    let [api, plugin] = sockets.each_ref().map(|socket| socket.as_raw_fd());
    // Moved out of the way first: the sockets may have the numbers that systemd's have.
    let first = format!(
        "exec 30<&{api} 31<&{plugin} 3<&30 4<&31 30<&- 31<&-; \
         export LISTEN_FDS=2 LISTEN_FDNAMES=api:plugin LISTEN_PID=$$;"
    );
    let daemon = daemon(directory.path(), &first);
    let mut stream = UnixStream::connect(path("api.sock")).unwrap();
    drop(sockets);
    assert!(version(&mut stream).starts_with("HTTP/1.1 200"));
    end(daemon);
    assert!(path("api.sock").exists() && path("plugin.sock").exists());
}

#[test]
fn sockets_of_its_own_go() {
    let directory = directory();
    let path = |name: &str| directory.path().join("run").join(name);
    let notify = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    notify.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let first = format!("export NOTIFY_SOCKET={};", directory.path().join("notify").display());
    let daemon = daemon(directory.path(), &first);
    let mut said = [0; 64];
    let length = notify.recv(&mut said).unwrap();
    assert_eq!(said[..length].trim_ascii(), b"READY=1");
    assert!(path("api.sock").exists() && path("plugin.sock").exists());
    end(daemon);
    assert!(!path("api.sock").exists() && !path("plugin.sock").exists());
}
