//! The lab on the real kernel, with the real dnsmasq and a real DHCP client. Each test has a network and a mount
//! namespace of its own, with its own `/run`: nothing of it is seen outside, and nothing of it is left.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Child, Command, Stdio};

use moorage::lab::{self, LeaseTime, Settings};
use moorage::report::{Fault, Kind, Reporter};
use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountFlags, MountPropagationFlags};

fn settings() -> Settings {
    Settings {
        name: "lab".into(),
        subnet: "10.86.0.0/24".parse().unwrap(),
        lease_time: LeaseTime(43_200),
        ping: false,
    }
}

fn start(settings: &Settings) -> anyhow::Result<lab::LabView> {
    lab::start(settings, &Reporter::silent())
}

fn stop(name: &str) -> anyhow::Result<bool> {
    lab::stop(name, &Reporter::silent())
}

/// Stops the labs of a test however it ends: a server outlives its namespace's name.
struct Stopped(&'static [&'static str]);

impl Drop for Stopped {
    fn drop(&mut self) {
        for name in self.0 {
            stop(name).expect("stop the lab");
        }
    }
}

/// Runs the test in namespaces of its own. Needs root, and fails without.
fn alone(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).expect("own namespaces need root");
            rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
                .unwrap();
            rustix::mount::mount("run", "/run", "tmpfs", MountFlags::empty(), None).unwrap();
            run("ip", &["link", "set", "lo", "up"]);
            test();
        });
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn exists(interface: &str) -> bool {
    Command::new("ip").args(["link", "show", interface]).output().unwrap().status.success()
}

fn server() -> i32 {
    std::fs::read_to_string("/run/moorage/lab/lab/dnsmasq.pid").unwrap().trim().parse().unwrap()
}

/// Ends the process and waits until it has ended.
fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let held = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    rustix::process::pidfd_send_signal(&held, signal).unwrap();
    let mut exit = [rustix::event::PollFd::new(&held, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut exit, None).unwrap();
}

/// A box on the lab's LAN, as a container is: a macvlan on the parent, in a namespace of its own.
fn plug_in(parent: &str) {
    run("ip", &["netns", "add", "box"]);
    run("ip", &["link", "add", "link", parent, "name", "box0", "type", "macvlan", "mode", "bridge"]);
    run("ip", &["link", "set", "box0", "netns", "box"]);
}

/// Asks for a lease with a real client and configures what it got.
fn lease(hostname: &str) {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    let text = "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nip address add $ip/$mask dev $interface\n\
                ip route add default via $router\n";
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let hostname = format!("hostname:{hostname}");
    let script = script.to_str().unwrap();
    #[rustfmt::skip]
    run("ip", &["netns", "exec", "box", "udhcpc", "-i", "box0", "-f", "-q", "-n", "-x", &hostname, "-s", script]);
}

#[test]
fn a_client_gets_an_address_a_name_and_a_prefix() {
    alone(|| {
        let _stopped = Stopped(&["lab"]);
        let view = start(&settings()).unwrap();
        assert!(view.changed);
        assert_eq!(view.parent, "mo-lab");
        plug_in(&view.parent);
        // Listens before the interface is up, so that nothing is missed.
        let mut monitor = Command::new("ip")
            .args(["-n", "box", "-6", "monitor", "address"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        run("ip", &["-n", "box", "link", "set", "box0", "up"]);
        lease("box");

        let leases = std::fs::read_to_string(&view.leases).unwrap();
        let leased = leases.lines().find(|line| line.contains(" box ")).expect("a lease with its name");
        let address = leased.split(' ').nth(2).unwrap().to_owned();
        assert!(address.starts_with("10.86.0."), "{leased}");

        // Its name resolves, here through the lab's server, and so does the lab's own.
        std::fs::write("/run/resolv.conf", "nameserver 10.86.0.1\n").unwrap();
        rustix::mount::mount_bind("/run/resolv.conf", "/etc/resolv.conf").unwrap();
        assert!(run("getent", &["ahostsv4", "box.lab"]).starts_with(&address));
        assert!(run("getent", &["ahostsv4", "gateway.lab"]).starts_with("10.86.0.1"));

        // SLAAC gave an address of the lab's prefix. `ip monitor` ends with the test.
        let prefix = settings().prefix6().to_string();
        let prefix = prefix.trim_end_matches("::");
        let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines();
        let announced = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains(prefix)));
        assert!(announced.is_some(), "no address of {prefix} was announced");
        end(monitor);

        // From the box to this host's end runs over the veth pair: only a macvlan and its own parent cannot talk.
        assert!(
            Command::new("ip")
                .args(["netns", "exec", "box", "ping", "-c1", "-W2", "10.86.0.1"])
                .output()
                .unwrap()
                .status
                .success()
        );
    });
}

