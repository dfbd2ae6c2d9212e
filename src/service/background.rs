//! Daemons of this host where no systemd looks after them: start one, wait for it, end it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::net::UnixStream;
use tokio::process::Command;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use crate::report::{Fault, Kind};

/// How long a daemon may take until it answers, or until it has ended.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often a socket is tried that may not be there yet: its program tells nobody but systemd when it opens it.
const RETRY: Duration = Duration::from_millis(50);
/// A program to keep running in the background, its words in `log`, its process id in `pid_file`.
#[derive(Debug, Clone, Copy)]
pub struct Background<'a> {
    pub program: &'a str,
    pub arguments: &'a [&'a str],
    pub log: &'a Path,
    pub pid_file: &'a Path,
}

impl Background<'_> {
    /// Starts it in a session of its own and waits until `answers` says yes.
    pub async fn start(&self, answers: impl AsyncFn() -> bool) -> Result<()> {
        let (log, errors) = self.open_log()?;
        let mut child = Command::new("setsid")
            .arg(self.program)
            .args(self.arguments)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("start {}", self.program))?;
        if let Some(pid) = child.id() {
            // setsid becomes the program itself, since a fresh child leads no group.
            make_directory(self.pid_file.parent().unwrap_or(Path::new("/")))?;
            crate::state::replace(self.pid_file, format!("{pid}\n").as_bytes())?;
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if answers().await {
                return Ok(());
            }
            if let Ok(ended) = timeout(RETRY, child.wait()).await {
                return Err(self.fault(format!("it ended at once: {}", ended?), Kind::Failed));
            }
        }
        Err(self.fault(format!("it has not answered for {} s", PATIENCE.as_secs()), Kind::TimedOut))
    }

    fn open_log(&self) -> Result<(File, File)> {
        make_directory(self.log.parent().unwrap_or(Path::new("/")))?;
        let open = || OpenOptions::new().create(true).append(true).open(self.log);
        let log = open().with_context(|| format!("open {}", self.log.display()))?;
        let errors = log.try_clone()?;
        Ok((log, errors))
    }

    fn fault(&self, why: String, kind: Kind) -> anyhow::Error {
        Fault::new(kind, format!("{} does not run", self.program))
            .why(why)
            .next(format!("tail {}", self.log.display()))
            .into()
    }
}

fn make_directory(directory: &Path) -> Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(directory)
        .with_context(|| format!("make {}", directory.display()))
}

/// Ends the process that listens on `socket`, and waits until it is gone. Nobody listening is no error.
pub async fn end_listener(socket: &Path) -> Result<()> {
    let Ok(stream) = UnixStream::connect(socket).await else { return Ok(()) };
    // SO_PEERCRED of a client names the process that called listen(2).
    let listener = stream.peer_cred().context("ask who listens")?.pid().and_then(Pid::from_raw);
    drop(stream);
    let Some(pid) = listener else { return Ok(()) };
    end(pid).await
}

/// Tells a process to end, and waits until it is gone. One that is gone is no error.
pub async fn end(pid: Pid) -> Result<()> {
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(e) => return Err(e).context("watch the daemon"),
    };
    kill_process(pid, Signal::TERM).context("tell the daemon to end")?;
    // A pidfd is readable when the process has ended (pidfd_open(2)).
    let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
    let ended =
        spawn_blocking(move || poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&patience))).await?;
    match ended.context("wait for the daemon's end")? {
        0 => Err(Fault::new(Kind::TimedOut, "the daemon that runs does not end")
            .why(format!("it was told to {} s ago", PATIENCE.as_secs()))
            .next(format!("kill -9 {}, then run this again", pid.as_raw_nonzero()))
            .into()),
        _ => Ok(()),
    }
}

/// Tries `answers` for as long as a daemon may take to start.
pub async fn until(answers: impl AsyncFn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !answers().await {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(RETRY).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_listening_has_ended() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        end_listener(&socket).await.unwrap();
    }

    #[tokio::test]
    async fn a_program_that_ends_at_once_is_an_error_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log/it.log");
        let background = Background {
            program: "false",
            arguments: &[],
            log: &log,
            pid_file: &directory.path().join("run/it.pid"),
        };
        let fault = Fault::of(&background.start(async || false).await.unwrap_err());
        assert_eq!(fault.kind, Kind::Failed);
        assert!(fault.next.unwrap().contains("it.log"));
    }

    #[tokio::test]
    async fn the_process_id_is_the_programs_own() {
        let directory = tempfile::tempdir().unwrap();
        let (log, pid_file) = (directory.path().join("it.log"), directory.path().join("it.pid"));
        let background =
            Background { program: "cat", arguments: &["/dev/zero"], log: &log, pid_file: &pid_file };
        let running = async || {
            let pid = std::fs::read_to_string(&pid_file).unwrap();
            std::fs::read_to_string(format!("/proc/{}/comm", pid.trim()))
                .is_ok_and(|comm| comm.trim() == "cat")
        };
        // Its output would fill the disk: a log that nobody can write to ends that.
        std::os::unix::fs::symlink("/dev/null", &log).unwrap();
        background.start(running).await.unwrap();
        let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().trim().parse().unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}
