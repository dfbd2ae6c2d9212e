//! What is back after dockerd, the daemon, or both were away.

use std::fs::Permissions;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::process::{Child, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{Following, Made, Scene, ann, machine, root};

fn docker(arguments: &[&str]) -> String {
    root().run("docker", arguments).ok().stdout.trim().to_owned()
}

fn running(name: &str) -> bool {
    docker(&["inspect", "-f", "{{.State.Running}}", name]) == "true"
}

/// Waits until dockerd has started it since then.
fn started(name: &str, since: jiff::Timestamp) {
    if !running(name) {
        Following::container(name, since).until("the container's start", |action| action == "start");
    }
}

#[track_caller]
fn unchanged(scene: &Scene, made: &Made) {
    let address = "ip -o -4 address show eth0 | awk '{ sub(\"/.*\", \"\", $4); print $4 }'; cat /sys/class/net/eth0/address";
    let inside = docker(&["exec", &made.name(), "sh", "-c", address]);
    assert_eq!(inside, format!("{}\n{}", made.address(), made.mac()));
    scene.inside(&ann(), &made.name(), "/opt/product/say").ok().says(&scene.project);
    root().run("ping", &["-c", "1", "-W", "2", &made.address()]).ok();
}

fn leases() -> String {
    root().moorage(&["list-leases", "--format", "json"]).ok().stdout
}

/// A container that a person made with `docker run`, removed with this.
struct Foreign {
    name: String,
    mac: String,
}

impl Foreign {
    const IMAGE: [&str; 3] = ["moorage/debian-12", "sleep", "infinity"];

    /// One that is still to be made.
    fn called(word: &str) -> Foreign {
        Foreign { name: format!("{word}{}", std::process::id()), mac: String::new() }
    }

    fn run(word: &str, more: &[&str]) -> Foreign {
        Foreign::on("lan", word, more)
    }

    fn on(network: &str, word: &str, more: &[&str]) -> Foreign {
        let mut foreign = Foreign::called(word);
        docker(
            &[&["run", "-d", "--name", &foreign.name, "--network", network], more, &Foreign::IMAGE].concat(),
        );
        let mac = "{{.NetworkSettings.Networks.lan.MacAddress}}";
        foreign.mac = docker(&["inspect", "-f", mac, &foreign.name]);
        foreign
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        root().run("docker", &["rm", "-f", &self.name]);
    }
}

mod alone {
    use super::*;
    use crate::support::machine::{Daemons, world};

    #[test]
    fn what_dockerd_gave_up_is_started_and_what_a_person_stopped_is_not() {
        let scene = Scene::with_product("givenup");
        let made = scene.make(&ann(), &[]);
        let stopped = Foreign::run("stopped", &["--restart", "unless-stopped"]);
        docker(&["stop", "-t", "0", &stopped.name]);
        let _daemons = Daemons;
        world("kill9", "engine");
        world("stop", "daemon");
        // It answers when it has given up what it could not start.
        world("start", "dockerd");
        assert!(!running(&made.name()), "there was no network driver");
        let since = jiff::Timestamp::now();
        world("start", "daemon");
        started(&made.name(), since);
        unchanged(&scene, &made);
        ann().moorage(&["start-container", &made.name()]).ok();
        assert!(!running(&stopped.name));
    }

    #[test]
    fn a_dockerd_that_is_killed_leaves_nothing_behind_and_nobody_down() {
        let scene = Scene::with_product("deadengine");
        let (made, stopped) =
            (scene.make(&ann(), &[]), scene.make(&ann(), &["--name", &format!("{}-b", scene.project)]));
        ann().moorage(&["stop-container", &stopped.name()]).ok();
        let foreign = Foreign::run("foreign", &[]);
        assert!(leases().contains(&foreign.mac));
        let since = jiff::Timestamp::now();
        let _daemons = Daemons;
        world("kill9", "dockerd");
        world("start", "dockerd");
        // dockerd ends what it finds running, and starts none of it again.
        started(&made.name(), since);
        ann().moorage(&["start-container", &made.name()]).ok();
        unchanged(&scene, &made);
        assert!(!running(&stopped.name()));
        // It has no restart policy: its address is free again, and nothing of it is left.
        assert!(!running(&foreign.name));
        assert!(!leases().contains(&foreign.mac), "{}", leases());
        assert!(!machine::interfaces().iter().any(|link| link.starts_with("moor-")));
        ann().moorage(&["restart-container", &made.name()]).ok();
        unchanged(&scene, &made);
    }

    /// The daemon's log from now on.
    fn log() -> Following {
        let mut tail = root().command("tail");
        Following::command(tail.args(["-n", "0", "-F", "/var/log/moorage/daemon.log"]))
    }

    #[test]
    fn when_both_are_killed_nobody_stays_down_whom_no_person_has_stopped() {
        let scene = Scene::with_product("bothdead");
        let (made, stopped) =
            (scene.make(&ann(), &[]), scene.make(&ann(), &["--name", &format!("{}-b", scene.project)]));
        ann().moorage(&["stop-container", &stopped.name()]).ok();
        // With the driver's option for a MAC its address stays, too.
        let mac =
            format!("02:00:5e:77:{:02x}:{:02x}", std::process::id() >> 8 & 255, std::process::id() & 255);
        let network = format!("name=lan,driver-opt=moorage.mac={mac}");
        let foreign = Foreign::on(&network, "outlived", &["--restart", "unless-stopped"]);
        let address = || {
            let pid = docker(&["inspect", "-f", "{{.State.Pid}}", &foreign.name]);
            root()
                .shell(&format!("nsenter -t {pid} -n ip -o -4 address show dev eth0 | awk '{{ print $4 }}'"))
                .ok()
                .stdout
        };
        let before = address();
        let ended = Foreign::run("ended", &["--restart", "unless-stopped"]);
        docker(&["stop", "-t", "0", &ended.name]);
        let _daemons = Daemons;
        for order in [["dockerd", "daemon"], ["daemon", "dockerd"]] {
            let since = jiff::Timestamp::now();
            for name in order {
                world("kill9", name);
            }
            for name in order {
                world("start", name);
            }
            started(&made.name(), since);
            started(&foreign.name, since);
            ann().moorage(&["start-container", &made.name()]).ok();
            unchanged(&scene, &made);
            assert_eq!(address(), before, "the foreign one, {order:?}");
            assert!(!running(&stopped.name()) && !running(&ended.name), "{order:?}");
        }
    }

    #[test]
    fn who_is_stopped_while_the_daemon_is_away_stays_down() {
        let scene = Scene::with_product("stoppedaway");
        let made = scene.make(&ann(), &[]);
        let _daemons = Daemons;
        world("kill9", "daemon");
        // dockerd asks the driver in vain for a while.
        root().run("docker", &["stop", &made.name()]);
        assert!(!running(&made.name()));
        let mut log = log();
        world("start", "daemon");
        log.until("the end of the look for what dockerd gave up", |line| {
            line.contains("given up by dockerd: 0")
        });
        assert!(!running(&made.name()));
        ann().moorage(&["start-container", &made.name()]).ok();
        unchanged(&scene, &made);
    }

    /// The daemon's sockets, held open by somebody else as systemd holds them, and the daemon on them.
    struct Held {
        api: UnixListener,
        plugin: UnixListener,
        daemon: Option<Child>,
    }

    impl Held {
        fn take_over() -> Held {
            world("stop", "daemon");
            let [api, plugin] = ["api", "plugin"].map(|name| {
                let path = format!("/run/moorage/{name}.sock");
                let _ = std::fs::remove_file(&path);
                let socket = UnixListener::bind(&path).unwrap();
                std::fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
                socket
            });
            let mut held = Held { api, plugin, daemon: None };
            held.start();
            held
        }

        fn start(&mut self) {
            let log = "0</dev/null 1>>/var/log/moorage/daemon.log 2>&1";
            let named = "LISTEN_FDS=2 LISTEN_FDNAMES=api:plugin LISTEN_PID=$$";
            let mut shell = root().command("sh");
            shell.args(["-c", &format!("exec 3<&0 4<&1 {log}; {named} exec moorage daemon")]);
            let [api, plugin] =
                [&self.api, &self.plugin].map(|socket| OwnedFd::from(socket.try_clone().unwrap()));
            self.daemon = Some(shell.stdin(api).stdout(plugin).spawn().unwrap());
            root().moorage(&["list-leases"]).ok();
        }

        fn kill(&mut self) {
            if let Some(mut daemon) = self.daemon.take() {
                daemon.kill().unwrap();
                daemon.wait().unwrap();
            }
        }

        /// Runs a command of Docker's while the daemon is away: it waits, and ends well when the daemon is back.
        #[track_caller]
        fn waits_for(&mut self, arguments: &[&str]) {
            self.kill();
            let mut docker = root().command("docker");
            let waiting = docker.args(arguments).stdout(Stdio::null()).spawn().unwrap();
            // dockerd's call is in the socket's queue.
            let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
            let queued = poll(&mut [PollFd::new(&self.plugin, PollFlags::IN)], Some(&patience)).unwrap();
            assert_eq!(queued, 1, "docker {arguments:?} asked for nothing");
            self.start();
            let outcome = waiting.wait_with_output().unwrap();
            assert!(outcome.status.success(), "docker {arguments:?}: {outcome:?}");
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.kill();
            for name in ["api", "plugin"] {
                let _ = std::fs::remove_file(format!("/run/moorage/{name}.sock"));
            }
        }
    }

    #[test]
    fn what_is_typed_during_an_upgrade_waits_for_the_new_daemon() {
        let scene = Scene::with_product("whileaway");
        let made = scene.make(&ann(), &[]);
        let foreign = Foreign::called("typed");
        let _daemons = Daemons;
        let mut held = Held::take_over();
        held.waits_for(&["stop", &made.name()]);
        held.waits_for(&["start", &made.name()]);
        unchanged(&scene, &made);
        let network = format!("name=lan,driver-opt=moorage.hostname={}", foreign.name);
        let run = ["run", "-d", "--name", &foreign.name, "--network", &network];
        held.waits_for(&[&run[..], &Foreign::IMAGE].concat());
        assert!(leases().contains(&foreign.name));
        docker(&["exec", &foreign.name, "grep", "-q", "^eth0[[:space:]]00000000", "/proc/net/route"]);
        held.waits_for(&["rm", "-f", &foreign.name]);
        assert!(!leases().contains(&foreign.name));
        assert!(!machine::interfaces().iter().any(|link| link.starts_with("moor-")));
    }

    /// Where the engine's own settings are.
    const SETTINGS: &str = "/etc/docker/daemon.json";

    #[test]
    fn with_live_restore_a_container_outlives_its_dockerd() {
        let scene = Scene::with_product("liverestore");
        let made = scene.make(&ann(), &[]);
        let _daemons = Daemons;
        world("stop", "dockerd");
        std::fs::write(SETTINGS, "{\"live-restore\": true}").unwrap();
        let restored = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world("start", "dockerd");
            ann().moorage(&["start-container", &made.name()]).ok();
            let started = docker(&["inspect", "-f", "{{.State.StartedAt}}", &made.name()]);
            world("kill9", "dockerd");
            root().run("ping", &["-c", "1", "-W", "2", &made.address()]).ok();
            world("start", "dockerd");
            assert_eq!(docker(&["inspect", "-f", "{{.State.StartedAt}}", &made.name()]), started);
            unchanged(&scene, &made);
            // And once more with both away.
            world("kill9", "dockerd");
            world("kill9", "daemon");
            root().run("ping", &["-c", "1", "-W", "2", &made.address()]).ok();
            world("start", "daemon");
            world("start", "dockerd");
            assert_eq!(docker(&["inspect", "-f", "{{.State.StartedAt}}", &made.name()]), started);
            ann().moorage(&["restart-container", &made.name()]).ok();
            unchanged(&scene, &made);
        }));
        std::fs::remove_file(SETTINGS).unwrap();
        world("stop", "dockerd");
        world("start", "dockerd");
        if let Err(failure) = restored {
            std::panic::resume_unwind(failure);
        }
    }
}
