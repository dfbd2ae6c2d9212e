//! What `doctor` says of a host that works, and of one that does not.

use crate::support::{ann, root};

/// The findings of one level, as JSON.
fn found(level: &str) -> Vec<String> {
    let report = ann().moorage(&["doctor", "--format", "json"]).json();
    let all = report["findings"].as_array().unwrap_or_else(|| panic!("no findings in {report:#}"));
    all.iter().filter(|finding| finding["level"] == level).map(ToString::to_string).collect()
}

#[test]
fn a_host_that_works_has_no_problem_whoever_asks() {
    assert_eq!(found("problem"), Vec::<String>::new());
    ann().moorage(&["doctor"]).ok().says("a DHCP server answers on").says("Docker Engine");
    root().moorage(&["doctor"]).ok();
    // Nothing was taken: no lease is left, on either side.
    let leases = root().moorage(&["list-leases", "--format", "json"]).ok().json();
    assert!(!leases.to_string().contains("doctor"), "{leases:#}");
}

mod alone {
    use super::*;
    use crate::support::machine::{Daemons, parent, world};

    #[test]
    fn what_does_not_work_is_named_with_what_to_do() {
        let _daemons = Daemons;
        world("stop", "dockerd");
        ann().moorage(&["doctor"]).ends(1).says("the Docker Engine does not answer").says("next: ");
        // The LAN is looked at all the same.
        ann().moorage(&["doctor"]).ends(1).says("a DHCP server answers on");
        world("start", "dockerd");

        root().run("ip", &["link", "set", &parent(), "down"]).ok();
        let said = ann().moorage(&["doctor"]);
        root().run("ip", &["link", "set", &parent(), "up"]).ok();
        said.ends(1).says("is down").says(&format!("ip link set {} up", parent()));

        world("stop", "daemon");
        ann().moorage(&["doctor"]).ends(1).says("the daemon is not running");
    }
}
