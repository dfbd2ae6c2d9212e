//! What must fail does so soon, says why, and leaves nothing.

use std::time::{Duration, Instant};

use moorage::lan::{Config, State};
use moorage::report::{Fault, Kind};
use moorage::spec::network::OnTimeout;
use serde_json::json;

use crate::dockerd::Dockerd;
use crate::server::Server;
use crate::world::{self, MAC, NETWORK, PARENT, SOON, sh, until};

#[test]
fn without_a_server_the_start_fails_in_time_and_says_what_to_check() {
    world::run(|world| async move {
        let lan = world
            .start_with(Config {
                dhcp_timeout: Duration::from_millis(700),
                on_timeout: OnTimeout::Fail,
                ..Config::new(world.path("state"))
            })
            .await;
        let dockerd = Dockerd::new(&lan, world.path("")).await;
        dockerd.create_network(NETWORK, PARENT).await.unwrap();
        let began = Instant::now();
        let error = dockerd.create_endpoint("e1", MAC).await.unwrap_err();
        assert!(error.contains("no DHCP server gave demo-main-ann"), "{error}");
        assert!(error.contains(PARENT) && error.contains("tcpdump"), "{error}");

        let error = lan.reserve(NETWORK, MAC, "demo-main-ann").await.unwrap_err();
        let fault = Fault::of(&error);
        assert_eq!(fault.kind, Kind::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        // The keeper ends by itself; its end is when its watch closes.
        if let Some(mut watch) = lan.watch(NETWORK, MAC) {
            let ended = async { while watch.changed().await.is_ok() {} };
            tokio::time::timeout(SOON, ended).await.unwrap();
        }
        assert!(world.records().is_empty());
        assert!(!sh("ip link").contains("moor-"));

        // The server comes back, and all is well.
        let _server = Server::start(&world);
        let lan = world.start().await;
        assert!(lan.reserve(NETWORK, MAC, "demo-main-ann").await.unwrap().address.is_some());
    });
}

#[test]
fn a_reservation_nobody_waits_for_is_given_up() {
    world::run(|world| async move {
        let (lan, _dockerd) = world.ready().await;
        let moments: [fn(State) -> bool; 2] =
            [|_as_soon_as_it_is_there| true, |state| state == State::Selecting];
        for moment in moments {
            let reached = async {
                while lan.watch(NETWORK, MAC).is_none_or(|watch| !moment(watch.borrow().state)) {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                () = reached => {}
                _ = lan.reserve(NETWORK, MAC, "demo-main-ann") => panic!("there is no server"),
            }
            if let Some(mut watch) = lan.watch(NETWORK, MAC) {
                let ended = async { while watch.changed().await.is_ok() {} };
                tokio::time::timeout(SOON, ended).await.unwrap();
            }
        }
        assert!(lan.leases().is_empty());
        assert!(world.records().is_empty());
    });
}

#[test]
fn what_is_not_dockerd_gets_an_answer_too() {
    world::run(|world| async move {
        let (_lan, dockerd) = world.ready().await;
        for method in ["CreateNetwork", "CreateEndpoint", "Join", "Leave", "DeleteEndpoint", "DeleteNetwork"]
        {
            for body in ["", "{", "null", "[]", "{}", "\u{0}", r#"{"NetworkID":7,"EndpointID":[]}"#] {
                let (status, answer) = dockerd.post(method, body).await;
                assert_eq!(status, 400, "{method} {body:?}");
                assert!(answer["Err"].is_string(), "{method} {body:?}: {answer}");
            }
        }
        assert_eq!(dockerd.post("NoSuchCall", "{}").await.0, 404);
        let (status, answer) = dockerd.post("GetCapabilities", "").await;
        assert_eq!((status, answer), (200, json!({"Scope": "local", "ConnectivityScope": "global"})));
        for method in ["DiscoverNew", "DiscoverDelete", "ProgramExternalConnectivity"] {
            assert_eq!(dockerd.post(method, "{}").await, (200, json!({})));
        }
    });
}

#[test]
fn what_is_unknown_is_already_gone() {
    world::run(|world| async move {
        let (_lan, dockerd) = world.ready().await;
        let id = json!({"NetworkID": "n9", "EndpointID": "e9"});
        dockerd.call("Leave", id.clone()).await.unwrap();
        dockerd.call("DeleteEndpoint", id).await.unwrap();
        dockerd.call("DeleteNetwork", json!({"NetworkID": "n9"})).await.unwrap();
        let join = json!({"NetworkID": "n9", "EndpointID": "e9", "SandboxKey": "/nowhere"});
        assert!(dockerd.call("Join", join).await.unwrap_err().contains("not known"));
    });
}

#[test]
fn a_parent_that_will_not_do_is_refused() {
    world::run(|world| async move {
        let (_lan, dockerd) = world.ready().await;
        sh("ip link add br7 up type bridge");
        sh(&format!("ip link add link {PARENT} name mv7 up type macvlan"));
        sh("ip link add down7 type veth peer name down8");
        for (parent, why) in [
            ("nosuch7", "does not exist"),
            ("br7", "br7 is a bridge"),
            ("mv7", "mv7 is a macvlan"),
            ("down7", "down7 is down"),
            ("lo", "loopback"),
            ("", "-o parent="),
            ("../../etc", "not the name of an interface"),
        ] {
            let error = dockerd.create_network("n2", parent).await.unwrap_err();
            assert!(error.contains(why), "{parent}: {error}");
        }
        let error = dockerd
            .call(
                "CreateNetwork",
                json!({"NetworkID": "n2", "Options": {
            "com.docker.network.generic": {"parent": PARENT, "mode": "7"}}}),
            )
            .await
            .unwrap_err();
        assert!(error.contains("\"mode\" is not an option of a network (there is: parent, vlan)"), "{error}");
    });
}

#[test]
fn a_parent_that_went_away_is_missed_and_one_that_came_back_is_used() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        dockerd.stop(container).await;
        sh(&format!("ip link delete {PARENT}"));
        let error = dockerd.create_endpoint("e2", MAC).await.unwrap_err();
        assert!(error.contains("the parent interface eth7 does not exist"), "{error}");
        drop(server);
        world.plug_in();
        let _server = Server::start(&world);
        let container = dockerd.run("e3", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        container.sh("ping -c1 -W5 10.77.0.1");
        sh(&format!("ping -c1 -W5 {}", container.ip()));
    });
}

