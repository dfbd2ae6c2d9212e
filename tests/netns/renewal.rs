//! Leases that are renewed, refused, and used though nobody answers.

use std::net::Ipv4Addr;
use std::time::Duration;

use moorage::lan::State;

use crate::dockerd::Dockerd;
use crate::server::Server;
use crate::world::{self, MAC, NETWORK, journal, sh, until};

/// dnsmasq grants no less than two minutes, but says when to renew.
const SOON: [&str; 2] = ["--dhcp-option=option:T1,3", "--dhcp-option=option:T2,6"];
const POOL: &str = "10.77.0.50,10.77.0.99,2m";

#[test]
fn leases_are_renewed_in_use_and_parked() {
    world::run(|world| async move {
        let server = Server::with(&world, POOL, &SOON);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        let acks = server.count("DHCPACK(");
        server.wait_for("DHCPACK(", acks + 2);
        assert!(container.addresses().contains(container.ip()));
        assert_eq!(server.count("DHCPDISCOVER("), 1);

        let address = container.ip().to_owned();
        dockerd.stop(container).await;
        let acks = server.count("DHCPACK(");
        server.wait_for("DHCPACK(", acks + 2);
        let view = until(&lan, MAC, |view| view.state == State::Bound).await;
        assert_eq!(view.address.unwrap().to_string(), address);
        assert_eq!((server.count("DHCPDISCOVER("), server.count("DHCPNAK(")), (1, 0));
    });
}

#[test]
fn a_container_that_ended_without_a_word_is_parked_when_its_renewal_is_due() {
    world::run(|world| async move {
        let server = Server::with(&world, POOL, &SOON);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        let address = until(&lan, MAC, |view| view.is_live()).await.address;
        container.end();
        until(&lan, MAC, |view| !view.attached).await;
        let acks = server.count("DHCPACK(");
        server.wait_for("DHCPACK(", acks + 1);
        assert_eq!(until(&lan, MAC, |view| view.state == State::Bound).await.address, address);
        assert!(!sh("ip route").contains(&address.unwrap().to_string()));
        assert_eq!(server.count("DHCPDISCOVER("), 1);
    });
}

#[test]
fn a_running_container_moves_to_the_address_that_the_server_wants() {
    world::run(|world| async move {
        let server = Server::with(&world, POOL, &SOON);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        let before = until(&lan, MAC, |view| view.is_live()).await.address.unwrap();
        drop(server);
        std::fs::remove_file(world.path("dnsmasq.leases")).unwrap();
        let server = Server::with(&world, "10.77.0.150,10.77.0.199,1h", &["--dhcp-authoritative"]);
        server.wait_for("DHCPNAK(", 1);
        let moved = |view: &moorage::lan::LeaseView| view.is_live() && view.address != Some(before);
        let after = until(&lan, MAC, moved).await.address.unwrap();
        assert!(after >= Ipv4Addr::new(10, 77, 0, 150));
        let addresses = container.addresses();
        assert!(addresses.contains(&after.to_string()), "{addresses}");
        assert!(!addresses.contains(&before.to_string()), "{addresses}");
        container.sh("ping -c1 -W5 10.77.0.1");
        assert!(container.sh("ip route show default").contains("via 10.77.0.1"));
        sh(&format!("ping -c1 -W5 {after}"));
        assert!(!sh("ip route").contains(&before.to_string()));
        assert!(journal(&lan, MAC).await.contains("refused by the DHCP server"));
    });
}

#[test]
fn an_address_that_is_lost_while_dockerd_sets_the_interface_up_stays_until_it_has() {
    world::run(|world| async move {
        let server = Server::with(&world, POOL, &SOON);
        let (lan, dockerd) = world.ready().await;
        let created = dockerd.create_endpoint("e1", MAC).await.unwrap();
        let taken = dockerd.take("e1", &created).await;
        let before = taken.container.ip().to_owned();
        drop(server);
        std::fs::remove_file(world.path("dnsmasq.leases")).unwrap();
        let _server = Server::with(&world, "10.77.0.150,10.77.0.199,1h", &["--dhcp-authoritative"]);
        let moved = |view: &moorage::lan::LeaseView| {
            view.state == State::Bound && view.address.is_some_and(|address| address.to_string() != before)
        };
        let after = until(&lan, MAC, moved).await.address.unwrap();
        let addresses = taken.container.addresses();
        assert!(addresses.contains(&before) && !addresses.contains(&after.to_string()), "{addresses}");

        let container = taken.routed().await;
        until(&lan, MAC, |view| view.is_live()).await;
        let addresses = container.addresses();
        assert!(addresses.contains(&after.to_string()) && !addresses.contains(&before), "{addresses}");
        assert!(container.sh("ip route show default").contains("via 10.77.0.1"));
        container.sh("ping -c1 -W5 10.77.0.1");
    });
}

#[test]
fn a_stopped_container_starts_with_a_new_address_if_the_pool_moved() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (_lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        dockerd.stop(container).await;
        drop(server);
        std::fs::remove_file(world.path("dnsmasq.leases")).unwrap();
        let server = Server::with(&world, "10.77.0.150,10.77.0.199,1h", &["--dhcp-authoritative"]);
        let container = dockerd.run("e2", MAC).await;
        assert!(container.address.starts_with("10.77.0.1"), "{}", container.address);
        assert_eq!(server.count("DHCPNAK("), 1);
        container.sh("ping -c1 -W5 10.77.0.1");
    });
}

#[test]
fn a_container_starts_with_its_lease_while_the_server_is_away() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        let address = container.address.clone();
        dockerd.stop(container).await;
        drop((server, lan, dockerd));
        let lan = world.start_patient(Duration::from_millis(500)).await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        let container = dockerd.run("e2", MAC).await;
        assert_eq!(container.address, address);
        until(&lan, MAC, |view| view.is_live()).await;
        assert!(journal(&lan, MAC).await.contains("no DHCP server answered"));
        assert!(lan.leases()[0].expires.is_some());
        lan.release(NETWORK, MAC).await.unwrap();
    });
}
