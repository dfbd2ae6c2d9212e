//! `clone-container`: one container that was set up becomes many machines of their own.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::support::{Made, Outcome, Scene, ann, bob, docker, root};

/// Clones a container of ann's.
#[track_caller]
fn clone(name: &str, more: &[&str]) -> Value {
    try_clone(name, more).ok().json()
}

fn try_clone(name: &str, more: &[&str]) -> Outcome {
    let words = ["clone-container", name, "--format", "json", "--yes"];
    ann().moorage(&words.into_iter().chain(more.iter().copied()).collect::<Vec<_>>())
}

/// The clones as `scene.ssh` knows machines.
fn machines(cloned: &Value) -> Vec<Made> {
    let clones = cloned["clones"].as_array().unwrap().iter();
    clones
        .map(|clone| Made(serde_json::json!({ "container": clone, "host_key": clone["host_key"] })))
        .collect()
}

fn names(cloned: &Value) -> Vec<String> {
    machines(cloned).iter().map(Made::name).collect()
}

/// The image that a container was made of.
fn image_of(name: &str) -> String {
    docker(&["inspect", "-f", "{{.Image}}", name])
}

#[track_caller]
fn image_is_gone(image: &str) {
    root().run("docker", &["image", "inspect", image]).ends(1);
}

/// How many layers were frozen from volumes of a scene.
fn frozen_layers(scene: &Scene) -> usize {
    let records = root().shell("cat /opt/containers/.store/frozen/*.json || true").ok();
    records.stdout.matches(&scene.project).count()
}

const SET_UP: &str = "echo event >/opt/product/events
    echo mine >/opt/home/ann/notes
    sudo rm /opt/product/word
    sudo sh -c 'echo configured >/etc/configured; truncate -s 6G /var/log/lastlog; ssh-keygen -q -t ecdsa -N \"\" -f /etc/ssh/ssh_host_ecdsa_key'
    sudo mkdir -p /var/lib/events; sudo sh -c 'echo fed >/var/lib/events/fed'";

