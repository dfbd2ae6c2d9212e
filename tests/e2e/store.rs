//! What containers take, the limits they have, and what is left of them.

use crate::support::groups::Groups;
use crate::support::{Scene, ann, bob, carol, docker, root};

#[test]
fn limits_change_at_once_and_stay() {
    let scene = Scene::with_product("resize");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    let limits =
        "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.CpuShares}} {{.State.StartedAt}}";
    let before = docker(&["inspect", "-f", limits, &name]);
    let started = before.split(' ').next_back().unwrap().to_owned();
    ann()
        .moorage(&["resize-container", &name, "--memory", "768MiB", "--pids", "900", "--cpu-weight", "50"])
        .ok();
    assert_eq!(docker(&["inspect", "-f", limits, &name]), format!("{} 900 512 {started}", 768 << 20));
    // The kernel's own word.
    let groups = Groups::of(&name);
    assert_eq!((groups.memory(), groups.pids(), groups.cpu_weight()), (768 << 20, 900, 50));
    // One alone leaves the others; and it is what the container is made anew with.
    ann().moorage(&["resize-container", &name, "--memory", "1GiB"]).ok();
    ann().moorage(&["recreate-container", &name, "--yes"]).ok();
    let now = docker(&["inspect", "-f", limits, &name]);
    assert!(now.starts_with(&format!("{} 900 512 ", 1 << 30)), "{now}");
    // It is still the one that was asked for, and keeps its limits.
    assert_eq!(scene.make(&ann(), &[]).name(), name);
    assert_eq!(docker(&["inspect", "-f", limits, &name]), now);
    ann().moorage(&["resize-container", &name]).ends(2).helps();
    ann().moorage(&["resize-container", &name, "--pids", "0"]).ends(2);
    bob().moorage(&["resize-container", &name, "--pids", "10"]).ends(6).helps();
}

#[test]
fn what_a_container_takes_is_listed_and_what_it_logged_is_kept() {
    let scene = Scene::with_product("long");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    scene.inside(&ann(), &name, "head -c 3M /dev/urandom >/opt/home/ann/data; sudo logger said-before-the-end; sudo journalctl --sync || true").ok();
    let listed = root().moorage(&["list-containers", "--long", "--format", "json"]).ok().json();
    let all = listed["containers"].as_array().unwrap();
    let own = all.iter().find(|one| one["name"] == name.as_str()).unwrap();
    assert!(own["opt_bytes"].as_u64().unwrap() >= 3 << 20, "{own:#}");
    ann().moorage(&["list-containers", "--long"]).ok().says("OPT").says("MiB");

    ann().moorage(&["remove-container", &name, "--yes"]).ok();
    let logs = format!("/opt/containers/logs/{name}");
    ann().shell(&format!("cat {logs}/*-journal.log")).ok().says("said-before-the-end");
    carol().shell(&format!("cat {logs}/*-journal.log")).ends(1);
}

/// These remove what others may be about to use.
mod alone {
    use super::*;
    use crate::support::events::{Following, until_directory};
    use crate::support::machine::{Daemons, world};

    #[test]
    fn what_is_done_to_disks_is_limited_and_what_is_for_a_time_goes_back() {
        let scene = Scene::with_product("throttle");
        let name = scene.make(&ann(), &[]).name();
        assert_eq!(Groups::of(&name).io(), [0, 0, 0, 0]);
        let resize =
            |more: &[&str]| ann().moorage(&[&["resize-container", name.as_str()][..], more].concat());
        resize(&["--io-write", "50MB", "--io-read-ops", "5000"]).ok().says("47.68 MiB/s");
        assert_eq!(Groups::of(&name).io(), [0, 50_000_000, 5000, 0]);
        resize(&["--io-write-ops", "7000", "--io-read-ops", "0"]).ok();
        assert_eq!(Groups::of(&name).io(), [0, 50_000_000, 0, 7000]);
        // Started again by us, and by the engine alone.
        ann().moorage(&["restart-container", &name]).ok();
        assert_eq!(Groups::of(&name).io(), [0, 50_000_000, 0, 7000]);
        let mut log =
            Following::command(root().command("tail").args(["-n", "0", "-F", "/var/log/moorage/daemon.log"]));
        docker(&["restart", &name]);
        log.until("the limits of the container that Docker has started", |line| {
            line.contains(&format!("{name}: what it does to its disks is limited"))
        });
        assert_eq!(Groups::of(&name).io(), [0, 50_000_000, 0, 7000]);

        // Until a time, over the end of the daemon.
        let _daemons = Daemons;
        resize(&["--pids", "500", "--until", "2020-01-01 10:00"]).ends(2).says("over already").helps();
        let soon = root().shell("date -d '+4 seconds' '+%F %T'").ok().stdout;
        resize(&["--io-write", "10MB", "--memory", "1GiB", "--pids", "700", "--until", soon.trim()])
            .ok()
            .says("until");
        world("kill9", "daemon");
        world("start", "daemon");
        let record = format!("/var/lib/moorage/containers/{name}.json");
        until_directory(std::path::Path::new("/var/lib/moorage/containers"), || {
            !std::fs::read_to_string(&record).unwrap_or_default().contains("\"lent\"")
        });
        let groups = Groups::of(&name);
        assert_eq!((groups.io(), groups.pids()), ([0, 50_000_000, 0, 7000], 8192));
        assert!(groups.memory() > 1 << 50, "{}", groups.memory());
    }

