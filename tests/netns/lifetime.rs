//! A lease over the life of its container, of the driver, and of dockerd.

use std::time::Duration;

use moorage::lan::Config;
use moorage::spec::Mac;

use crate::dockerd::Dockerd;
use crate::kernel::Kernel;
use crate::server::Server;
use crate::world::{self, MAC, NETWORK, PARENT, journal, sh, try_sh, until};

#[test]
fn a_container_gets_an_address_of_the_lan_and_keeps_it_over_a_restart() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let first = dockerd.run("e1", MAC).await;
        let view = until(&lan, MAC, |view| view.is_live()).await;
        assert_eq!(format!("{}/24", view.address.unwrap()), first.address);
        assert_eq!(view.gateway, Some("10.77.0.1".parse().unwrap()));
        assert_eq!(view.dns, ["10.77.0.1".parse::<std::net::Ipv4Addr>().unwrap()]);
        assert_eq!(view.domain.as_deref(), Some("corp.example"));
        assert_eq!(first.mac, Some(MAC.to_string()));
        assert!(server.leases().contains("demo-main-ann"), "{}", server.leases());
        first.sh("ping -c1 -W5 10.77.0.1");

        let discovers = server.count("DHCPDISCOVER(");
        let address = first.address.clone();
        dockerd.stop(first).await;
        until(&lan, MAC, |view| !view.attached).await;
        assert_eq!(world.records().len(), 1);
        let second = dockerd.run("e2", MAC).await;
        assert_eq!(second.address, address);
        assert_eq!(server.count("DHCPDISCOVER("), discovers, "it was not confirmed but sought anew");
        until(&lan, MAC, |view| view.is_live()).await;
        second.sh("ping -c1 -W5 10.77.0.1");
    });
}

#[test]
fn domains_of_the_lease_are_handed_on_in_their_order() {
    world::run(|world| async move {
        let more = ["--dhcp-option=option:domain-search,lab.example,corp.example"];
        let _server = Server::with(&world, "10.77.0.50,10.77.0.99,1h", &more);
        let (lan, _dockerd) = world.ready().await;
        let lease = lan.reserve(NETWORK, MAC, "demo-main-ann").await.unwrap();
        assert_eq!(lease.search, ["corp.example", "lab.example"]);
    });
}

#[test]
fn a_reserved_address_is_attached_without_a_packet() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let reserved = lan.reserve(NETWORK, MAC, "demo-main-ann").await.unwrap();
        assert!(!reserved.attached);
        let packets = server.requests();
        let container = dockerd.run("e1", MAC).await;
        assert_eq!(container.ip(), reserved.address.unwrap().to_string());
        until(&lan, MAC, |view| view.is_live()).await;
        assert_eq!(server.requests(), packets);
        // Asked again while it runs, it is there at once.
        assert_eq!(lan.reserve(NETWORK, MAC, "demo-main-ann").await.unwrap().address, reserved.address);
        assert_eq!(server.requests(), packets);
    });
}

#[test]
fn a_new_process_takes_over_what_runs() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        let before = until(&lan, MAC, |view| view.is_live()).await;
        let requests = server.count("DHCPREQUEST(");
        let routes = sh("ip route show dev mshim-eth7");
        drop((lan, dockerd));

        let lan = world.start().await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        let after = until(&lan, MAC, |view| view.is_live()).await;
        assert_eq!(after.address, before.address);
        // It asks at once whether that is still right, and disturbs nothing.
        server.wait_for("DHCPREQUEST(", requests + 1);
        until(&lan, MAC, |view| view.state == moorage::lan::State::Bound).await;
        assert_eq!(sh("ip route show dev mshim-eth7"), routes);
        sh(&format!("ping -c1 -W5 {}", container.ip()));
        let address = container.address.clone();
        dockerd.stop(container).await;
        assert_eq!(dockerd.run("e2", MAC).await.address, address);
    });
}

#[test]
fn a_new_process_parks_what_ended_meanwhile_and_remembers_the_network() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        let address = container.address.clone();
        drop((lan, dockerd));
        container.end();

        let lan = world.start().await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        until(&lan, MAC, |view| !view.attached && view.state.is_bound()).await;
        assert!(journal(&lan, MAC).await.contains("ended while moorage was away"));
        assert_eq!(dockerd.run("e2", MAC).await.address, address);
    });
}

#[test]
fn a_process_that_ended_between_create_and_join_is_not_missed() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let created = dockerd.create_endpoint("e1", MAC).await.unwrap();
        drop((lan, dockerd));
        let lan = world.start().await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        let container = dockerd.join("e1", &created).await;
        until(&lan, MAC, |view| view.is_live()).await;
        container.sh("ping -c1 -W5 10.77.0.1");
    });
}

#[test]
fn an_endpoint_that_dockerd_forgot_makes_way_for_the_next() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let killed = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        // dockerd and the container die: neither Leave nor DeleteEndpoint.
        killed.end();
        let next = dockerd.run("e2", MAC).await;
        assert_eq!(next.address, killed.address);
        until(&lan, MAC, |view| view.is_live()).await;
        // What dockerd says late of the old one does not concern the new.
        let id = serde_json::json!({"NetworkID": NETWORK, "EndpointID": "e1"});
        dockerd.call("Leave", id.clone()).await.unwrap();
        dockerd.call("DeleteEndpoint", id).await.unwrap();
        assert!(until(&lan, MAC, |_| true).await.is_live());
        next.sh("ping -c1 -W5 10.77.0.1");
    });
}