#[test]
fn a_mac_in_use_is_named() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (_lan, dockerd) = world.ready().await;
        sh(&format!("ip link add link {PARENT} name squat7 address {MAC} up type macvlan mode bridge"));
        let error = dockerd.create_endpoint("e1", MAC).await.unwrap_err();
        assert!(error.contains(&format!("the MAC {MAC} is in use on {PARENT}")), "{error}");
        sh("ip link delete squat7");
        dockerd.create_endpoint("e2", MAC).await.unwrap();
    });
}

#[test]
fn a_container_may_start_while_its_last_lease_is_released() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        for round in 0..50 {
            let id = format!("e{round}");
            let (released, created) =
                tokio::join!(lan.release(NETWORK, MAC), dockerd.create_endpoint(&id, MAC));
            released.unwrap();
            created.unwrap();
            dockerd.call("DeleteEndpoint", json!({"NetworkID": NETWORK, "EndpointID": id})).await.unwrap();
        }
    });
}

#[test]
fn a_mac_that_its_last_container_still_has_is_waited_for() {
    world::run(|world| async move {
        let _server = Server::start(&world);
        let (lan, dockerd) = world.ready().await;
        // Its lease is released, and so forgotten; its namespace lives a little longer, as kernels have it.
        let container = dockerd.run("e1", MAC).await;
        until(&lan, MAC, |view| view.is_live()).await;
        let id = json!({"NetworkID": NETWORK, "EndpointID": "e1"});
        dockerd.call("Leave", id.clone()).await.unwrap();
        dockerd.call("DeleteEndpoint", id).await.unwrap();
        lan.release(NETWORK, MAC).await.unwrap();
        assert!(world.records().is_empty());
        let asking = dockerd.clone();
        let mut asked = tokio::spawn(async move { asking.create_endpoint("e2", MAC).await });
        // The link that tries for it is there.
        let mut kernel = crate::kernel::Kernel::of_this_thread();
        tokio::select! {
            () = kernel.until(|| sh("ip -brief link").contains("moor-")) => {}
            ended = &mut asked => panic!("it has not waited: {ended:?}"),
        }
        container.end();
        let created = asked.await.unwrap().unwrap();
        dockerd.join("e2", &created).await.sh("ping -c1 -W5 10.77.0.1");
    });
}