#[test]
fn clones_have_all_that_was_done_and_are_machines_of_their_own() {
    let scene = Scene::with_product("clone");
    let source = scene.make(&ann(), &[]);
    scene.inside(&ann(), &source.name(), &format!("sudo chown ann /opt/product; {SET_UP}")).ok();
    let cloned = clone(&source.name(), &["--count", "3"]);
    assert!(cloned["stopped_ms"].as_u64().unwrap() > 0, "{cloned:#}");
    let clones = machines(&cloned);
    let expected: Vec<String> =
        (1..=3).map(|number| format!("{}-main-{number}-ann", scene.project)).collect();
    assert_eq!(names(&cloned), expected);

    let whole = "hostname; cat /etc/machine-id /etc/configured /opt/product/events /opt/home/ann/notes /var/lib/events/fed; \
         test ! -e /opt/product/word; test ! -e /etc/ssh/ssh_host_ecdsa_key; systemctl is-system-running";
    let mut own: Vec<BTreeSet<String>> = vec![BTreeSet::new(); 4];
    for made in clones.iter().chain([&source]) {
        let said = match made.name() == source.name() {
            true => scene.ssh(&ann(), made, "hostname; cat /etc/machine-id").ok().stdout,
            false => {
                let said = scene.ssh(&ann(), made, whole).ok().stdout;
                assert!(said.ends_with("configured\nevent\nmine\nfed\nrunning\n"), "{said}");
                said
            }
        };
        let mut lines = said.lines();
        assert_eq!(lines.next().unwrap(), made.name());
        let machine_id = lines.next().unwrap().to_owned();
        let all = [machine_id, made.mac(), made.address(), made.host_key()];
        own.iter_mut().zip(all).for_each(|(seen, value)| assert!(seen.insert(value), "{said}"));
    }
    // The source goes on as it was: its records of logins and its keys are back where they were.
    scene
        .ssh(&ann(), &source, "stat -c %s /var/log/lastlog; test -e /etc/ssh/ssh_host_ecdsa_key")
        .ok()
        .says("6442450944");

    // The group: names, addresses, and one key for all.
    for one in &clones {
        let hosts = scene.inside(&ann(), &one.name(), "cat /etc/hosts").ok().stdout;
        for other in clones.iter().chain([&source]) {
            let line =
                |line: &str| line.split_whitespace().eq([other.address().as_str(), other.name().as_str()]);
            assert!(hosts.lines().any(line), "{hosts}");
        }
    }
    let (first, second) = (&clones[0], &clones[1]);
    for to in [second.name(), second.address()] {
        let ssh = format!("ssh -o BatchMode=yes -o StrictHostKeyChecking=yes {to} hostname");
        assert_eq!(scene.inside(&ann(), &first.name(), &ssh).ok().stdout.trim(), second.name());
    }
    // What one writes, nobody else sees.
    scene.inside(&ann(), &first.name(), "echo changed >/opt/product/events; sudo rm /etc/configured").ok();
    for other in [second, &source] {
        scene
            .inside(&ann(), &other.name(), "cat /opt/product/events /etc/configured")
            .ok()
            .says("event\nconfigured");
    }

    // Verbs for all of them.
    let all = ann().moorage(&["enter-container", "--clones-of", &source.name(), "--", "hostname"]).ok();
    for name in names(&cloned) {
        assert!(
            all.stdout.lines().any(|line| line.split_whitespace().eq([name.as_str(), name.as_str()])),
            "{}",
            all.whole()
        );
    }
    ann()
        .moorage(&["enter-container", "--clones-of", &source.name(), "--", "test", "-e", "/etc/configured"])
        .ends(7)
        .says(&first.name())
        .helps();
    let image = image_of(&first.name());
    ann().moorage(&["remove-container", "--clones-of", &source.name(), "--yes"]).ok();
    assert_eq!(scene.containers().len(), 1);
    image_is_gone(&image);
    ann().moorage(&["remove-container", "--clones-of", &source.name(), "--yes"]).ends(4).helps();
    assert_eq!(frozen_layers(&scene), 1);
    scene.remove_all();
    assert_eq!(frozen_layers(&scene), 0);
    scene.nothing_left();
}

#[test]
fn what_it_would_cost_is_said_and_nothing_is_done() {
    let scene = Scene::with_product("clonecost");
    let source = scene.make(&ann(), &[]);
    scene
        .inside(&ann(), &source.name(), "truncate -s 2G /opt/home/ann/large; echo x >>/opt/home/ann/large")
        .ok();
    let before = docker(&["inspect", "-f", "{{.State.StartedAt}}", &source.name()]);
    let said = ann().moorage(&["clone-container", &source.name(), "--count", "2", "--dry-run"]).ok();
    let said = said.says(&format!("{}-main-2-ann", scene.project)).says("disk").says("stops for");
    let reflinks = said.stdout.contains("copies nothing");
    assert_eq!(said.stdout.contains("/opt/home/ann/large"), !reflinks, "{}", said.whole());
    assert_eq!(docker(&["inspect", "-f", "{{.State.StartedAt}}", &source.name()]), before);
    assert_eq!(scene.containers().len(), 1);
    // Others may look at the list and no more.
    bob().moorage(&["clone-container", &source.name()]).ends(6).helps();
    ann().moorage(&["clone-container", &source.name(), "--count", "0"]).ends(2).helps();
    try_clone("no-such-container", &[]).ends(4).helps();
}

