//! What a lease says beside the address: routes, MTU, names, time servers; and what of it changes in a running container.

use crate::server::Server;
use crate::world::{self, MAC, World, journal, until};

const POOL: &str = "10.77.0.50,10.77.0.99,2m";
/// dnsmasq grants no less than two minutes, but says when to renew.
const SOON: [&str; 2] = ["--dhcp-option=option:T1,3", "--dhcp-option=option:T2,60"];

fn server(world: &World, options: &[&str]) -> Server {
    Server::with(world, POOL, &[&SOON[..], options].concat())
}

#[test]
fn classless_routes_and_the_mtu_are_set_and_follow_the_server() {
    world::run(|world| async move {
        let routes = "--dhcp-option=121,10.9.1.0/24,10.77.0.2,0.0.0.0/0,10.77.0.3";
        let first = server(&world, &[routes, "--dhcp-option=option:mtu,1400"]);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        let mut kernel = crate::kernel::Kernel::within(&container.sandbox);
        let route = || container.sh("ip route");
        let mtu = || container.sh("ip link show type macvlan");
        kernel.until(|| route().contains("10.9.1.0/24 via 10.77.0.2")).await;
        kernel.until(|| mtu().contains("mtu 1400")).await;
        // With option 121 the router of option 3 does not count (RFC 3442).
        assert!(route().contains("default via 10.77.0.3") && !route().contains("10.77.0.1 "), "{}", route());

        drop(first);
        let other = "--dhcp-option=121,10.9.2.0/24,10.77.0.2,0.0.0.0/0,10.77.0.4";
        let second = server(&world, &[other, "--dhcp-option=option:mtu,1300"]);
        kernel.until(|| route().contains("10.9.2.0/24 via 10.77.0.2")).await;
        kernel.until(|| mtu().contains("mtu 1300")).await;
        assert!(route().contains("default via 10.77.0.4") && !route().contains("10.9.1.0"), "{}", route());

        drop(second);
        let _third = server(&world, &["--dhcp-option=option:mtu,9000"]);
        kernel.until(|| route().contains("default via 10.77.0.1")).await;
        // No longer than the parent takes, which is said.
        kernel.until(|| mtu().contains("mtu 1500")).await;
        assert!(journal(&lan, MAC).await.contains("wants an MTU of 9000, and eth7 has 1500"));
    });
}

#[test]
fn other_names_and_time_servers_are_told_and_said() {
    world::run(|world| async move {
        let first = server(&world, &["--dhcp-option=option:ntp-server,10.77.0.1"]);
        let (lan, dockerd) = world.ready().await;
        let _container = dockerd.run("e1", MAC).await;
        let view = until(&lan, MAC, |view| view.is_live()).await;
        assert_eq!(view.ntp, ["10.77.0.1".parse::<std::net::Ipv4Addr>().unwrap()]);
        let mut news = lan.news();
        drop(first);
        let more = [
            "--dhcp-option=option:ntp-server,10.77.0.1,10.77.0.9",
            "--dhcp-option=option:domain-search,lab.example",
        ];
        let _second = server(&world, &more);
        // What the first server said may still be on its way to whoever listens.
        let told = async {
            loop {
                let told = news.recv().await.unwrap();
                if told.ntp.len() == 2 {
                    break told;
                }
            }
        };
        let told = tokio::time::timeout(world::SOON, told).await.unwrap();
        assert_eq!((told.mac, told.search.len()), (MAC, 2));
        let word =
            "DNS servers 10.77.0.1, search list corp.example lab.example, NTP servers 10.77.0.1 10.77.0.9";
        assert!(journal(&lan, MAC).await.contains(word), "{}", journal(&lan, MAC).await);
    });
}
