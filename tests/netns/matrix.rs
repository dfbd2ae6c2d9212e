//! What every DHCP server has to be good with, against three of them: dnsmasq, udhcpd and Kea.

use std::time::Duration;

use dhcproto::v4::{DhcpOption, MessageType, OptionCode};
use moorage::lan::{LeaseView, State};
use moorage::spec::Mac;

use crate::dhcpd::{Dnsmasq, Grants, Kea, Make, Running, Udhcpd};
use crate::dockerd::Dockerd;
use crate::kernel::Kernel;
use crate::process::{self, Process};
use crate::wire::{Lost, Seen, Wire};
use crate::world::{self, MAC, NETWORK, PARENT, World, inside, journal, sh, until};

const OTHER: Mac = Mac([0x02, 0x77, 0, 0, 0, 2]);

/// Each scenario as a test against each server.
macro_rules! matrix {
    ($($scenario:ident)*) => {
        matrix!(@ dnsmasq Dnsmasq $($scenario)*);
        matrix!(@ udhcpd Udhcpd $($scenario)*);
        matrix!(@ kea Kea $($scenario)*);
    };
    (@ $module:ident $make:ident $($scenario:ident)*) => {
        mod $module {
            $(
                #[test]
                fn $scenario() {
                    crate::world::run(super::$scenario::<super::$make>);
                }
            )*
        }
    };
}

matrix! {
    first_lease
    renewed
    rebound
    refused_after_the_pool_moved
    silent_then_back
    squatted
    restarted_twenty_times
    killed_while_selecting
    killed_while_requesting
    killed_while_bound
    killed_while_rebooting
    killed_while_renewing
    killed_while_rebinding
    released_with_the_container
}

/// dnsmasq grants no less than two minutes, which only the soak run waits for.
mod ended {
    mod udhcpd {
        #[test]
        fn expired() {
            crate::world::run(super::super::expired::<super::super::Udhcpd>);
        }
    }
    mod kea {
        #[test]
        fn expired() {
            crate::world::run(super::super::expired::<super::super::Kea>);
        }
    }
    mod dnsmasq {
        #[test]
        #[ignore = "dnsmasq grants no lease shorter than two minutes"]
        fn soak_expired() {
            crate::world::run_long(super::super::expired::<super::super::Dnsmasq>);
        }
    }
}

fn broadcast(seen: &Seen) -> bool {
    seen.broadcast
}

fn unicast(seen: &Seen) -> bool {
    !seen.broadcast
}

fn any(_: &Seen) -> bool {
    true
}

fn option(seen: &Seen, code: OptionCode) -> Option<&DhcpOption> {
    seen.message.opts().get(code)
}

async fn first_lease<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, Grants::LONG);
    let (lan, dockerd) = world.ready().await;
    let container = dockerd.run("e1", MAC).await;
    let view = until(&lan, MAC, |view| view.is_live()).await;
    assert_eq!(container.address, format!("{}/24", view.address.unwrap()));
    container.sh("ping -c1 -W5 10.77.0.1");
    sh(&format!("ping -c1 -W5 {}", container.ip()));

    let discover = wire.after(0, MessageType::Discover, any);
    assert_eq!(discover.message.chaddr(), MAC.0);
    let client = DhcpOption::ClientIdentifier([&[1], &MAC.0[..]].concat());
    for seen in [&discover, &wire.after(0, MessageType::Request, any)] {
        assert_eq!(option(seen, OptionCode::ClientIdentifier), Some(&client));
        assert_eq!(option(seen, OptionCode::Hostname), Some(&DhcpOption::Hostname("demo-main-ann".into())));
        assert!(option(seen, OptionCode::ParameterRequestList).is_some());
        // Flags S and E, and a partial name in wire form (RFC 4702).
        let fqdn = b"\x51\x11\x05\0\0\x0ddemo-main-ann";
        assert!(seen.payload.windows(fqdn.len()).any(|window| window == fqdn));
    }
    assert_eq!(wire.count(MessageType::Discover), 1);
}

