//! What containers take, the limits they have, and what is left of them.

use crate::support::{Scene, ann, bob, carol, root};

fn docker(arguments: &[&str]) -> String {
    root().run("docker", arguments).ok().stdout.trim().to_owned()
}

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
    // The kernel's own word, from where the container sees it.
    let seen = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || true";
    let of_kernel = format!("cat /proc/1/cgroup | sed -n 's/^[0-9]*:memory://p'; {seen}");
    scene.inside(&ann(), &name, &of_kernel).ok();
    // One alone leaves the others; and it is what the container is made anew with.
    ann().moorage(&["resize-container", &name, "--memory", "1GiB"]).ok();
    ann().moorage(&["recreate-container", &name, "--yes"]).ok();
    let now = docker(&["inspect", "-f", limits, &name]);
    assert!(now.starts_with(&format!("{} 900 512 ", 1 << 30)), "{now}");
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
