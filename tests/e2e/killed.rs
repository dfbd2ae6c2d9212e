//! `start-`, `stop-`, `restart-`, `remove-container` when the command or the daemon is killed.

use rustix::process::Signal;

use crate::support::{Following, Made, Outcome, Running, Scene, ann, root};

/// Each verb, the step in which it is killed, and whether the container runs before.
const VERBS: [(&str, &str, bool); 4] = [
    ("stop-container", "stop", true),
    ("start-container", "start", false),
    ("restart-container", "stop", true),
    ("restart-container", "start", true),
];

/// Starts a verb and goes on until `step` has begun.
fn begun(verb: &str, step: &str, name: &str) -> Running {
    let mut arguments = vec![verb, name];
    if verb == "remove-container" {
        arguments.push("--yes");
    }
    let mut running = Running::start(&ann(), &arguments);
    assert!(running.reaches(step), "{verb}: {step} never began: {}", running.end().whole());
    running
}

/// The log of the last run on a container is followed until it says that the run has ended.
fn until_logged(name: &str, verb: &str) {
    let word = verb.trim_end_matches("-container");
    let last = format!("ls /opt/containers/logs/{name}/*-{word}.log | tail -n 1");
    let last = root().shell(&last).ok().stdout;
    let mut tail = root().command("tail");
    tail.args(["-n", "+1", "-f", last.trim()]);
    let end = Following::command(&mut tail)
        .until("the end of the run", |line| line.ends_with("Z done") || line.contains("Z failed: "));
    assert!(end.ends_with(" done"), "{verb} went on and failed: {end}");
}

/// Whatever became of it, the container is listed, can be started, and is what it was.
#[track_caller]
fn usable(scene: &Scene, made: &Made) {
    let listed = scene.containers();
    assert_eq!(listed.len(), 1, "{listed:?}");
    assert!(["running", "stopped"].contains(&listed[0]["state"].as_str().unwrap()), "{listed:?}");
    assert_eq!(listed[0]["address"], made.address());
    ann().moorage(&["start-container", &made.name()]).ok();
    assert_eq!(scene.containers()[0]["state"], "running");
    scene.ssh(&ann(), made, "/opt/product/say").ok().says(&scene.project);
}

fn with_state(made: &Made, running: bool) {
    let verb = if running { "start-container" } else { "stop-container" };
    ann().moorage(&[verb, &made.name()]).ok();
}

#[test]
fn a_command_that_is_killed_leaves_the_daemon_to_finish() {
    let scene = Scene::with_product("killedverb");
    let made = scene.make(&ann(), &[]);
    for (verb, step, runs) in VERBS {
        with_state(&made, runs);
        let running = begun(verb, step, &made.name());
        running.signal(Signal::KILL);
        running.end().ends(128 + 9);
        until_logged(&made.name(), verb);
        let state = scene.containers()[0]["state"].clone();
        assert_eq!(state, if verb == "stop-container" { "stopped" } else { "running" }, "after {verb}");
        usable(&scene, &made);
    }
}

#[test]
fn a_removal_whose_command_is_killed_is_finished() {
    let scene = Scene::with_product("killedremove");
    let made = scene.make(&ann(), &[]);
    let running = begun("remove-container", "remove", &made.name());
    running.signal(Signal::KILL);
    running.end().ends(128 + 9);
    scene.undone();
    scene.nothing_left();
}

/// These kill the daemon.
mod alone {
    use super::*;
    use crate::support::machine::{Daemons, world};

    /// It was told that the daemon went away, or the daemon was quicker.
    #[track_caller]
    fn told(end: Outcome) {
        if end.code != 0 {
            end.ends(1).says("daemon went away").helps();
        }
    }

    #[test]
    fn a_daemon_that_is_killed_leaves_a_container_that_can_be_used() {
        let scene = Scene::with_product("killedoperate");
        let made = scene.make(&ann(), &[]);
        let _daemons = Daemons;
        for (verb, step, runs) in VERBS {
            with_state(&made, runs);
            let running = begun(verb, step, &made.name());
            world("kill9", "daemon");
            told(running.end());
            world("start", "daemon");
            // The same command finishes it, whatever dockerd has done meanwhile.
            ann().moorage(&[verb, &made.name()]).ok();
            let state = scene.containers()[0]["state"].clone();
            assert_eq!(state, if verb == "stop-container" { "stopped" } else { "running" }, "after {verb}");
            usable(&scene, &made);
        }
    }

    #[test]
    fn a_removal_is_finished_by_the_next_daemon() {
        let scene = Scene::with_product("killedfinish");
        let _daemons = Daemons;
        for stopped in [false, true] {
            let made = scene.make(&ann(), &[]);
            with_state(&made, !stopped);
            let running = begun("remove-container", "remove", &made.name());
            world("kill9", "daemon");
            told(running.end());
            world("start", "daemon");
            scene.undone();
            scene.nothing_left();
        }
    }

    #[test]
    fn the_same_command_finishes_a_removal_as_well() {
        let scene = Scene::with_product("killedagain");
        let made = scene.make(&ann(), &[]);
        let _daemons = Daemons;
        let running = begun("remove-container", "remove", &made.name());
        world("kill9", "daemon");
        told(running.end());
        world("start", "daemon");
        // It is quicker than the daemon's own recovery, or waits for that and finds nothing, or comes after it.
        let again = ann().moorage(&["remove-container", &made.name(), "--yes"]);
        let found_nothing = again.code == 4 || again.stderr.contains("it was removed just now");
        assert!(again.code == 0 || found_nothing, "{}", again.whole());
        scene.undone();
        scene.nothing_left();
    }
}
