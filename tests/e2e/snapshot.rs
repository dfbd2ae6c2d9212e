//! Snapshots, going back to them, making others of them; and making a container anew from its image.

use serde_json::Value;

use crate::support::{Made, Outcome, Scene, ann, bob, docker, root};

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
    let wish = format!("{}-one", scene.project);
    let made = scene.make(&ann(), &["--name", &wish]);
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

/// These kill the daemon, or remove what others may be about to use.
mod alone {
    use super::*;
    use crate::support::machine::{Daemons, daemon_with_failpoint, world};
    use crate::support::roots;

    #[test]
    fn a_published_snapshot_makes_containers_where_nothing_of_it_is() {
        let scene = Scene::with_product("publish");
        let name = scene.make(&ann(), &[]).name();
        set(&scene, &name, "first");
        let more = "cd /opt/home/ann; truncate -s 64M sparse; echo end >>sparse; ln state twin; mkfifo fifo; \
             sudo cp /bin/true capable; sudo chown 1234:2345 capable; sudo chmod 4751 capable; touch -d '2001-02-03 04:05:06.7' old; \
             sudo rm -r /opt/product/word";
        scene.inside(&ann(), &name, more).ok();
        // cap_net_raw+ep (capabilities(7)), which chown and chmod would take away.
        let capability: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let flags = rustix::fs::XattrFlags::empty();
        let home = format!("/opt/containers/{name}/opt/home/ann");
        rustix::fs::setxattr(format!("{home}/state"), "user.note", b"kept", flags).unwrap();
        rustix::fs::setxattr(format!("{home}/old"), "security.capability", &capability, flags).unwrap();
        take(&name, "first");
        let to = format!("oci://127.0.0.1:5000/snapshots/{}:first", scene.project);
        let publish = |to: &str| ann().moorage(&["publish-snapshot", &name, "first", to, "--format", "json"]);
        publish("oci://registry.example/snapshots/siem:first").ends(6).says("registries").helps();
        publish("oci://127.0.0.1:5000/snapshots/siem").ends(2).helps();
        bob().moorage(&["publish-snapshot", &name, "first", &to]).ends(6).helps();
        let sent = publish(&to).ok().json();
        assert!(sent["sent_bytes"].as_u64().unwrap() > 0, "{sent:#}");
        assert_eq!(publish(&to).ok().json()["sent_bytes"], 0);

        remove(&name, "first").ok();
        ann().moorage(&["remove-container", &name, "--yes"]).ok();
        root().moorage(&["prune-containers", "--store", "--yes"]).helps_or_ok();
        assert_eq!(roots(), "", "the root filesystem is still here");
        let make = |person: &crate::support::Person, from: &str, wish: &str| {
            person.public_key();
            scene.knows(person);
            let words = ["make-dev-container", "--from-snapshot", from, "--name", wish, "--format", "json"];
            let made = person.moorage(&words);
            if made.code != 0 {
                return Err(made);
            }
            let clone = made.json()["clones"][0].clone();
            Ok(Made(serde_json::json!({ "container": clone, "host_key": clone["host_key"] })))
        };
        let wish = format!("{}-again", scene.project);
        let again = make(&ann(), &to, &wish).map_err(|said| said.whole()).unwrap();
        assert_eq!(again.name(), format!("{wish}-ann"));
        let seen = "cat state /etc/state; stat -c '%s %h' sparse twin; [ $(stat -c %b sparse) -lt 1000 ]; \
             stat -c '%u %g %a' capable; date -u -r old '+%F %T.%N'; test ! -e /opt/product/word; test ! -e fifo; hostname";
        let said = scene.ssh(&ann(), &again, seen).ok().stdout;
        assert_eq!(
            said,
            format!(
                "first\nfirst\n67108868 1\n6 2\n1234 2345 4751\n2001-02-03 04:05:06.700000000\n{wish}-ann\n"
            )
        );
        let mut value = [0; 64];
        let home = format!("/opt/containers/{}/opt/home/ann", again.name());
        let length = rustix::fs::getxattr(format!("{home}/state"), "user.note", &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"kept");
        let length =
            rustix::fs::getxattr(format!("{home}/old"), "security.capability", &mut value[..]).unwrap();
        assert_eq!(value[..length], capability);
        scene.ssh(&ann(), &again, "grep -q /opt/product/word /opt/product/say").ok();
        // Somebody whom that root filesystem has never seen.
        let of_bob = make(&bob(), &to, &wish).map_err(|said| said.whole()).unwrap();
        let said =
            scene.ssh(&bob(), &of_bob, "id -un; pwd; cat /etc/state; sudo cat /opt/home/ann/state").ok();
        assert_eq!(said.stdout, "bob\n/opt/home/bob\nfirst\nfirst\n");
        let absent = format!("oci://127.0.0.1:5000/snapshots/{}:absent", scene.project);
        make(&ann(), &absent, "x").unwrap_err().ends(4).helps();
        make(&ann(), "oci://registry.example/snapshots/siem:first", "x").unwrap_err().ends(6).helps();
        scene.remove_all();
        scene.nothing_left();
    }

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
            assert_eq!(roots(), "", "{place}: a root filesystem is left");
        }
    }
}
