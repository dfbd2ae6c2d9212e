//! Waiting until a container can be used: its init is up, sshd answers, people may log in.

use std::collections::VecDeque;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{Host, Record};
use crate::engine::Exec;
use crate::report::{Fault, Kind, Reporter};

/// How long init and sshd may take.
const BOOT: Duration = Duration::from_secs(120);
/// How long the project's own check may take.
const CHECK: Duration = Duration::from_secs(300);
/// Lines of the check's output that are kept, to say why it did not succeed.
const LAST_LINES: usize = 20;
/// Between two looks: neither a listening socket nor a removed file in another namespace wakes us.
const LOOK: Duration = Duration::from_millis(2);

/// Waits until sshd in the container with init `pid` answers and lets people in.
pub async fn sshd(name: &str, pid: i32) -> Result<()> {
    let ended = Arc::new(AtomicBool::new(false));
    let guard = EndOnDrop(ended.clone());
    let (send, receive) = tokio::sync::oneshot::channel();
    // A thread of its own, which ends with its namespace: one of a pool would carry it to the next task.
    std::thread::Builder::new()
        .name("ready".to_owned())
        .spawn(move || send.send(wait_inside(pid, &ended)))
        .context("start a thread")?;
    let up = receive.await.context("the thread that waits for sshd ended")??;
    drop(guard);
    match up {
        true => Ok(()),
        false => Err(Fault::new(
            Kind::TimedOut,
            format!("sshd in {name} does not answer after {} s", BOOT.as_secs()),
        )
        .next(format!("show-logs {name}, or enter-container {name} -- systemctl --failed"))
        .into()),
    }
}

struct EndOnDrop(Arc<AtomicBool>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks from inside the container's network namespace, so that the answer does not hang on the host's own address.
fn wait_inside(pid: i32, ended: &AtomicBool) -> Result<bool> {
    let namespace =
        std::fs::File::open(format!("/proc/{pid}/ns/net")).context("the container's init has ended")?;
    let root = openat2(
        CWD,
        format!("/proc/{pid}/root"),
        OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::empty(),
    )
    .context("the container's init has ended")?;
    move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), Some(LinkNameSpaceType::Network))
        .context("enter the container's network namespace")?;
    // The path is resolved inside the container's root; only its absence is looked at.
    let barred = || {
        let flags = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&root, "run/nologin", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), flags).is_ok()
    };
    let deadline = Instant::now() + BOOT;
    while Instant::now() < deadline && !ended.load(Ordering::Relaxed) {
        if greets() && !barred() {
            return Ok(true);
        }
        if !std::path::Path::new(&format!("/proc/{pid}")).exists() {
            return Err(Fault::new(Kind::Failed, "the container's init has ended")
                .next("show-logs says what it said last")
                .into());
        }
        std::thread::sleep(LOOK);
    }
    Ok(false)
}

/// sshd says who it is (RFC 4253, 4.2).
fn greets() -> bool {
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 22));
    let Ok(mut stream) = TcpStream::connect_timeout(&here, Duration::from_secs(1)) else { return false };
    let mut greeting = [0; 4];
    stream.set_read_timeout(Some(Duration::from_secs(5))).is_ok()
        && stream.read_exact(&mut greeting).is_ok()
        && &greeting == b"SSH-"
}

/// Waits until the project's own check succeeds inside.
pub async fn project(host: &Host, record: &Record, check: &str, report: &Reporter) -> Result<()> {
    let name = record.spec.name.as_str();
    report.begin("ready", format!("waiting for: {check}"));
    let exec = as_person(record, check);
    let mut said = VecDeque::with_capacity(LAST_LINES);
    let attempts = async {
        let mut pause = Duration::from_millis(50);
        loop {
            said.clear();
            let line = |line: &str| {
                if said.len() == LAST_LINES {
                    said.pop_front();
                }
                said.push_back(line.to_owned());
            };
            if host.engine.run(name, &exec, line).await? == 0 {
                return anyhow::Ok(());
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    };
    match tokio::time::timeout(CHECK, attempts).await {
        Ok(result) => result?,
        Err(_) => {
            let mut fault = Fault::new(
                Kind::TimedOut,
                format!("{name} is not ready after {} s: {check}", CHECK.as_secs()),
            )
            .remains(format!("the container {name} runs"))
            .next(format!("enter-container {name}"));
            fault.why = said.into();
            return Err(fault.into());
        }
    }
    report.end("ready", "the project's check succeeds");
    Ok(())
}

/// A shell command inside, as the person, in their home.
pub fn as_person(record: &Record, command: &str) -> Exec {
    let account = record.people.first();
    let home = account.map_or_else(|| "/root".to_owned(), super::Account::home);
    let user = record.user().to_owned();
    Exec {
        command: vec!["/bin/sh".into(), "-lc".into(), command.to_owned()],
        env: vec![format!("HOME={home}"), format!("USER={user}"), format!("LOGNAME={user}")],
        directory: Some(home),
        user,
        ..Exec::default()
    }
}
