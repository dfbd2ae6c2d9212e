//! Addresses that a person chose: no server is asked, and all else is as with those that one grants.

use std::path::PathBuf;

use moorage::lan::{Config, State};
use moorage::spec::network::ConflictCheck;

use crate::dockerd::Dockerd;
use crate::server::Server;
use crate::world::{self, LAN, MAC, NETWORK, PARENT, World, inside, journal, sh, until};

const CHOSEN: &str = "10.77.0.200/24@10.77.0.1";

/// Another machine of the LAN that has the chosen address.
fn squatter(world: &World) -> PathBuf {
    let third = world.new_namespace("third");
    world.lan(&format!("ip link add third9 netns {} link {LAN} type macvlan mode bridge", third.display()));
    inside(&third, "ip address add 10.77.0.200/24 dev third9");
    inside(&third, "ip link set third9 up");
    third
}

#[test]
fn a_chosen_address_needs_no_server_and_outlives_the_daemon() {
    world::run(|world| async move {
        let (lan, dockerd) = world.ready().await;
        let created = dockerd.create_fixed("e1", MAC, CHOSEN).await.unwrap();
        let container = dockerd.join("e1", &created).await;
        assert_eq!(container.address, "10.77.0.200/24");
        let view = until(&lan, MAC, |view| view.is_live()).await;
        assert_eq!((view.state, view.server, view.expires), (State::Static, None, None));
        container.sh("ping -c1 -W5 10.77.0.1");
        sh("ping -c1 -W5 10.77.0.200");
        drop((lan, dockerd));

        let lan = world.start().await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        assert_eq!(until(&lan, MAC, |view| view.is_live()).await.state, State::Static);
        sh("ping -c1 -W5 10.77.0.200");
        dockerd.stop(container).await;
        assert!(!sh("ip route").contains("10.77.0.200"));

        // The same MAC with another one, and then with one that a server grants.
        let created = dockerd.create_fixed("e2", MAC, "10.77.0.201/24@10.77.0.1").await.unwrap();
        let container = dockerd.join("e2", &created).await;
        assert_eq!(container.address, "10.77.0.201/24");
        until(&lan, MAC, |view| view.is_live()).await;
        dockerd.stop(container).await;
        let server = Server::start(&world);
        let container = dockerd.run("e3", MAC).await;
        let view = until(&lan, MAC, |view| view.is_live()).await;
        assert_eq!(view.state, State::Bound);
        container.sh("ping -c1 -W5 10.77.0.1");
        // And back: the server gets its own again.
        dockerd.stop(container).await;
        dockerd.create_fixed("e4", MAC, CHOSEN).await.unwrap();
        server.wait_for("DHCPRELEASE(", 1);
        lan.release(NETWORK, MAC).await.unwrap();
        assert!(world.records().is_empty());
    });
}

#[test]
fn a_chosen_address_that_somebody_has_is_said_and_stays() {
    world::run(|world| async move {
        squatter(&world);
        let (lan, dockerd) = world.ready().await;
        let created = dockerd.create_fixed("e1", MAC, CHOSEN).await.unwrap();
        let container = dockerd.join("e1", &created).await;
        let noticed = |view: &moorage::lan::LeaseView| {
            view.last.as_ref().is_some_and(|entry| entry.text.contains("chosen by hand"))
        };
        until(&lan, MAC, noticed).await;
        assert!(container.addresses().contains("10.77.0.200"));
        assert!(journal(&lan, MAC).await.contains("uses 10.77.0.200 too"));
    });
}

#[test]
fn a_strict_site_starts_nothing_with_an_address_that_somebody_has() {
    world::run(|world| async move {
        squatter(&world);
        let config = Config { conflict_check: ConflictCheck::Before, ..Config::new(world.path("state")) };
        let lan = world.start_with(config).await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        dockerd.create_network(NETWORK, PARENT).await.unwrap();
        let error = dockerd.create_fixed("e1", MAC, CHOSEN).await.unwrap_err();
        assert!(error.contains("10.77.0.200 of demo-main-ann is used by another machine"), "{error}");
        assert!(!sh("ip link").contains("moor-"));
    });
}

#[test]
fn what_is_no_address_is_refused() {
    world::run(|world| async move {
        let (_lan, dockerd) = world.ready().await;
        for bad in ["10.77.0.200", "10.77.0.255/24", "10.77.0.200/24@", "x"] {
            let error = dockerd.create_fixed("e1", MAC, bad).await.unwrap_err();
            assert!(error.contains("moorage.address: "), "{bad}: {error}");
        }
        assert!(world.records().is_empty());
    });
}

#[test]
fn a_foreign_container_may_choose_one_and_leaves_nothing() {
    world::run(|world| async move {
        let (lan, dockerd) = world.ready().await;
        let mac = "02:77:00:00:00:42";
        let container =
            dockerd.run_foreign_with("e1", mac, serde_json::json!({"moorage.address": CHOSEN})).await;
        until(&lan, mac.parse().unwrap(), |view| view.is_live()).await;
        dockerd.stop(container).await;
        assert!(world.records().is_empty());
    });
}