#[test]
fn a_removed_container_gives_its_address_back() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        dockerd.stop(container).await;
        assert!(server.leases().contains(&MAC.to_string()));
        lan.release(NETWORK, MAC).await.unwrap();
        server.wait_for("DHCPRELEASE(", 1);
        // dnsmasq writes its file before it logs the next message.
        lan.reserve(NETWORK, Mac([2, 0x77, 0, 0, 0, 9]), "other").await.unwrap();
        assert!(!server.leases().contains(&MAC.to_string()), "{}", server.leases());
        assert_eq!(world.records().len(), 1);
        lan.release(NETWORK, MAC).await.unwrap();
        assert!(lan.leases().iter().all(|lease| lease.mac != MAC));
    });
}

#[test]
fn a_foreign_container_gets_a_mac_and_gives_its_address_back() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run_foreign("e1", "").await;
        let mac: Mac = container.mac.as_deref().unwrap().parse().unwrap();
        assert!(until(&lan, mac, |view| view.is_live()).await.address.is_some());
        dockerd.stop(container).await;
        server.wait_for("DHCPRELEASE(", 1);
        assert!(world.records().is_empty());

        // A MAC that a person gave keeps its address.
        let given = "02:77:00:00:00:42";
        let container = dockerd.run_foreign("e2", given).await;
        assert_eq!(container.mac, None);
        let address = container.address.clone();
        dockerd.stop(container).await;
        assert_eq!(dockerd.run_foreign("e3", given).await.address, address);
        assert_eq!(server.count("DHCPRELEASE("), 1);
    });
}

#[test]
fn nothing_is_left_when_the_network_goes() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        dockerd.stop(container).await;
        assert!(try_sh("ip link show mshim-eth7").is_ok());
        let id = serde_json::json!({"NetworkID": NETWORK});
        dockerd.call("DeleteNetwork", id.clone()).await.unwrap();
        dockerd.call("DeleteNetwork", id).await.unwrap();
        server.wait_for("DHCPRELEASE(", 1);
        assert!(world.records().is_empty());
        assert!(lan.leases().is_empty());
        let links = sh("ip -brief link");
        assert_eq!(links.lines().count(), 2, "{links}");
        assert!(links.contains(PARENT));
        assert!(dockerd.create_endpoint("e9", MAC).await.unwrap_err().contains("not known to moorage"));
    });
}

#[test]
fn a_start_that_dockerd_never_finished_is_let_go() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let config = Config { join_timeout: Duration::from_millis(300), ..Config::new(world.path("state")) };
        let lan = world.start_with(config).await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        dockerd.create_network(NETWORK, PARENT).await.unwrap();
        let mut kernel = Kernel::of_this_thread();
        // dockerd is killed between CreateEndpoint and Join.
        dockerd.create_endpoint("e1", MAC).await.unwrap();
        kernel.until(|| !sh("ip -brief link").contains("moor-")).await;
        until(&lan, MAC, |view| view.state.is_bound() && !view.attached).await;
        // The lease of one that nobody will start again goes back.
        dockerd.create_foreign("e2", "").await;
        server.wait_for("DHCPRELEASE(", 1);
        kernel.until(|| !sh("ip -brief link").contains("moor-")).await;
        // Its own next start is as ever.
        let container = dockerd.run("e3", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        container.sh("ping -c1 -W5 10.77.0.1");
    });
}

#[test]
fn a_new_dockerd_is_told_from_the_old_and_what_that_left_goes() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        lan.called_by(1000);
        let mut engines = lan.engines();
        engines.mark_unchanged();
        let pinned = dockerd.run("e1", MAC).await;
        let foreign = dockerd.run_foreign("e2", "").await;
        let alive = dockerd.run_foreign("e3", "02:77:00:00:00:33").await;
        let given = "02:77:00:00:00:33".parse().unwrap();
        until(&lan, MAC, |view| view.is_live()).await;
        until(&lan, foreign.mac.as_deref().unwrap().parse().unwrap(), |view| view.is_live()).await;
        until(&lan, given, |view| view.is_live()).await;
        pinned.end();
        foreign.end();
        lan.called_by(1000);
        assert!(!engines.has_changed().unwrap());
        assert!(until(&lan, MAC, |_| true).await.attached);
        lan.called_by(2000);
        assert!(engines.has_changed().unwrap());
        lan.collect_stale().await;
        until(&lan, MAC, |view| !view.attached && view.state.is_bound()).await;
        server.wait_for("DHCPRELEASE(", 1);
        // With live-restore containers outlive their dockerd.
        assert!(until(&lan, given, |_| true).await.is_live());
        alive.sh("ping -c1 -W5 10.77.0.1");
        assert_eq!(dockerd.run("e4", MAC).await.address, pinned.address);
    });
}