async fn renewed<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, Grants::SHORT);
    let (lan, dockerd) = world.ready().await;
    let container = dockerd.run("e1", MAC).await;
    until(&lan, MAC, |view| view.is_live()).await;
    for _ in 0..2 {
        let renewal = wire.next(MessageType::Request, unicast);
        assert_eq!(renewal.message.ciaddr().to_string(), container.ip());
        for forbidden in [OptionCode::RequestedIpAddress, OptionCode::ServerIdentifier] {
            assert_eq!(option(&renewal, forbidden), None);
        }
        wire.next(MessageType::Ack, any);
    }
    // And for a container that is stopped, by broadcast.
    let address = container.address.clone();
    dockerd.stop(container).await;
    wire.next(MessageType::Request, broadcast);
    wire.next(MessageType::Ack, any);
    assert_eq!((wire.count(MessageType::Discover), wire.count(MessageType::Nak)), (1, 0));
    assert_eq!(dockerd.run("e2", MAC).await.address, address);
}

async fn rebound<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, Grants::SHORT);
    let (lan, dockerd) = world.ready().await;
    let container = dockerd.run("e1", MAC).await;
    until(&lan, MAC, |view| view.is_live()).await;
    wire.lose(&[Lost::Unicast]);
    until(&lan, MAC, |view| view.state == State::Renewing).await;
    let rebinding = wire.next(MessageType::Request, broadcast);
    assert_eq!(rebinding.message.ciaddr().to_string(), container.ip());
    assert_eq!(option(&rebinding, OptionCode::ServerIdentifier), None);
    until(&lan, MAC, |view| view.state == State::Bound).await;
    assert!(container.addresses().contains(container.ip()));
    assert_eq!(wire.count(MessageType::Discover), 1);
}

async fn expired<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, Grants::FLEETING);
    let (lan, dockerd) = world.ready().await;
    let container = dockerd.run("e1", MAC).await;
    until(&lan, MAC, |view| view.is_live()).await;
    wire.silence();
    let gone = Duration::from_secs(u64::from(M::LEAST.max(Grants::FLEETING.lease)) + 20);
    world::until_within(gone, &lan, MAC, |view| view.address.is_none()).await;
    assert!(!container.addresses().contains("10.77.0."), "{}", container.addresses());
    assert!(!sh("ip route").contains(container.ip()));
    wire.lose(&[]);
    let view = until(&lan, MAC, |view| view.is_live()).await;
    assert!(container.addresses().contains(&view.address.unwrap().to_string()));
    container.sh("ping -c1 -W5 10.77.0.1");
    let journal = journal(&lan, MAC).await;
    assert!(journal.contains("its lease ran out and no server renewed it"), "{journal}");
}

async fn refused_after_the_pool_moved<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    let server = Running::start::<M>(&world, Grants::SHORT);
    let (lan, dockerd) = world.ready().await;
    let container = dockerd.run("e1", MAC).await;
    let before = until(&lan, MAC, |view| view.is_live()).await.address;
    drop(server);
    M::forget(&world);
    let _server = Running::start::<M>(&world, Grants::LONG.pool(150, 199));
    let moved = |view: &LeaseView| view.is_live() && view.address != before;
    let container = match M::REFUSES_RENEWALS {
        true => container,
        // Asked whether the address is still right, every server answers.
        false => {
            dockerd.stop(container).await;
            dockerd.run("e2", MAC).await
        }
    };
    let after = until(&lan, MAC, moved).await.address.unwrap();
    assert!(after.octets()[3] >= 150, "{after}");
    assert_eq!(wire.count(MessageType::Nak), 1);
    let addresses = container.addresses();
    assert!(addresses.contains(&after.to_string()), "{addresses}");
    assert!(!addresses.contains(&before.unwrap().to_string()), "{addresses}");
    container.sh("ping -c1 -W5 10.77.0.1");
    sh(&format!("ping -c1 -W5 {after}"));
    assert!(journal(&lan, MAC).await.contains("refused by the DHCP server"));
}

