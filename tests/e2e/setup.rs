//! `setup` on a host that is set up.

use std::os::unix::fs::MetadataExt as _;

use crate::support::{ann, machine, root};

/// All that setup could change: files with their times, the network, the daemons.
fn state() -> String {
    let mut state = String::new();
    for top in ["/etc/moorage", "/etc/docker", "/usr/local/bin"] {
        let mut paths = machine::files(top, "");
        paths.sort();
        for path in paths {
            let file = std::fs::symlink_metadata(&path).unwrap();
            state +=
                &format!("{path} {:o} {} {}.{}\n", file.mode(), file.ino(), file.mtime(), file.mtime_nsec());
        }
    }
    for file in ["/run/moorage/daemon.pid", "/run/docker.pid"] {
        state += &format!("{file} {}", std::fs::read_to_string(file).unwrap());
    }
    state
        + &root()
            .run("docker", &["network", "inspect", "lan", "--format", "{{.ID}} {{.Created}}"])
            .ok()
            .stdout
}

#[test]
fn a_second_time_there_is_nothing_to_do() {
    let before = state();
    assert!(
        before.contains("/etc/moorage/config.toml") && before.contains("/usr/local/bin/make-dev-container")
    );
    let parent = machine::parent();
    root().moorage(&["setup", "--yes", "--parent", &parent]).ok().says("nothing to do");
    // The interface is known by now.
    let json = root().moorage(&["setup", "--yes", "--format", "json"]).ok().json();
    assert_eq!(json["steps"], serde_json::json!([]));
    root().moorage(&["setup", "--dry-run"]).ok().says("nothing to do");
    assert_eq!(before, state());
}

#[test]
fn another_parent_is_refused_with_the_way_to_change_it() {
    let before = state();
    let said = root().moorage(&["setup", "--yes", "--parent", "lo"]).ends(5);
    said.says(&machine::parent()).says("docker network rm lan").says("/etc/moorage/config.toml").helps();
    assert_eq!(before, state());
}

#[test]
fn another_name_of_the_network_is_refused() {
    root().moorage(&["setup", "--yes", "--network", "other"]).ends(5).says("network = \"other\"").helps();
    root().run("docker", &["network", "inspect", "other"]).ends(1);
}

#[test]
fn only_root_sets_a_host_up() {
    ann().moorage(&["setup", "--yes"]).ends(6).says("sudo").helps();
}