#[test]
fn a_stopped_container_is_cloned_as_it_is_and_clones_need_not_start() {
    let scene = Scene::with_product("clonestopped");
    let source = scene.make(&ann(), &[]);
    scene.inside(&ann(), &source.name(), "echo kept >/opt/home/ann/kept").ok();
    ann().moorage(&["stop-container", &source.name()]).ok();
    let wish = format!("{}-before", scene.project);
    let cloned = clone(&source.name(), &["--name", &wish, "--start", "no"]);
    assert_eq!(cloned["stopped_ms"], 0);
    assert_eq!(names(&cloned), [format!("{wish}-ann")]);
    assert!(scene.containers().iter().all(|one| one["state"] == "stopped"), "{:#?}", scene.containers());
    try_clone(&source.name(), &["--name", &wish]).ends(5).helps();
    ann().moorage(&["start-container", &wish]).ok();
    scene.ssh(&ann(), &machines(&cloned)[0], "cat kept").ok().says("kept");
    // No person makes a container of somebody's root filesystem.
    let image = docker(&["inspect", "-f", "{{.Config.Image}}", &names(&cloned)[0]]);
    let named = docker(&[
        "image",
        "inspect",
        "-f",
        "{{index .RepoTags 0}} {{index .Config.Labels \"moorage.owner\"}}",
        &image,
    ]);
    let (reference, owner) = named.split_once(' ').unwrap();
    assert_eq!(owner, "ann");
    bob().moorage(&["make-os-container", reference, "--yes"]).ends(6).helps();
}

#[test]
fn clones_outlive_their_source_and_have_clones_of_their_own() {
    let scene = Scene::with_product("clonechain");
    let source = scene.make(&ann(), &[]);
    let mut last = source.name();
    let mut chain = Vec::new();
    for generation in 0..10 {
        let script = format!("echo {generation} >>/opt/home/ann/generations");
        // Only what runs can be entered.
        if generation % 5 == 0 {
            ann().moorage(&["start-container", &last]).ok();
            scene.inside(&ann(), &last, &script).ok();
            ann().moorage(&["stop-container", &last]).ok();
        }
        let wish = format!("{}-g{generation}", scene.project);
        last = names(&clone(&last, &["--name", &wish, "--start", "no"])).remove(0);
        chain.push(last.clone());
    }
    // All but the last go, the source first.
    for name in std::iter::once(&source.name()).chain(&chain[..9]) {
        ann().moorage(&["remove-container", name, "--yes"]).ok();
    }
    ann().moorage(&["start-container", &last]).ok();
    let said = scene.inside(&ann(), &last, "cat /opt/home/ann/generations; /opt/product/say").ok();
    assert!(said.stdout.starts_with("0\n5\n"), "{}", said.whole());
    said.says(&scene.project);
}

