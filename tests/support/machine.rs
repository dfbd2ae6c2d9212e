//! The daemons and the LAN of the world, for tests that break them. Such tests live in a module `alone`, so that nothing
//! runs beside them.

use std::collections::BTreeSet;

use super::{Outcome, root};

/// `world start daemon`, `world kill9 engine`, … (scripts/lib/world).
#[track_caller]
pub fn world(verb: &str, name: &str) {
    run(verb, name, None);
}

/// Starts the daemon so that it is killed when it comes to `place` (`src/failpoint.rs`).
#[track_caller]
pub fn daemon_with_failpoint(place: &str) {
    run("start", "daemon", Some(place));
}

#[track_caller]
fn run(verb: &str, name: &str, failpoint: Option<&str>) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/lib/world");
    let mut command = root().command(path);
    for (key, value) in std::env::vars().filter(|(key, _)| key.starts_with("MOORAGE_WORLD")) {
        command.env(key, value);
    }
    if let Some(place) = failpoint {
        command.env("MOORAGE_FAILPOINT", place);
    }
    Outcome::of(command.args([verb, name])).ok();
}

/// Both daemons run again when this goes out of scope, however the test ended.
#[derive(Debug)]
pub struct Daemons;

impl Drop for Daemons {
    fn drop(&mut self) {
        let start = std::panic::catch_unwind(|| {
            world("start", "dockerd");
            world("start", "daemon");
        });
        // A test that has failed already keeps its own words.
        if let Err(failure) = start
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(failure);
        }
    }
}

/// The parent interface of the lab.
pub fn parent() -> String {
    std::env::var("LAB_PARENT").expect("scripts/lib/lan.sh sets LAB_PARENT")
}

/// The network namespaces that the lab has, by name.
pub fn lab_namespaces() -> Vec<String> {
    let list = root().run("ip", &["netns", "list"]).ok();
    list.stdout.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Mount points of this world that have `part` in them.
pub fn mounts(part: &str) -> BTreeSet<String> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned);
    points.filter(|point| point.contains(part)).collect()
}

/// The network interfaces of the host's side of the world.
pub fn interfaces() -> BTreeSet<String> {
    let entries = std::fs::read_dir("/sys/class/net").unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Files and directories below `directory`, whose path has `part` in it, not following links.
pub fn files(directory: &str, part: &str) -> Vec<String> {
    let found = root().run("find", &[directory, "-xdev", "-path", &format!("*{part}*")]);
    found.stdout.lines().map(str::to_owned).collect()
}