fn end(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn twice_is_once_and_other_settings_are_refused() {
    alone(|| {
        let _stopped = Stopped(&["lab", "two"]);
        assert!(start(&settings()).unwrap().changed);
        let before = server();
        assert!(!start(&settings()).unwrap().changed);
        assert_eq!(server(), before);
        assert!(lab::plan_start(&settings()).unwrap().steps.is_empty());

        let other = Settings { lease_time: LeaseTime(120), ..settings() };
        let fault = Fault::of(&start(&other).unwrap_err());
        assert_eq!(fault.kind, Kind::Differs);
        assert_eq!(fault.why, ["lease time: 43200s there, 120s asked for"]);

        let clash = Settings { name: "two".into(), ..settings() };
        assert_eq!(Fault::of(&start(&clash).unwrap_err()).kind, Kind::Usage);
        let two = Settings { subnet: "10.87.0.0/24".parse().unwrap(), ..clash };
        assert!(start(&two).unwrap().changed);
        assert!(stop("two").unwrap());
        assert_eq!(server(), before);
    });
}

#[test]
fn whatever_is_missing_is_completed() {
    use rustix::process::Signal;
    alone(|| {
        let _stopped = Stopped(&["lab"]);
        start(&settings()).unwrap();
        let breaks: [(&str, fn()); 8] = [
            ("server", || signal(server(), Signal::KILL)),
            ("link", || drop(run("ip", &["link", "delete", "mo-lab"]))),
            ("address", || drop(run("ip", &["address", "flush", "dev", "mo-lab"]))),
            ("inside down", || drop(run("ip", &["-n", "moorage-lab", "link", "set", "lan0", "down"]))),
            // Its IPv6 address went with it, and does not come back by itself.
            ("inside down and up", || {
                run("ip", &["-n", "moorage-lab", "link", "set", "lan0", "down"]);
                run("ip", &["-n", "moorage-lab", "link", "set", "lan0", "up"]);
            }),
            ("namespace", || drop(run("ip", &["netns", "delete", "moorage-lab"]))),
            ("files", || std::fs::remove_dir_all("/run/moorage/lab/lab").unwrap()),
            ("mount", || {
                rustix::mount::unmount("/run/netns/moorage-lab", rustix::mount::UnmountFlags::DETACH)
                    .unwrap();
            }),
        ];
        for (what, broken) in breaks {
            if what == "files" {
                // Without its files a server cannot be told from a stranger's: end it with them.
                signal(server(), Signal::TERM);
            }
            broken();
            assert!(start(&settings()).unwrap().changed, "{what}");
            assert!(!start(&settings()).unwrap().changed, "{what}");
            run("ping", &["-c1", "-W2", "10.86.0.1"]);
        }
    });
}

#[test]
fn stop_removes_what_start_made_and_nothing_else() {
    alone(|| {
        // To say what would be done does nothing.
        assert_eq!(lab::plan_start(&settings()).unwrap().steps.len(), 4);
        assert!(lab::plan_stop("lab").unwrap().steps.is_empty());
        assert_eq!(std::fs::read_dir("/run").unwrap().count(), 0);

        start(&settings()).unwrap();
        run("ip", &["netns", "add", "other"]);
        let pid = server();
        assert!(stop("lab").unwrap());
        assert!(!exists("mo-lab"));
        assert!(!std::path::Path::new(&format!("/proc/{pid}/ns/net")).exists(), "the server still runs");
        assert_eq!(run("ip", &["netns", "list"]).trim(), "other");
        assert_eq!(std::fs::read_dir("/run/moorage/lab").unwrap().count(), 0);
        assert!(!stop("lab").unwrap());
    });
}

#[test]
fn a_stranger_with_the_same_name_or_number_is_left_alone() {
    alone(|| {
        run("ip", &["link", "add", "mo-lab", "type", "bridge"]);
        assert_eq!(Fault::of(&start(&settings()).unwrap_err()).kind, Kind::Failed);
        assert!(!stop("lab").unwrap());
        assert!(exists("mo-lab"));
        run("ip", &["link", "delete", "mo-lab"]);

        let _stopped = Stopped(&["lab"]);
        start(&settings()).unwrap();
        signal(server(), rustix::process::Signal::TERM);
        // A program of another name, with a number that the server's user wrote.
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        std::fs::write("/run/moorage/lab/lab/dnsmasq.pid", stranger.id().to_string()).unwrap();
        stop("lab").unwrap();
        assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
        end(stranger);
    });
}