async fn silent_then_back<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, Grants::LONG);
    wire.silence();
    let lan = world.start_patient(Duration::from_millis(300)).await;
    let dockerd = Dockerd::new(&lan, world.path("")).await;
    dockerd.create_network(NETWORK, PARENT).await.unwrap();
    let container = dockerd.run("e1", MAC).await;
    assert_eq!(container.address, "");
    until(&lan, MAC, |view| view.attached && view.address.is_none()).await;
    assert!(!container.addresses().contains("10.77."));

    wire.lose(&[]);
    let view = until(&lan, MAC, |view| view.is_live()).await;
    assert!(container.addresses().contains(&view.address.unwrap().to_string()));
    assert!(container.sh("ip route show default").contains("via 10.77.0.1"));
    container.sh("ping -c1 -W5 10.77.0.1");
    sh(&format!("ping -c1 -W5 {}", view.address.unwrap()));
}

async fn squatted<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, Grants::LONG);
    let (lan, dockerd) = world.ready().await;
    let container = dockerd.run("e1", MAC).await;
    let squatted = container.ip().to_owned();
    dockerd.stop(container).await;
    let third = world.new_namespace("third");
    world.lan(&format!(
        "ip link add third9 netns {} link {} type macvlan mode bridge",
        third.display(),
        world::LAN
    ));
    inside(&third, &format!("ip address add {squatted}/24 dev third9"));
    inside(&third, "ip link set third9 up");

    // It starts at once with the address that the server confirms, and then the probe is answered.
    let container = dockerd.run("e2", MAC).await;
    assert_eq!(container.ip(), squatted);
    let elsewhere = |view: &LeaseView| view.is_live() && view.address.unwrap().to_string() != squatted;
    let address = until(&lan, MAC, elsewhere).await.address.unwrap();
    let decline = wire.after(0, MessageType::Decline, any);
    let declined = DhcpOption::RequestedIpAddress(squatted.parse().unwrap());
    assert_eq!(option(&decline, OptionCode::RequestedIpAddress), Some(&declined));
    assert!(option(&decline, OptionCode::ServerIdentifier).is_some());
    assert!(!container.addresses().contains(&format!("{squatted}/")), "{}", container.addresses());
    assert!(container.addresses().contains(&address.to_string()));
    container.sh("ping -c1 -W5 10.77.0.1");
    let journal = journal(&lan, MAC).await;
    assert!(journal.contains(&format!("{squatted} lost: ")) && journal.contains("uses it too"), "{journal}");
}

async fn restarted_twenty_times<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, Grants::LONG);
    let (lan, dockerd) = world.ready().await;
    let first = dockerd.run("e0", MAC).await;
    let address = first.address.clone();
    let mut container = first;
    for turn in 1..=20 {
        dockerd.stop(container).await;
        container = dockerd.run(&format!("e{turn}"), MAC).await;
        assert_eq!(container.address, address, "{turn}");
    }
    until(&lan, MAC, |view| view.is_live()).await;
    container.sh("ping -c1 -W5 10.77.0.1");
    assert_eq!((wire.count(MessageType::Discover), wire.count(MessageType::Nak)), (1, 0));
    assert_eq!(world.records().len(), 1);
    assert!(!sh("ip -brief link").contains("moor-"));
}

async fn released_with_the_container<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    // The pool has one address: who gets it next proves that the server took it back.
    let _server = Running::start::<M>(&world, Grants::LONG.pool(50, 50));
    let (lan, dockerd) = world.ready().await;
    let container = dockerd.run("e1", MAC).await;
    dockerd.stop(container).await;
    lan.release(NETWORK, MAC).await.unwrap();
    let release = wire.after(0, MessageType::Release, any);
    assert_eq!(release.message.ciaddr().to_string(), "10.77.0.50");
    assert!(world.records().is_empty());
    let next = lan.reserve(NETWORK, OTHER, "other").await.unwrap();
    assert_eq!(next.address.unwrap().to_string(), "10.77.0.50");
}

/// Waits, by the kernel's word, until the container has an address, and proves it.
async fn reachable(container: &crate::dockerd::Container) {
    let mut kernel = Kernel::within(&container.sandbox);
    kernel.until(|| container.addresses().contains("10.77.0.")).await;
    container.sh("ping -c1 -W5 10.77.0.1");
}

