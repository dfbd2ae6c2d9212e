//! The world itself: if these fail, no other failure means anything.

use crate::support::{machine, root, world};

#[test]
fn dockerd_answers_and_has_the_images() {
    let version = root().run("docker", &["version", "--format", "{{.Server.Version}}"]).ok();
    assert!(!version.stdout.trim().is_empty(), "{}", version.whole());
    root().run("docker", &["image", "inspect", "moorage/demo"]).ok();
}

#[test]
fn the_daemon_answers_and_the_network_is_there() {
    root().moorage(&["list-containers", "--format", "json"]).ok();
    let network = root()
        .run("docker", &["network", "inspect", "lan", "--format", "{{.Driver}} {{.Options.parent}}"])
        .ok();
    assert_eq!(network.stdout.trim(), format!("moorage {}", machine::parent()));
}

#[test]
fn nothing_of_the_machines_network_is_here() {
    // What leaves this world would be somebody's real LAN: there is no way out.
    root().shell("ip route get 192.0.2.1 | grep -q . && ! ping -c 1 -W 1 192.0.2.1").ends(1);
    assert!(world().join("storage").is_dir());
}

/// The stock client on a macvlan of the lab: whatever moorage does wrong, the LAN is right.
#[test]
fn the_lab_leases_addresses_to_macvlans() {
    let name = format!("w{}", std::process::id());
    let script = format!(
        "ip link add {name} link {parent} type macvlan mode bridge; \
         trap 'ip link del {name}' EXIT; \
         ip link set {name} up; \
         udhcpc -i {name} -f -q -n -t 5 -T 1 -s /bin/true -O router -x hostname:{name}",
        parent = machine::parent()
    );
    root().shell(&script).ok().says("lease of");
}

#[test]
fn people_are_who_they_are() {
    assert_eq!(crate::support::ann().run("id", &["-un"]).ok().stdout.trim(), "ann");
    crate::support::ann().run("id", &["-Gn"]).ok().says("support");
    crate::support::carol().run("id", &["-Gn"]).ok().never_says("support");
    crate::support::ann().run("cat", &["/etc/shadow"]).ends(1);
    // Nobody but root has Docker: moorage's promise is that nobody needs it.
    crate::support::ann().run("docker", &["ps"]).ends(1);
}
