//! What `doctor` says of a LAN, asked for real.

use moorage::report::Level;
use moorage::spec::Mac;

use crate::server::Server;
use crate::world::{self, LAN, MAC, NETWORK, inside, until};

const PROBE: Mac = Mac([0x02, 0x77, 0, 0, 0, 0xfe]);

fn said(findings: &[moorage::report::Finding]) -> String {
    findings.iter().map(|f| format!("{f:?}\n")).collect()
}

#[test]
fn a_lan_that_works_is_found_well_and_nothing_is_taken() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        let leases = server.leases();
        let findings = lan.examine(None, PROBE).await;
        assert!(findings.iter().all(|finding| finding.level == Level::Ok), "{}", said(&findings));
        assert!(said(&findings).contains("10.77.0.1 (from"), "{}", said(&findings));
        // The offer was not taken, and the next look asks with the same MAC.
        assert_eq!(server.leases(), leases);
        assert_eq!(server.count(&format!("DHCPREQUEST(lan7) {PROBE}")), 0);
        assert!(server.count(&PROBE.to_string()) > 0);
        assert_eq!(lan.leases().len(), 1);
    });
}

#[test]
fn another_machine_with_a_container_s_address_is_found_and_nobody_else() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let check = moorage::spec::network::ConflictCheck::Off;
        let lan = world
            .start_with(moorage::lan::Config {
                conflict_check: check,
                ..moorage::lan::Config::new(world.path("state"))
            })
            .await;
        let dockerd = crate::dockerd::Dockerd::new(&lan, world.path("")).await;
        dockerd.create_network(NETWORK, world::PARENT).await.unwrap();
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        let findings = said(&lan.examine(None, PROBE).await);
        assert!(!findings.contains("is used by another machine"), "{findings}");
        let third = world.new_namespace("third");
        world.lan(&format!(
            "ip link add third9 netns {} link {LAN} type macvlan mode bridge",
            third.display()
        ));
        inside(&third, "ip link set third9 address 02:77:00:00:00:99");
        inside(&third, &format!("ip address add {}/24 dev third9", container.ip()));
        inside(&third, "ip link set third9 up");
        let findings = said(&lan.examine(None, PROBE).await);
        let word =
            format!("{} of demo-main-ann is used by another machine, too: 02:77:00:00:00:99", container.ip());
        assert!(findings.contains(&word), "{findings}");
    });
}

#[test]
fn a_second_server_and_a_silent_lan_are_told_apart() {
    world::run(|world| async move {
        let (lan, _dockerd) = world.ready().await;
        let findings = lan.examine(Some("nosuch7"), PROBE).await;
        assert!(said(&findings).contains("no DHCP server answers on eth7"), "{}", said(&findings));
        assert!(said(&findings).contains("nosuch7 does not exist"), "{}", said(&findings));

        // A second machine on the LAN hands out addresses, too.
        let _server = Server::start(&world);
        let rogue = world.new_namespace("rogue");
        let netns = rogue.display();
        world.lan(&format!("ip link add link {LAN} name rogue7 netns {netns} type macvlan mode bridge"));
        inside(&rogue, "ip address add 10.77.0.9/24 dev rogue7");
        inside(&rogue, "ip link set rogue7 up");
        let _rogue = Server::at(&world, ("rogue", "rogue7"), "10.77.0.200,10.77.0.220,1h", &[]);
        let findings = lan.examine(None, PROBE).await;
        assert!(said(&findings).contains("2 DHCP servers answer on eth7"), "{}", said(&findings));
        assert!(said(&findings).contains("10.77.0.9 (from"), "{}", said(&findings));
        assert!(lan.journal(NETWORK, PROBE).await.unwrap().is_empty());
    });
}