    /// The host's settings, as they were before the test.
    struct Settings(String);

    impl Settings {
        const FILE: &str = "/etc/moorage/config.toml";

        fn with(line: &str) -> Settings {
            let before = std::fs::read_to_string(Settings::FILE).unwrap();
            std::fs::write(Settings::FILE, format!("{line}\n{before}")).unwrap();
            Settings(before)
        }
    }

    impl Drop for Settings {
        fn drop(&mut self) {
            std::fs::write(Settings::FILE, &self.0).unwrap();
            world("stop", "daemon");
        }
    }

    #[test]
    fn archives_that_nobody_has_take_no_more_than_they_may() {
        let scene = Scene::with_product("cache");
        let here = || {
            let names = root().shell("grep -l . /opt/containers/.store/layers/*.json | xargs cat").stdout;
            names.contains(&format!("{}/product.tar.zst", scene.project))
        };
        let _daemons = Daemons;
        world("stop", "daemon");
        let _settings = Settings::with("cache = \"1KB\"");
        world("start", "daemon");
        let name = scene.make(&ann(), &[]).name();
        ann().moorage(&["snapshot-container", &name, "--name", "kept"]).ok();
        ann().moorage(&["remove-container", &name, "--yes"]).ok();
        // A snapshot has it.
        assert!(here());
        ann().moorage(&["remove-snapshot", &name, "kept", "--yes"]).ok();
        // Some files of a few bytes: there is room for them, and for 1 KB of others.
        assert!(here());
        let large = crate::support::archive::Archive::new().file("large", 0o644, &[7; 4096]).zst();
        let url = scene.archive("large.tar.zst", &large);
        scene.write(&format!("opt = \"{url}\""));
        let name = scene.make(&ann(), &[]).name();
        ann().moorage(&["remove-container", &name, "--yes"]).ok();
        let left = root().shell("cat /opt/containers/.store/layers/*.json || true").ok().stdout;
        assert!(!left.contains("large.tar.zst"), "{left}");
        assert!(here(), "{left}");
    }

    #[test]
    fn layers_that_nothing_needs_are_listed_and_removed() {
        let scene = Scene::with_product("prune");
        let made = scene.make(&ann(), &[]);
        let archive = format!("{}/product.tar.zst", scene.project);
        let listed = || ann().moorage(&["prune-containers", "--store", "--dry-run"]).ok();
        listed().never_says(&archive);
        ann().moorage(&["snapshot-container", &made.name(), "--name", "kept"]).ok();
        ann().moorage(&["remove-container", &made.name(), "--yes"]).ok();
        // A snapshot needs it, too.
        listed().never_says(&archive);
        ann().moorage(&["remove-snapshot", &made.name(), "kept", "--yes"]).ok();
        listed().says(&archive);
        ann().moorage(&["prune-containers", "--store", "--yes"]).ends(6).helps();
        root().moorage(&["prune-containers", "--store", "--yes"]).ok().says("removed");
        listed().never_says(&archive);
        ann().moorage(&["prune-containers"]).ends(2).helps();
        // It is fetched again.
        let again = scene.make(&ann(), &[]);
        scene.ssh(&ann(), &again, "/opt/product/say").ok().says(&scene.project);
    }
}
