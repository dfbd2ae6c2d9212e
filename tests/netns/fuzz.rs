//! Whatever is sent to the driver, it answers, soon, and works on afterwards.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Map, Value};

use crate::dockerd::Dockerd;
use crate::server::Server;
use crate::world::{self, MAC, NETWORK, PARENT, World, sh, until};

const METHODS: [&str; 14] = [
    "GetCapabilities",
    "CreateNetwork",
    "DeleteNetwork",
    "CreateEndpoint",
    "DeleteEndpoint",
    "EndpointOperInfo",
    "Join",
    "Leave",
    "ProgramExternalConnectivity",
    "RevokeExternalConnectivity",
    "DiscoverNew",
    "DiscoverDelete",
    "AllocateNetwork",
    "FreeNetwork",
];

/// What the driver looks at, so that the fuzz gets further than to "not a request".
const KEYS: [&str; 15] = [
    "NetworkID",
    "EndpointID",
    "SandboxKey",
    "Interface",
    "Address",
    "MacAddress",
    "Options",
    "IPv4Data",
    "Pool",
    "com.docker.network.generic",
    "com.docker.network.internal",
    "parent",
    "moorage.mac",
    "moorage.hostname",
    "moorage.address",
];

/// Opened carelessly it waits for ever.
const FIFO: &str = "/dev/shm/moorage-fuzz-fifo";

const TEXTS: [&str; 17] = [
    NETWORK,
    "other",
    "e1",
    "e2",
    PARENT,
    "lo",
    "",
    "../../etc",
    "/proc/self/ns/net",
    "/proc/self/ns/mnt",
    "/dev/zero",
    FIFO,
    "02:77:00:00:00:05",
    "ff:ff:ff:ff:ff:ff",
    "0.0.0.0/0",
    "10.77.0.9/24@10.77.0.1",
    "a\u{0}b\u{202e}\n%n",
];

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        6 => prop::sample::select(TEXTS.to_vec()).prop_map(Value::from),
        1 => ".{0,300}".prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from), object(inner),]
    })
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let key = prop_oneof![9 => prop::sample::select(KEYS.to_vec()).prop_map(str::to_owned), 1 => ".{0,20}"];
    prop::collection::vec((key, value), 0..8)
        .prop_map(|all| Value::Object(all.into_iter().collect::<Map<_, _>>()))
}

/// A call: mostly with the fields that every call has, sometimes cut off, sometimes no JSON at all.
fn call() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let ids =
        (prop::sample::select(vec![NETWORK, "other", ""]), prop::sample::select(vec!["e1", "e2", "e3", ""]));
    let likely = (ids, object(value())).prop_map(|((network, endpoint), mut rest)| {
        rest["NetworkID"] = network.into();
        rest["EndpointID"] = endpoint.into();
        rest.to_string().into_bytes()
    });
    let cut = (value(), any::<prop::sample::Index>()).prop_map(|(value, at)| {
        let mut text = value.to_string().into_bytes();
        text.truncate(at.index(text.len() + 1));
        text
    });
    let body = prop_oneof![6 => likely, 2 => cut, 1 => prop::collection::vec(any::<u8>(), 0..200)];
    (prop::sample::select(METHODS.to_vec()), body)
}

/// Sends calls for as long as `go_on` says so, and then one container's worth that must go well.
async fn bombard(world: World, mut runner: TestRunner, mut go_on: impl FnMut(usize) -> bool) {
    // The mounts are this test's own.
    sh(&format!("mount -t tmpfs fuzz /dev/shm && mkfifo {FIFO}"));
    let lan = world.start_patient(Duration::from_millis(20)).await;
    let dockerd = Dockerd::new(&lan, world.path("")).await;
    dockerd.create_network(NETWORK, PARENT).await.unwrap();
    let (strategy, mut count) = (call(), 0);
    while go_on(count) {
        let (method, body) = strategy.new_tree(&mut runner).unwrap().current();
        let shown = format!("{method} {}", String::from_utf8_lossy(&body));
        let begin = Instant::now();
        let (status, answer) = dockerd.post(method, body).await;
        assert!([200, 400].contains(&status), "{shown}: {status}");
        assert!(!answer.to_string().contains("panicked"), "{shown}: {answer}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{shown}: {:?}", begin.elapsed());
        count += 1;
    }
    // It may have been told to remove the network.
    dockerd.create_network(NETWORK, PARENT).await.unwrap();
    let _server = Server::start(&world);
    drop((lan, dockerd));
    let lan = world.start().await;
    let dockerd = Dockerd::new(&lan, world.path("")).await;
    let container = dockerd.run("last", MAC).await;
    until(&lan, MAC, |view| view.is_live()).await;
    container.sh("ping -c1 -W5 10.77.0.1");
}

#[test]
fn whatever_is_called_is_answered() {
    world::run(|world| bombard(world, TestRunner::deterministic(), |count| count < 3000));
}

#[test]
#[ignore = "soak: five minutes of calls that no dockerd makes; scripts/test --soak runs it"]
fn soak_whatever_is_called_is_answered() {
    let begin = Instant::now();
    world::run_long(|world| {
        bombard(world, TestRunner::default(), move |_| begin.elapsed() < Duration::from_secs(300))
    });
}