/// A daemon is killed while it looks for an address; what dockerd then asks the next one succeeds.
async fn killed_on_the_way<M: Make>(world: World, lost: Lost, at: MessageType) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, Grants::LONG);
    let process = Process::start(&world);
    let dockerd = process.dockerd();
    dockerd.create_network(NETWORK, PARENT).await.unwrap();
    wire.lose(&[lost]);
    let asking = dockerd.clone();
    let asked = tokio::spawn(async move { asking.try_create_endpoint("e1", MAC).await });
    tokio::task::block_in_place(|| wire.after(0, at, any));
    process.kill();
    assert!(asked.await.unwrap().is_err(), "dockerd got an answer of a daemon that was killed");

    wire.lose(&[]);
    let process = Process::start(&world);
    let container = process.dockerd().run("e1", MAC).await;
    assert!(container.address.starts_with("10.77.0."), "{}", container.address);
    reachable(&container).await;
    assert_eq!(process::record(&world)["mac"], MAC.to_string());
}

async fn killed_while_selecting<M: Make>(world: World) {
    killed_on_the_way::<M>(world, Lost::Offers, MessageType::Offer).await;
}

async fn killed_while_requesting<M: Make>(world: World) {
    killed_on_the_way::<M>(world, Lost::Verdicts, MessageType::Ack).await;
}

async fn killed_while_rebooting<M: Make>(world: World) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, Grants::LONG);
    let process = Process::start(&world);
    let dockerd = process.dockerd();
    dockerd.create_network(NETWORK, PARENT).await.unwrap();
    let container = dockerd.run("e1", MAC).await;
    let address = container.address.clone();
    dockerd.stop(container).await;
    wire.lose(&[Lost::Verdicts]);
    let begin = wire.seen().len();
    let asking = dockerd.clone();
    let asked = tokio::spawn(async move { asking.try_create_endpoint("e2", MAC).await });
    tokio::task::block_in_place(|| wire.after(begin, MessageType::Ack, any));
    process.kill();
    assert!(asked.await.unwrap().is_err(), "dockerd got an answer of a daemon that was killed");

    wire.lose(&[]);
    let process = Process::start(&world);
    let container = process.dockerd().run("e2", MAC).await;
    assert_eq!(container.address, address);
    reachable(&container).await;
    assert_eq!(wire.count(MessageType::Discover), 1);
}

/// A daemon is killed while a container runs and its lease is where `reach` brings it; the next one keeps both.
async fn killed_in_use<M: Make>(world: World, grants: Grants, reach: impl FnOnce(&Wire)) {
    let wire = Wire::interpose(&world).await;
    let _server = Running::start::<M>(&world, grants);
    let process = Process::start(&world);
    let dockerd = process.dockerd();
    dockerd.create_network(NETWORK, PARENT).await.unwrap();
    let container = dockerd.run("e1", MAC).await;
    reachable(&container).await;
    tokio::task::block_in_place(|| reach(&wire));
    process.kill();
    // The container does not notice.
    container.sh("ping -c1 -W5 10.77.0.1");
    wire.lose(&[]);
    let begin = wire.seen().len();
    let process = Process::start(&world);
    // It asks at once whether the address is still right.
    tokio::task::block_in_place(|| {
        wire.after(begin, MessageType::Request, |seen| seen.message.ciaddr().to_string() == container.ip());
        wire.after(begin, MessageType::Ack, any);
    });
    let address = container.address.clone();
    assert!(container.addresses().contains(container.ip()));
    container.sh("ping -c1 -W5 10.77.0.1");
    assert_eq!(wire.count(MessageType::Discover), 1);
    let dockerd = process.dockerd();
    dockerd.stop(container).await;
    assert_eq!(dockerd.run("e2", MAC).await.address, address);
}

async fn killed_while_bound<M: Make>(world: World) {
    killed_in_use::<M>(world, Grants::LONG, |_| {}).await;
}

async fn killed_while_renewing<M: Make>(world: World) {
    killed_in_use::<M>(world, Grants::SHORT, |wire| {
        wire.lose(&[Lost::Verdicts]);
        wire.next(MessageType::Request, unicast);
    })
    .await;
}

async fn killed_while_rebinding<M: Make>(world: World) {
    killed_in_use::<M>(world, Grants::SHORT, |wire| {
        wire.lose(&[Lost::Verdicts]);
        wire.next(MessageType::Request, broadcast);
    })
    .await;
}
