//! Who reaches whom: host, container, LAN, by IPv4 and IPv6.

use crate::arp::{Ear, Said};
use crate::kernel::Kernel;
use crate::server::Server;
use crate::world::{self, HOST_ADDRESS, MAC, NETWORK, PARENT, SERVER_ADDRESS, journal, sh, try_sh, until};

#[test]
fn host_and_container_reach_each_other_and_the_host_answers_arp_once() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        sh(&format!("ping -c1 -W5 {}", container.ip()));
        container.sh(&format!("ping -c1 -W5 {HOST_ADDRESS}"));
        world.lan(&format!("ping -c1 -W5 {}", container.ip()));

        // A second answer would come from the shim.
        let arping = world.lan(&format!("busybox arping -c 3 -I lan7 {HOST_ADDRESS}"));
        let answers = arping.lines().filter(|line| line.contains("eply from")).count();
        assert_eq!(answers, 3, "{arping}");
        assert_eq!(sh("ip -brief address show dev mshim-eth7 scope global").split_whitespace().count(), 2);

        let address = container.ip().to_owned();
        dockerd.stop(container).await;
        assert!(!sh("ip route").contains(&address));
    });
}

#[test]
fn the_shim_comes_back_when_somebody_takes_it_away() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        let mut kernel = Kernel::of_this_thread();
        let route = || sh(&format!("ip route show {}", container.ip()));
        sh("ip link delete mshim-eth7");
        kernel.until(|| route().contains("dev mshim-eth7")).await;
        sh(&format!("ping -c1 -W5 {}", container.ip()));

        // The host's own address changes: the routes follow it.
        sh(&format!("ip address del {HOST_ADDRESS}/24 dev {PARENT}"));
        sh(&format!("ip address add 10.77.0.3/24 dev {PARENT}"));
        kernel.until(|| route().contains("src 10.77.0.3")).await;
        sh(&format!("ping -c1 -W5 {}", container.ip()));
    });
}

#[test]
fn host_and_container_reach_each_other_after_a_flap_of_the_parent() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        let mut kernel = Kernel::of_this_thread();
        for _ in 0..2 {
            sh(&format!("ip link set {PARENT} down"));
            sh(&format!("ip link set {PARENT} up"));
            kernel
                .until(|| sh(&format!("ip route show {}", container.ip())).contains("dev mshim-eth7"))
                .await;
            sh(&format!("ping -c1 -W5 {}", container.ip()));
            container.sh(&format!("ping -c1 -W5 {HOST_ADDRESS}"));
            container.sh(&format!("ping -c1 -W5 {SERVER_ADDRESS}"));
        }
    });
}

#[test]
fn the_lan_is_told_that_an_address_is_another_machine_s_now() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        let known = || world.lan(&format!("ip neigh show {} dev lan7", container.ip()));
        let mut kernel = Kernel::within(&world.path("lan"));
        // What a router remembers of the machine that had it before.
        world.lan(&format!(
            "ip neigh replace {} lladdr 02:77:00:00:00:dd dev lan7 nud reachable",
            container.ip()
        ));
        until(&lan, MAC, |view| view.is_live()).await;
        // Asked of nobody (RFC 5227, 2.3).
        kernel.until(|| known().contains(&MAC.to_string())).await;
    });
}

#[test]
fn who_uses_an_address_says_so_before_it_is_probed_for_to_the_end() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let ear = Ear::on(&world);
        let container = dockerd.run("e1", MAC).await;
        let address = container.ip().parse().unwrap();
        until(&lan, MAC, |view| view.is_live()).await;
        let said: Vec<Said> = std::iter::repeat_with(|| ear.next(MAC, address)).take(3).collect();
        assert_eq!(said, [Said::Probe, Said::Announcement, Said::Probe]);
    });
}

#[test]
fn a_host_without_an_address_on_the_lan_is_told_so() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        sh(&format!("ip address flush dev {PARENT}"));
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        container.sh(&format!("ping -c1 -W5 {SERVER_ADDRESS}"));
        assert!(journal(&lan, MAC).await.contains("this host has no address of"));
    });
}

#[test]
fn a_container_finds_its_ipv6_address_though_docker_turns_ipv6_off() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        let mut kernel = Kernel::within(&container.sandbox);
        until(&lan, MAC, |view| view.is_live()).await;
        kernel.until(|| container.sh("ip -6 address show scope global -tentative").contains("fd77:")).await;
        let found = lan.ipv6(NETWORK, MAC).await.unwrap();
        assert!(found[0].to_string().starts_with("fd77:"), "{found:?}");
        world.lan(&format!("ping -6 -c1 -W5 {}", found[0]));
        container.sh("ping -6 -c1 -W5 fd77::1");
        // Neither the shim nor the hidden namespace asks for addresses.
        assert!(!sh("ip -6 address show dev mshim-eth7").contains("inet6"));
        assert!(try_sh("ip -6 address show dev mshim-eth7").is_ok());
    });
}
