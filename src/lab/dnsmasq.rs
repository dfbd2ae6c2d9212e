//! The lab's DHCP and DNS server: its configuration, and finding, starting and stopping exactly this one.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use minijinja::context;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, Signal};

use super::namespace::inside;
use super::settings::{DOMAIN, Settings, kernel_has_ipv6};
use crate::report::{Fault, Kind};

const TEMPLATE: &str = include_str!("../../templates/lab/dnsmasq.conf.j2");
/// How long a server may take to end after SIGTERM before it is killed, seconds.
const PATIENCE: i64 = 5;

/// The program; [`Kind::Missing`] where it is not installed. It lives where a person's PATH may not look.
pub fn find() -> Result<&'static str> {
    for program in ["dnsmasq", "/usr/sbin/dnsmasq"] {
        match Command::new(program).arg("--version").output() {
            Ok(output) if output.status.success() => return Ok(program),
            Ok(output) => {
                let last = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(Fault::new(Kind::Missing, format!("{program} does not run"))
                    .why(last)
                    .next("apt-get install --reinstall dnsmasq-base")
                    .into());
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e).with_context(|| format!("run {program}")),
        }
    }
    let what = "dnsmasq is not installed; the lab's DHCP and DNS server is one";
    Err(Fault::new(Kind::Missing, what).next("apt-get install dnsmasq-base").into())
}

/// What is configured. `user` is whom it becomes after its start.
pub fn configuration(settings: &Settings, user: &str, ipv6: bool) -> Result<String> {
    let mut templates = minijinja::Environment::new();
    templates.set_undefined_behavior(minijinja::UndefinedBehavior::Strict);
    let (first, last) = settings.subnet.range();
    let text = templates.render_str(
        TEMPLATE,
        context! {
            name => &settings.name,
            user,
            domain => DOMAIN,
            directory => settings.directory(),
            router => settings.subnet.router().to_string(),
            router6 => ipv6.then(|| settings.router6().to_string()),
            prefix6 => settings.prefix6().to_string(),
            first => first.to_string(),
            last => last.to_string(),
            netmask => settings.subnet.netmask().to_string(),
            lease_seconds => settings.lease_time.0,
            ping => settings.ping,
        },
    );
    text.context("write the configuration of dnsmasq")
}

/// Whether it runs with this configuration, in the namespace of this inode.
pub(super) fn runs(settings: &Settings, namespace: Option<u64>) -> Result<bool> {
    let written = match std::fs::read_to_string(file(settings)) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e).with_context(|| format!("read {}", file(settings))),
    };
    Ok(written == configuration(settings, user()?, kernel_has_ipv6())?
        && process(settings, namespace)?.is_some())
}

/// Starts it; returns when it answers (its own parent waits for that).
pub(super) fn start(settings: &Settings, namespace: &File) -> Result<()> {
    let directory = settings.directory();
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&directory)
        .with_context(|| format!("make {directory}"))?;
    let text = configuration(settings, user()?, kernel_has_ipv6())?;
    crate::state::replace(Path::new(&file(settings)), text.as_bytes())?;
    let program = find()?;
    let output = inside(Some(namespace), || {
        Command::new(program).arg(argument(settings)).output().with_context(|| format!("run {program}"))
    })?;
    if !output.status.success() {
        let last = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(Fault::new(Kind::Failed, "dnsmasq does not start")
            .why(last)
            .next("moorage scripthacker stop-lab, then start-lab again")
            .into());
    }
    Ok(())
}

/// Ends it and waits until it has ended; none is no error.
pub(super) fn stop(settings: &Settings, namespace: Option<u64>) -> Result<()> {
    let Some(server) = process(settings, namespace)? else { return Ok(()) };
    let ended = |within: Option<&Timespec>| {
        let mut exit = [PollFd::new(&server, PollFlags::IN)];
        rustix::event::poll(&mut exit, within).map(|ready| ready > 0)
    };
    for (signal, within) in
        [(Signal::TERM, Some(&Timespec { tv_sec: PATIENCE, tv_nsec: 0 })), (Signal::KILL, None)]
    {
        match rustix::process::pidfd_send_signal(&server, signal) {
            Err(rustix::io::Errno::SRCH) => return Ok(()),
            sent => sent.context("stop dnsmasq")?,
        }
        if ended(within).context("wait for the end of dnsmasq")? {
            return Ok(());
        }
    }
    Ok(())
}

fn file(settings: &Settings) -> String {
    format!("{}/dnsmasq.conf", settings.directory())
}

fn argument(settings: &Settings) -> String {
    format!("--conf-file={}", file(settings))
}

/// Debian gives it a user of its own; elsewhere its own default.
fn user() -> Result<&'static str> {
    let own = nix::unistd::User::from_name("dnsmasq").context("look for the user dnsmasq")?;
    Ok(if own.is_some() { "dnsmasq" } else { "nobody" })
}

/// The running server, held so that its number cannot become another process's. The file with the number belongs to
/// the server's user, so it is only a hint: program, configuration and namespace must be this lab's.
fn process(settings: &Settings, namespace: Option<u64>) -> Result<Option<OwnedFd>> {
    let path = format!("{}/dnsmasq.pid", settings.directory());
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let Some(pid) = text.trim().parse().ok().and_then(Pid::from_raw) else { return Ok(None) };
    let held = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(held) => held,
        Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => return Ok(None),
        Err(e) => return Err(e).context("look at the process of dnsmasq"),
    };
    let proc = format!("/proc/{}", pid.as_raw_nonzero());
    // Whatever cannot be read belongs to a process that has ended or is not ours.
    let program = std::fs::read_link(format!("{proc}/exe")).unwrap_or_default();
    let arguments = std::fs::read(format!("{proc}/cmdline")).unwrap_or_default();
    let network = std::fs::metadata(format!("{proc}/ns/net")).ok().map(|ns| ns.ino());
    let is_ours = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("dnsmasq"))
        && arguments.split(|b| *b == 0).any(|given| given == argument(settings).as_bytes())
        && network.is_some()
        && network == namespace;
    Ok(is_ours.then_some(held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::LeaseTime;

    #[test]
    fn the_configuration_follows_from_the_settings() {
        let settings = Settings {
            name: "lab".into(),
            subnet: Default::default(),
            lease_time: LeaseTime(43_200),
            ping: false,
        };
        insta::assert_snapshot!(configuration(&settings, "dnsmasq", true).unwrap());
        let without = configuration(&Settings { ping: true, ..settings }, "nobody", false).unwrap();
        assert!(!without.contains("no-ping") && !without.contains("enable-ra"));
    }
}
