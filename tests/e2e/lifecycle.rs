//! Containers through stops, restarts, crashes and upgrades.

use crate::support::{Made, Scene, ann, machine, root};

fn docker(arguments: &[&str]) -> String {
    root().run("docker", arguments).ok().stdout.trim().to_owned()
}

/// The address the container has right now, as it sees it itself.
fn address_inside(name: &str) -> String {
    let inside = "ip -o -4 address show eth0 | awk '{ sub(\"/.*\", \"\", $4); print $4 }'";
    docker(&["exec", name, "sh", "-c", inside])
}

#[track_caller]
fn unchanged(scene: &Scene, made: &Made) {
    assert_eq!(address_inside(&made.name()), made.address(), "another address");
    let mac = docker(&["exec", &made.name(), "cat", "/sys/class/net/eth0/address"]);
    assert_eq!(mac, made.mac(), "another MAC");
    scene.inside(&ann(), &made.name(), "/opt/product/say").ok().says(&scene.project);
    root().run("ping", &["-c", "1", "-W", "2", &made.address()]).ok();
}

#[test]
fn address_mac_and_opt_stay_over_stop_start_and_restart() {
    let scene = Scene::with_product("stays");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    ann().moorage(&["stop-container", &name]).ok();
    // The person's view is there while the container is stopped.
    assert!(made.opt_directory().join("product/word").exists());
    ann().moorage(&["stop-container", &name]).ok();
    ann().moorage(&["start-container", &name]).ok();
    unchanged(&scene, &made);
    ann().moorage(&["restart-container", &name]).ok();
    unchanged(&scene, &made);
    // Docker's own verbs do the same: nothing has to be plumbed again by hand.
    docker(&["restart", &name]);
    unchanged(&scene, &made);
    docker(&["stop", &name]);
    docker(&["start", &name]);
    unchanged(&scene, &made);
}

#[test]
fn short_names_are_ones_own() {
    let scene = Scene::with_product("short");
    let made = scene.make(&ann(), &[]);
    let short = format!("{}-main", scene.project);
    ann().moorage(&["stop-container", &short]).ok();
    ann().moorage(&["start-container", &short]).ok();
    crate::support::bob().moorage(&["stop-container", &short]).ends(4).helps();
    unchanged(&scene, &made);
}

#[test]
fn several_names_are_all_tried() {
    let scene = Scene::with_product("several");
    let made = scene.make(&ann(), &[]);
    ann()
        .moorage(&["stop-container", "no-such-container", &made.name()])
        .ends(7)
        .says("no-such-container")
        .helps();
    assert_eq!(docker(&["inspect", "-f", "{{.State.Running}}", &made.name()]), "false");
}

#[test]
fn a_removed_container_gives_everything_back_and_a_remade_one_keeps_its_mac() {
    let scene = Scene::with_product("remade");
    let first = scene.make(&ann(), &[]);
    ann().moorage(&["remove-container", &first.name(), "--yes"]).ok();
    scene.nothing_left();
    ann().moorage(&["remove-container", &first.name(), "--yes"]).ends(4).helps();
    let second = scene.make(&ann(), &[]);
    assert_eq!(first.mac(), second.mac());
}

#[test]
fn a_foreign_container_on_the_lan_is_left_alone() {
    let name = format!("foreign{}", std::process::id());
    docker(&["run", "-d", "--name", &name, "--network", "lan", "moorage/debian-12", "sleep", "infinity"]);
    root().moorage(&["remove-container", &name, "--yes"]).ends(4).helps();
    assert_eq!(docker(&["inspect", "-f", "{{.State.Running}}", &name]), "true");
    docker(&["rm", "-f", &name]);
}

/// These stop daemons.
mod alone {
    use std::time::Instant;

    use super::*;
    use crate::support::Following;
    use crate::support::machine::{Daemons, mounts, world};

