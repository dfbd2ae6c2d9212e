//! Snapshots, going back to them, making others of them; and making a container anew from its image.

use serde_json::Value;

use crate::support::{Made, Outcome, Scene, ann, bob, root};

fn docker(arguments: &[&str]) -> String {
    root().run("docker", arguments).ok().stdout.trim().to_owned()
}

/// The image that a snapshot's root filesystem is in.
fn root_of(name: &str, snapshot: &str) -> String {
    let record = std::fs::read(format!("/var/lib/moorage/snapshots/{name}.{snapshot}.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    format!("moorage-root/{}", record["root"]["key"].as_str().unwrap())
}

fn snapshots(scene: &Scene) -> Vec<Value> {
    let list = ann().moorage(&["list-snapshots", "--format", "json"]).ok().json();
    let ours = |one: &&Value| one["container"].as_str().unwrap().starts_with(&scene.project);
    list["snapshots"].as_array().unwrap().iter().filter(ours).cloned().collect()
}

#[track_caller]
fn take(name: &str, snapshot: &str) {
    ann().moorage(&["snapshot-container", name, "--name", snapshot]).ok();
}

fn restore(name: &str, snapshot: &str) -> Outcome {
    ann().moorage(&["restore-container", name, snapshot, "--yes"])
}

fn remove(name: &str, snapshot: &str) -> Outcome {
    ann().moorage(&["remove-snapshot", name, snapshot, "--yes"])
}

/// What is seen of /opt and the root filesystem.
const SEEN: &str =
    "cat /opt/home/ann/state /etc/state; stat -c %s /var/log/lastlog; hostname; cat /etc/machine-id";

#[track_caller]
fn set(scene: &Scene, name: &str, word: &str) {
    let script = format!(
        "echo {word} >/opt/home/ann/state; sudo sh -c 'echo {word} >/etc/state; truncate -s 1M /var/log/lastlog'"
    );
    scene.inside(&ann(), name, &script).ok();
}

#[test]
fn a_container_goes_back_to_what_it_was_and_stays_the_same_machine() {
    let scene = Scene::with_product("snap");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    set(&scene, &name, "first");
    let first = scene.ssh(&ann(), &made, SEEN).ok().stdout;
    take(&name, "first");
    assert_eq!(scene.ssh(&ann(), &made, SEEN).ok().stdout, first);
    ann().moorage(&["snapshot-container", &name, "--name", "first"]).ends(5).helps();
    set(&scene, &name, "second");
    scene.inside(&ann(), &name, "sudo rm -r /opt/product").ok();
    take(&name, "second");
    assert_eq!(snapshots(&scene).len(), 2);
    bob().moorage(&["restore-container", &name, "first", "--yes"]).ends(6).helps();

    restore(&name, "first").ok();
    // The lastlog of the snapshot was left out of it.
    let seen =
        scene.ssh(&ann(), &made, &SEEN.replace("stat -c %s /var/log/lastlog", "echo 1048576")).ok().stdout;
    assert_eq!(seen, first);
    scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
    // And forth again, stopped: it stays stopped.
    ann().moorage(&["stop-container", &name]).ok();
    restore(&name, "second").ok();
    assert_eq!(scene.containers()[0]["state"], "stopped");
    ann().moorage(&["start-container", &name]).ok();
    scene
        .ssh(&ann(), &made, "cat /etc/state /opt/home/ann/state; test ! -e /opt/product")
        .ok()
        .says("second\nsecond");

    restore(&name, "third").ends(4).helps();
    remove(&name, "first").ok();
    remove(&name, "first").ends(4).helps();
    ann().moorage(&["remove-container", &name, "--yes"]).ok();
    // It outlives its container, and others are made of it.
    let wish = format!("{}-p3", scene.project);
    let from = format!("{name}/second");
    let words = ["make-dev-container", "--from-snapshot", &from, "--name", &wish, "--format", "json"];
    let cloned = ann().moorage(&words).ok().json();
    let clone = &cloned["clones"][0];
    let other = Made(serde_json::json!({ "container": clone, "host_key": clone["host_key"] }));
    assert_eq!(other.name(), format!("{wish}-ann"));
    scene
        .ssh(&ann(), &other, "cat /etc/state /opt/home/ann/state; hostname")
        .ok()
        .says(&format!("second\nsecond\n{wish}-ann"));
    remove(&name, "second").ok();
    scene.ssh(&ann(), &other, "cat /etc/state").ok().says("second");
    scene.remove_all();
    scene.nothing_left();
}

#[test]
fn a_container_made_anew_keeps_what_it_is_and_loses_what_was_said() {
    let scene = Scene::with_product("anew");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    set(&scene, &name, "mine");
    let listed = ann().moorage(&["recreate-container", &name, "--dry-run"]).ok();
    let listed = listed.says("/etc/state").never_says("/etc/machine-id");
    assert!(!listed.stdout.contains("/opt"), "{}", listed.whole());
    scene.ssh(&ann(), &made, "cat /etc/state").ok();
    let machine_id = scene.ssh(&ann(), &made, "cat /etc/machine-id").ok().stdout;
    ann().moorage(&["recreate-container", &name]).ends(2).says("nobody is there to answer").helps();
    ann().moorage(&["recreate-container", &name, "--yes"]).ok();
    let now = scene
        .ssh(&ann(), &made, "cat /etc/machine-id; test ! -e /etc/state; cat /opt/home/ann/state; hostname")
        .ok();
    assert_eq!(now.stdout, format!("{machine_id}mine\n{name}\n"));
    assert_eq!(docker(&["exec", &name, "cat", "/sys/class/net/eth0/address"]), made.mac());
    bob().moorage(&["recreate-container", &name, "--yes"]).ends(6).helps();
}

#[test]
fn a_snapshot_whose_image_somebody_removed_leaves_the_container_as_it_is() {
    let scene = Scene::with_product("pruned");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    set(&scene, &name, "mine");
    take(&name, "first");
    docker(&["rmi", "-f", &root_of(&name, "first")]);
    restore(&name, "first").ends(3).says("is gone from Docker").helps();
    // No verb is bound to what could not be done.
    assert_eq!(scene.containers()[0]["state"], "running");
    scene.ssh(&ann(), &made, "cat /etc/state").ok().says("mine");
    ann().moorage(&["restart-container", &name]).ok();
    remove(&name, "first").ok();
    ann().moorage(&["recreate-container", &name, "--yes"]).ok();
}

#[test]
fn a_container_that_docker_has_lost_is_made_anew_on_its_opt() {
    let scene = Scene::with_product("lost");
    let made = scene.make(&ann(), &["--name", "lost-one"]);
    let name = made.name();
    set(&scene, &name, "mine");
    docker(&["rm", "-f", &name]);
    let next = format!("recreate-container {name} makes it anew");
    ann().moorage(&["start-container", &name]).ends(4).says(&next).helps();
    ann().moorage(&["recreate-container", &name, "--yes"]).ok();
    ann().moorage(&["start-container", &name]).ok();
    scene.ssh(&ann(), &made, "cat /opt/home/ann/state; test ! -e /etc/state").ok().says("mine");
    assert_eq!(docker(&["exec", &name, "cat", "/sys/class/net/eth0/address"]), made.mac());
}

/// These kill the daemon.
mod alone {
    use super::*;
    use crate::support::machine::{Daemons, daemon_with_failpoint, world};

    #[test]
    fn a_restore_begun_for_what_is_gone_since_is_given_up() {
        let scene = Scene::with_product("prunedlate");
        let made = scene.make(&ann(), &[]);
        let name = made.name();
        set(&scene, &name, "mine");
        take(&name, "first");
        let _daemons = Daemons;
        let root = root_of(&name, "first");
        world("stop", "daemon");
        daemon_with_failpoint("anew-begun");
        restore(&name, "first").ends(1).says("daemon went away").helps();
        world("kill9", "daemon");
        docker(&["rmi", "-f", &root]);
        world("start", "daemon");
        ann().moorage(&["start-container", &name]).ok();
        scene.ssh(&ann(), &made, "cat /etc/state").ok().says("mine");
        remove(&name, "first").ok();
    }

    #[test]
    fn a_restore_that_was_killed_is_gone_through_with() {
        let scene = Scene::with_product("snapkill");
        let made = scene.make(&ann(), &[]);
        let name = made.name();
        set(&scene, &name, "first");
        take(&name, "first");
        let _daemons = Daemons;
        for place in ["anew-begun", "anew-removed", "anew-restacked", "anew-created"] {
            set(&scene, &name, "second");
            world("stop", "daemon");
            daemon_with_failpoint(place);
            restore(&name, "first").ends(1).says("daemon went away").helps();
            world("kill9", "daemon");
            world("start", "daemon");
            ann().moorage(&["start-container", &name]).ok();
            scene.ssh(&ann(), &made, "cat /etc/state /opt/home/ann/state").ok().says("first\nfirst");
            assert_eq!(scene.containers()[0]["state"], "running", "{place}");
        }
        remove(&name, "first").ok();
    }

    #[test]
    fn a_snapshot_that_was_killed_is_none_and_the_container_goes_on() {
        let scene = Scene::with_product("snapnone");
        let made = scene.make(&ann(), &[]);
        let name = made.name();
        set(&scene, &name, "first");
        let _daemons = Daemons;
        for place in ["clone-committed", "clone-frozen", "clone-settled", "snapshot-taken"] {
            world("stop", "daemon");
            daemon_with_failpoint(place);
            ann()
                .moorage(&["snapshot-container", &name, "--name", "now"])
                .ends(1)
                .says("daemon went away")
                .helps();
            world("kill9", "daemon");
            world("start", "daemon");
            ann().moorage(&["start-container", &name]).ok();
            scene.ssh(&ann(), &made, SEEN).ok().says("first\nfirst\n1048576");
            assert!(snapshots(&scene).is_empty(), "{place}");
            take(&name, "now");
            remove(&name, "now").ok();
            let images = docker(&[
                "image",
                "ls",
                "-q",
                "--filter",
                "label=moorage.root",
                "--filter",
                "label=moorage.owner=ann",
            ]);
            assert_eq!(images, "", "{place}: a root filesystem is left");
        }
    }
}
