//! What `doctor` says of a host that works, and of one that does not.

use crate::support::{Scene, ann, root};

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
    fn a_file_of_a_layer_that_was_changed_behind_our_back_is_found() {
        let scene = Scene::with_product("deep");
        let name = scene.make(&ann(), &[]).name();
        scene.inside(&ann(), &name, "echo data >/opt/home/ann/data").ok();
        // One layer of an archive, one that was frozen.
        ann().moorage(&["snapshot-container", &name, "--name", "now"]).ok();
        ann().moorage(&["doctor", "--deep"]).ends(6).helps();
        root().moorage(&["doctor", "--deep"]).ok().says("are what they were when they were finished");
        let change = |file: &str| {
            let found = root().shell(&format!("ls -d /opt/containers/.store/layers/*/{file}")).ok().stdout;
            // As long as before, and as old.
            let script = format!(
                "cd /; for f in {}; do touch -r $f /tmp/old; printf X | dd of=$f conv=notrunc status=none; touch -r /tmp/old $f; done",
                found.replace('\n', " ")
            );
            root().shell(&script).ok();
        };
        let archive = format!("{}/product.tar.zst", scene.project);
        change("home/ann/data");
        root().moorage(&["doctor", "--deep"]).ends(1).says("home/ann/data").says(&name).never_says(&archive);
        change("product/word");
        root().moorage(&["doctor", "--deep"]).ends(1).says("product/word").says(&archive).says("next: ");
        // Nobody else may get these.
        ann().moorage(&["remove-snapshot", &name, "now", "--yes"]).ok();
        scene.remove_all();
        root().moorage(&["prune-containers", "--store", "--yes"]).ok();
        root().moorage(&["doctor", "--deep"]).ok();
    }

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
    /// The MAC of the DISCOVER that doctor has sent.
    fn probe() -> String {
        let said = found("ok").into_iter().find(|finding| finding.contains("a DHCP server answers on"));
        let said = said.expect("the lab's server does not answer");
        let mac = said.split(" to ").last().unwrap();
        mac.chars().take(17).collect()
    }

    const CONFIG: &str = "/etc/moorage/config.toml";
    /// Where the lab's server keeps its files.
    const LAB: &str = "/run/moorage/lab/lab";

    #[test]
    fn the_lan_is_asked_with_one_mac_of_the_site_s_own() {
        let mac = probe();
        assert!(mac.starts_with("02:") && mac.matches(':').count() == 5, "{mac}");
        assert_eq!(probe(), mac);
        let _daemons = Daemons;
        let before = std::fs::read_to_string(CONFIG).unwrap();
        std::fs::write(CONFIG, format!("mac_prefix = \"02:5e:10\"\n{before}")).unwrap();
        world("stop", "daemon");
        world("start", "daemon");
        let inside = std::panic::catch_unwind(probe);
        std::fs::write(CONFIG, before).unwrap();
        world("stop", "daemon");
        world("start", "daemon");
        assert!(inside.as_ref().is_ok_and(|mac| mac.starts_with("02:5e:10:")), "{inside:?}");
        assert_eq!(probe(), mac);
        // The server has seen it, and has no lease for it.
        root()
            .shell(&format!(
                "cd {LAB}; grep -q 'DHCPDISCOVER(lan0).*{mac}' dnsmasq.log; ! grep -q '{mac}' leases"
            ))
            .ok();
    }

    /// A machine in the lab with this address and MAC, and what it runs; gone with this.
    struct Third(Option<std::process::Child>);

    impl Third {
        fn with(address: &str) -> Third {
            root()
                .shell(&format!(
                    "ip netns add third
                     ip -n moorage-lab link add third0 link lan0 netns third address 02:5e:99:00:00:01 type macvlan mode bridge
                     ip -n third address add {address} dev third0; ip -n third link set lo up; ip -n third link set third0 up"
                ))
                .ok();
            Third(None)
        }

        fn serves(&mut self) {
            let arguments = "netns exec third dnsmasq --keep-in-foreground --conf-file=/dev/null --pid-file= --user=root --port=0 \
                 --no-ping --bind-interfaces --interface=third0 --except-interface=lo --dhcp-leasefile=/run/third.leases \
                 --dhcp-range=10.86.0.4,10.86.0.5,1h --log-facility=-";
            let mut command = root().command("ip");
            command.args(arguments.split_whitespace()).stderr(std::process::Stdio::piped());
            let mut child = command.spawn().unwrap();
            let lines = std::io::BufReader::new(child.stderr.take().unwrap());
            let mut lines = std::io::BufRead::lines(lines).map_while(Result::ok);
            assert!(lines.any(|line| line.contains("sockets bound")), "the second server does not start");
            std::thread::spawn(move || lines.for_each(drop));
            self.0 = Some(child);
        }
    }

    impl Drop for Third {
        fn drop(&mut self) {
            if let Some(mut child) = self.0.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
            root().run("ip", &["netns", "del", "third"]);
        }
    }

    #[test]
    fn a_second_server_is_named() {
        let mut third = Third::with("10.86.0.3/24");
        third.serves();
        let said = ann().moorage(&["doctor"]).ok();
        said.says("2 DHCP servers answer on").says("10.86.0.3 (from 02:5e:99:00:00:01) offers");
        drop(third);
        ann().moorage(&["doctor"]).ok().never_says("10.86.0.3");
    }

    #[test]
    fn an_address_that_two_have_is_named() {
        let scene = crate::support::Scene::with_product("twice");
        let made = scene.make(&ann(), &["--address", "10.86.0.9/24@10.86.0.1"]);
        ann().moorage(&["doctor"]).ok();
        // Another machine of the LAN.
        let third = Third::with("10.86.0.9/24");
        let said = ann().moorage(&["doctor"]).ends(1);
        said.says(&format!(
            "10.86.0.9 of {} is used by another machine, too: 02:5e:99:00:00:01",
            made.name()
        ))
        .says("next: find that machine");
        drop(third);
        // Another container of this host.
        let name = format!("{}-b", scene.project);
        let other = scene.make(&ann(), &["--name", &name, "--address", "10.86.0.9/24@10.86.0.1"]);
        let said = ann().moorage(&["doctor"]).ends(1);
        said.says("10.86.0.9 is the address of")
            .says(&made.name())
            .says(&other.name())
            .never_says("another machine");
        scene.remove_all();
        ann().moorage(&["doctor"]).ok();
    }

    #[test]
    fn a_parent_that_takes_every_frame_is_said_to() {
        root().run("ip", &["link", "set", &parent(), "promisc", "on"]).ok();
        let said = ann().moorage(&["doctor"]);
        root().run("ip", &["link", "set", &parent(), "promisc", "off"]).ok();
        said.ok().says("promiscuous: it takes frames of any MAC").says("hypervisor");
    }
}