    #[test]
    fn the_daemon_goes_and_comes_and_containers_never_notice() {
        let scene = Scene::with_product("upgrade");
        let made = scene.make(&ann(), &[]);
        let started = docker(&["inspect", "-f", "{{.State.StartedAt}}", &made.name()]);
        let _daemons = Daemons;
        for end in ["stop", "kill9"] {
            world(end, "daemon");
            root().run("ping", &["-c", "1", "-W", "2", &made.address()]).ok();
            world("start", "daemon");
            unchanged(&scene, &made);
        }
        assert_eq!(docker(&["inspect", "-f", "{{.State.StartedAt}}", &made.name()]), started);
        // It still knows everything: the container can be restarted and removed.
        ann().moorage(&["restart-container", &made.name()]).ok();
        unchanged(&scene, &made);
    }

    #[test]
    fn after_a_power_cut_of_the_engine_every_container_is_back() {
        let scene = Scene::with_product("powercut");
        let made = scene.make(&ann(), &[]);
        let since = jiff::Timestamp::now();
        let _daemons = Daemons;
        world("kill9", "engine");
        world("start", "dockerd");
        // The restart policy starts it; dockerd asks us for its address and its /opt before.
        if docker(&["inspect", "-f", "{{.State.Running}}", &made.name()]) != "true" {
            Following::container(&made.name(), since)
                .until("the container's start", |action| action == "start");
        }
        unchanged(&scene, &made);
    }

    #[test]
    fn a_layer_that_a_power_cut_took_comes_back_with_the_same_command() {
        let scene = Scene::with_product("lostlayer");
        let made = scene.make(&ann(), &[]);
        let _daemons = Daemons;
        ann().moorage(&["stop-container", &made.name()]).ok();
        world("stop", "daemon");
        for mount in mounts(&made.name()) {
            root().run("umount", &[&mount]).ok();
        }
        let layers = std::fs::read_dir("/opt/containers/.store/layers").unwrap();
        let lost = layers
            .map(|entry| entry.unwrap().path())
            .find(|layer| {
                std::fs::read_to_string(layer.join("product/word"))
                    .is_ok_and(|word| word.trim() == scene.project)
            })
            .expect("the layer of the scene's archive");
        std::fs::remove_dir_all(lost).unwrap();
        world("start", "daemon");
        ann().moorage(&["start-container", &made.name()]).ends(1).helps();
        scene.make(&ann(), &[]);
        unchanged(&scene, &made);
    }

    #[test]
    fn with_the_daemon_down_people_are_told_what_to_start() {
        let _daemons = Daemons;
        world("stop", "daemon");
        let begin = Instant::now();
        ann().moorage(&["list-containers"]).ends(3).says("moorage").helps();
        assert!(begin.elapsed().as_secs() < 10);
    }

    #[test]
    fn with_the_engine_down_people_are_told_what_to_start_and_nothing_is_half_made() {
        let scene = Scene::with_product("noengine");
        let _daemons = Daemons;
        world("stop", "dockerd");
        scene.try_make(&ann(), &[]).ends(3).says("dockerd").helps();
        // What is known without the engine is still told.
        ann().moorage(&["list-containers"]).ok();
        world("start", "dockerd");
        scene.nothing_left();
        scene.make(&ann(), &[]);
    }

    #[test]
    fn everything_of_one_container_goes_with_it_even_when_docker_has_lost_it() {
        let scene = Scene::with_product("lost");
        let made = scene.make(&ann(), &[]);
        docker(&["rm", "-f", &made.name()]);
        let state = scene.containers()[0]["state"].clone();
        assert_eq!(state, "missing");
        ann().moorage(&["remove-container", &made.name(), "--yes"]).ok();
        scene.nothing_left();
        assert!(machine::mounts(&made.name()).is_empty());
    }

    #[test]
    #[ignore = "soak: fifty restarts take minutes; scripts/test --soak runs it"]
    fn soak_fifty_restarts_keep_the_address() {
        let scene = Scene::with_product("soak");
        let made = scene.make(&ann(), &[]);
        for _ in 0..50 {
            docker(&["restart", "-t", "2", &made.name()]);
            unchanged(&scene, &made);
        }
    }
}
