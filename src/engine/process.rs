//! A process inside, held by a descriptor. The engine knows it by its number, which may be another's by the time that is
//! used: the engine hears a little later that a process has ended, and whoever is root inside can have numbers go round.

use std::os::fd::OwnedFd;

use anyhow::Result;
use bollard::Docker;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};

use super::{Engine, fault};
use crate::apart;

/// A process that runs inside a container.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    handle: OwnedFd,
}

impl Engine {
    /// The process of `exec`, while it runs.
    pub async fn exec_process(&self, exec: &str) -> Result<Option<Process>> {
        find(self.docker().await?, exec).await
    }
}

pub(super) async fn find(docker: &Docker, exec: &str) -> Result<Option<Process>> {
    let number = |pid: Option<i64>| pid.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
    let seen = docker.inspect_exec(exec).await.map_err(|e| fault(e, "ask for a process inside"))?;
    let (Some(pid), Some(true)) = (number(seen.pid), seen.running) else { return Ok(None) };
    let Some(process) = Process::open(pid) else { return Ok(None) };
    let container = seen.container_id.unwrap_or_default();
    let container = docker.inspect_container(&container, None).await;
    let container = container.map_err(|e| fault(e, "ask for the container of a process"))?;
    let Some(init) = number(container.state.and_then(|state| state.pid)) else { return Ok(None) };
    Ok(Some(process).filter(|process| process.is_beside(init)))
}

impl Process {
    /// Whoever has this number now.
    fn open(pid: Pid) -> Option<Process> {
        let handle = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        Some(Process { pid, handle })
    }

    /// Whether it is in the PID namespace of the process `init`, which the kernel lets nobody leave.
    fn is_beside(&self, init: Pid) -> bool {
        let namespace = |pid: Pid| std::fs::read_link(format!("/proc/{}/ns/pid", pid.as_raw_nonzero())).ok();
        let own = namespace(self.pid);
        // It still has its number, so what was read was of it.
        own.is_some() && own == namespace(init) && self.runs()
    }

    fn runs(&self) -> bool {
        // A pidfd is readable when the process has ended (pidfd_open(2)).
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&now)) == Ok(0)
    }

    /// Sends it a signal; false when it has ended.
    pub fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.handle, signal).is_ok()
    }

    /// Sends a signal to it and to the group that it leads.
    pub(super) fn signal_group(&self, signal: Signal) {
        // The group's number cannot be another's while the process is there.
        if self.runs() {
            let _ = kill_process_group(self.pid, signal);
        }
    }

    /// Waits until it has ended, so many seconds at the longest.
    pub(super) async fn ended(self, most: i64) -> Result<()> {
        let most = Timespec { tv_sec: most, tv_nsec: 0 };
        let wait = move || Ok(poll(&mut [PollFd::new(&self.handle, PollFlags::IN)], Some(&most))?);
        apart::blocking(wait).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::getpid;

    use super::*;

    #[tokio::test]
    async fn a_process_is_held_and_not_its_number() {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_child(&child);
        let process = Process::open(pid).unwrap();
        assert!(process.runs() && process.is_beside(getpid()));
        assert!(process.signal(Signal::KILL));
        child.wait().unwrap();
        assert!(!process.runs() && !process.is_beside(getpid()) && !process.signal(Signal::TERM));
        process.ended(1000).await.unwrap();
        assert!(Process::open(pid).is_none());
    }
}
