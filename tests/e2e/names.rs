//! Names in the LAN's DNS, and a container that is up before the LAN is.

use std::io::Write as _;
use std::net::TcpListener;

use crate::support::{Made, Scene, ann, root};

fn inside(made: &Made, script: &str) -> String {
    root().run("docker", &["exec", &made.name(), "sh", "-c", script]).ok().stdout.trim().to_owned()
}

fn two(scene: &Scene) -> (Made, Made) {
    let other = format!("{}-b", scene.project);
    (scene.make(&ann(), &[]), scene.make(&ann(), &["--name", &other]))
}

#[test]
fn a_container_is_known_by_its_name_to_the_lan_and_to_others() {
    let scene = Scene::with_product("named");
    let (one, other) = two(&scene);
    // The server's word, not Docker's: that one has no domain.
    let told = inside(&one, &format!("getent ahostsv4 {}.lab | head -n 1", other.name()));
    assert!(told.starts_with(&other.address()), "{told}");
    inside(&one, &format!("ping -c 1 -W 2 {}", other.name()));
    let ask = format!("ip netns exec moorage-lab busybox nslookup {}.lab 10.86.0.1", one.name());
    root().shell(&ask).ok().says(&one.address());
    root().shell(&format!("ip netns exec moorage-lab ping -c 1 -W 2 {}", one.address())).ok();
}

#[test]
fn a_service_of_the_host_is_reached_from_its_containers() {
    let scene = Scene::with_product("served");
    let made = scene.make(&ann(), &[]);
    // On the host's address on the LAN, as a registry would be.
    let listener = TcpListener::bind("10.86.0.2:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        let (mut stream, from) = listener.accept().unwrap();
        stream.write_all(b"from the host\n").unwrap();
        from.ip().to_string()
    });
    assert_eq!(inside(&made, &format!("bash -c 'cat </dev/tcp/10.86.0.2/{port}'")), "from the host");
    // By its own address, not by some NAT of the host's.
    assert_eq!(served.join().unwrap(), made.address());
}

mod alone {
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;
    use crate::support::Following;
    use crate::support::machine::{Daemons, world};

    /// The lab's server, which says nothing until this ends.
    struct Silent(Pid);

    impl Silent {
        fn begin() -> Silent {
            // The lab's is the only one of this world.
            let pid = root().run("pidof", &["-s", "dnsmasq"]).ok().stdout.trim().parse().unwrap();
            let server = Pid::from_raw(pid).unwrap();
            kill_process(server, Signal::STOP).unwrap();
            Silent(server)
        }
    }

    /// Set when this goes, also by a panic.
    struct Heard<'a>(&'a AtomicBool);

    impl Drop for Heard<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// Returns when `ip monitor route` listens: it says so to nobody, but it tells of a route that comes and goes.
    fn hears(routes: &mut Following) {
        let heard = AtomicBool::new(false);
        let route = "blackhole 198.51.100.1";
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !heard.load(Ordering::Relaxed) {
                    root().shell(&format!("ip route add {route}; ip route del {route}")).ok();
                }
            });
            let _heard = Heard(&heard);
            routes.until("the first route", |line| line.contains(route));
        });
    }

    impl Drop for Silent {
        fn drop(&mut self) {
            let _ = kill_process(self.0, Signal::CONT);
        }
    }

    #[test]
    fn a_container_that_is_up_before_the_server_gets_address_route_and_names_of_it() {
        let scene = Scene::with_product("early");
        let (one, other) = two(&scene);
        ann().moorage(&["stop-container", &one.name()]).ok();
        let _daemons = Daemons;
        // As after a power cut so long that the lease is over.
        world("kill9", "daemon");
        let lease = format!("rm /var/lib/moorage/leases/*-{}.json", one.mac().replace(':', "-"));
        root().shell(&lease).ok();
        world("start", "daemon");
        let silence = Silent::begin();
        root().run("docker", &["start", &one.name()]).ok();
        assert_eq!(inside(&one, "ip -o -4 address show scope global; ip -4 route"), "");
        assert!(scene.containers().iter().any(|seen| seen["address"].is_null()));

        // The host's own route to it is the last thing that is done.
        let mut monitor = root().command("ip");
        let mut routes = Following::command(monitor.args(["-4", "monitor", "route"]));
        hears(&mut routes);
        drop(silence);
        routes.until("a route to the container", |line| {
            line.contains(&format!("{} dev mshim-", one.address()))
        });
        assert_eq!(inside(&one, "ip -o -4 route show default | cut -d' ' -f3"), "10.86.0.1");
        let told = inside(&one, &format!("getent ahostsv4 {}.lab | head -n 1", other.name()));
        assert!(told.starts_with(&other.address()), "{told}");
        scene.ssh(&ann(), &one, "/opt/product/say").ok().says(&scene.project);
        assert!(scene.containers().iter().all(|seen| !seen["address"].is_null()));
    }
}