#[test]
fn two_at_once_both_get_what_they_asked_for() {
    let scene = Scene::with_product("clonetwice");
    let source = scene.make(&ann(), &[]);
    let name = source.name();
    let both: Vec<Vec<String>> = std::thread::scope(|scope| {
        let one = || names(&clone(&name, &["--count", "2"]));
        let running = [scope.spawn(one), scope.spawn(one)];
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let all: BTreeSet<&String> = both.iter().flatten().collect();
    assert_eq!(all.len(), 4, "{both:?}");
    assert!(scene.containers().iter().all(|one| one["state"] == "running"), "{:#?}", scene.containers());
}

#[test]
fn one_that_fails_is_undone_and_named_and_the_others_stay() {
    let scene = Scene::with_product("clonefails");
    let source = scene.make(&ann(), &[]);
    let bad = format!("{}-main-2-ann", scene.project);
    // Where the owner's view would be mounted is a file.
    let in_the_way = format!("mkdir /opt/containers/{bad}; echo x >/opt/containers/{bad}/opt");
    root().shell(&in_the_way).ok();
    let said = try_clone(&source.name(), &["--count", "3"]).ends(7).says(&bad).helps();
    let cloned = said.json();
    assert_eq!(cloned["clones"].as_array().unwrap().len(), 2);
    assert_eq!(cloned["failed"][0]["name"], bad.as_str());
    let left: BTreeSet<String> =
        scene.containers().iter().map(|one| one["name"].as_str().unwrap().to_owned()).collect();
    assert!(left.len() == 3 && !left.contains(&bad), "{left:?}");
    // The same command makes more, under the names that are free.
    assert_eq!(names(&clone(&source.name(), &[])), [bad]);
}

/// These kill the daemon.
mod alone {
    use super::*;
    use crate::support::machine::{Daemons, daemon_with_failpoint, world};
    use crate::support::roots;

    /// The daemon is killed at each of these places; after that nothing is lost, and the same command succeeds.
    fn killed_at(word: &str, places: &[&str]) {
        let scene = Scene::with_product(word);
        let source = scene.make(&ann(), &[]);
        let name = source.name();
        scene
            .inside(&ann(), &name, "echo kept >/opt/home/ann/kept; sudo truncate -s 1M /var/log/lastlog")
            .ok();
        let _daemons = Daemons;
        for place in places {
            let before: BTreeSet<String> =
                scene.containers().iter().map(|one| one["name"].to_string()).collect();
            world("stop", "daemon");
            daemon_with_failpoint(place);
            let said = try_clone(&name, &["--count", "2"]);
            assert_eq!(said.code, 1, "{place} was never reached: {}", said.whole());
            said.says("daemon went away").helps();
            world("kill9", "daemon");
            world("start", "daemon");
            // It waits for what the new daemon puts right.
            ann().moorage(&["start-container", &name]).ok();
            let check = "cat /opt/home/ann/kept; stat -c %s /var/log/lastlog; /opt/product/say";
            scene.ssh(&ann(), &source, check).ok().says("kept\n1048576\n").says(&scene.project);
            let cloned = clone(&name, &["--count", "2"]);
            for one in machines(&cloned) {
                scene.ssh(&ann(), &one, "cat kept").ok().says("kept");
            }
            // Clones that were finished before the kill stay; of the others nothing is left but what was made now.
            let finished = scene.containers().len() - before.len() - 2;
            assert!(finished <= 2, "{place}: {:#?}", scene.containers());
            ann().moorage(&["remove-container", "--clones-of", &name, "--yes"]).ok();
            assert_eq!(scene.containers().len(), 1, "{place}");
            assert_eq!(roots(), "", "{place}: a root filesystem is left");
        }
    }

    /// The lab's DHCP server, held until this goes out of scope.
    struct Silence;

    impl Silence {
        fn begin() -> Silence {
            root().shell("kill -STOP $(pidof dnsmasq)").ok();
            Silence
        }
    }

    impl Drop for Silence {
        fn drop(&mut self) {
            let _ = root().shell("kill -CONT $(pidof dnsmasq)");
        }
    }

    #[test]
    fn without_addresses_for_all_nothing_is_done() {
        let scene = Scene::with_product("clonenolan");
        let source = scene.make(&ann(), &[]);
        let started = || docker(&["inspect", "-f", "{{.State.StartedAt}}", &source.name()]);
        let before = started();
        let silence = Silence::begin();
        try_clone(&source.name(), &["--count", "3"])
            .ends(8)
            .says("the LAN has an address for 0 of 3 clones")
            .helps();
        drop(silence);
        assert_eq!(started(), before, "the source was stopped for nothing");
        assert_eq!(scene.containers().len(), 1);
        clone(&source.name(), &["--count", "3"]);
    }

    #[test]
    fn a_daemon_killed_before_the_state_is_taken_is_as_if_nothing_was_asked() {
        killed_at("clonekill", &["clone-recorded", "clone-prepared", "clone-begun", "clone-stopped"]);
    }

    #[test]
    fn a_daemon_killed_while_the_state_is_taken_loses_nothing() {
        killed_at(
            "clonetake",
            &["clone-away", "clone-committed", "freeze-begun", "freeze-renamed", "clone-frozen"],
        );
    }

    #[test]
    fn a_daemon_killed_while_clones_are_made_undoes_what_was_not_finished() {
        killed_at("clonemake", &["clone-settled", "clone-volume", "clone-created", "clone-made"]);
    }
}
