//! A host and a LAN: two network namespaces with a veth between them, gone with the test.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use moorage::lan::{Config, Lan, LeaseView};
use moorage::spec::Mac;
use nix::sched::{CloneFlags, unshare};

use crate::dockerd::Dockerd;

/// Longer than anything here takes, shorter than patience.
pub const SOON: Duration = Duration::from_secs(20);
/// The parent interface, in the host's namespace.
pub const PARENT: &str = "eth7";
/// The LAN's interface at the server.
pub const LAN: &str = "lan7";
pub const HOST_ADDRESS: &str = "10.77.0.2";
pub const SERVER_ADDRESS: &str = "10.77.0.1";
pub const NETWORK: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
pub const MAC: Mac = Mac([0x02, 0x77, 0, 0, 0, 1]);

pub struct World {
    pub directory: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        // A file with a namespace mounted on it cannot be removed.
        let _ = try_sh(&format!("umount --lazy {}/* 2>&1", self.directory.path().display()));
    }
}

/// Runs a test in a world of its own.
pub fn run<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    run_within(Duration::from_secs(80), test);
}

/// The same for a test of the soak run.
pub fn run_long<F: Future<Output = ()>>(test: impl FnOnce(World) -> F) {
    run_within(Duration::from_secs(600), test);
}

fn run_within<F: Future<Output = ()>>(limit: Duration, test: impl FnOnce(World) -> F) {
    assert!(rustix::process::geteuid().is_root(), "the tests of the LAN driver need root");
    // This thread's and its children's only: nothing of it is seen outside, and all of it ends with the test.
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET).unwrap();
    sh("mount --make-rprivate /");
    sh("ip link set lo up");
    let directory = tempfile::tempdir().unwrap();
    let world = World { directory };
    world.new_namespace("lan");
    world.plug_in();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(limit, test(world)).await.expect("the test hangs");
    });
}

impl World {
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A network namespace bound to a file, as dockerd makes them.
    pub fn new_namespace(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, "").unwrap();
        sh(&format!("unshare --net={} true", path.display()));
        inside(&path, "ip link set lo up");
        path
    }

    /// The parent, its address, and the other end of its cable in the LAN.
    pub fn plug_in(&self) {
        let lan = self.path("lan");
        sh(&format!("ip link add {PARENT} type veth peer name {LAN} netns {}", lan.display()));
        self.set_up_ends();
    }

    /// Host's and LAN's interface with their addresses, up.
    pub fn set_up_ends(&self) {
        let lan = self.path("lan");
        sh(&format!("ip address add {HOST_ADDRESS}/24 dev {PARENT}"));
        sh(&format!("ip link set {PARENT} up"));
        inside(&lan, &format!("ip address add {SERVER_ADDRESS}/24 dev {LAN}"));
        inside(&lan, &format!("ip -6 address add fd77::1/64 dev {LAN} nodad"));
        inside(&lan, &format!("ip link set {LAN} up"));
    }

    /// Runs a command in the LAN.
    pub fn lan(&self, command: &str) -> String {
        inside(&self.path("lan"), command)
    }

    pub async fn start(&self) -> Arc<Lan> {
        self.start_patient(Duration::from_secs(10)).await
    }

    pub async fn start_patient(&self, dhcp_timeout: Duration) -> Arc<Lan> {
        self.start_with(Config { dhcp_timeout, ..Config::new(self.path("state")) }).await
    }

    pub async fn start_with(&self, config: Config) -> Arc<Lan> {
        Lan::start(config).await.unwrap()
    }

    /// The driver with its network made, and a dockerd that uses it.
    pub async fn ready(&self) -> (Arc<Lan>, Dockerd) {
        let lan = self.start().await;
        let dockerd = Dockerd::new(&lan, self.path("")).await;
        dockerd.create_network(NETWORK, PARENT).await.unwrap();
        (lan, dockerd)
    }

    /// The files of leases on disk.
    pub fn records(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.path("state/leases"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            // Half-written when the daemon was killed; the next one clears it away when it starts.
            .filter(|name| !name.starts_with('.'))
            .collect();
        names.sort();
        names
    }
}

/// Waits until the lease is as wanted, by its events.
pub async fn until(lan: &Lan, mac: Mac, wanted: impl FnMut(&LeaseView) -> bool) -> LeaseView {
    until_within(SOON, lan, mac, wanted).await
}

/// The same, for as long as that.
pub async fn until_within(
    limit: Duration,
    lan: &Lan,
    mac: Mac,
    wanted: impl FnMut(&LeaseView) -> bool,
) -> LeaseView {
    let mut watch = lan.watch(NETWORK, mac).expect("the lease is kept");
    let view = tokio::time::timeout(limit, watch.wait_for(wanted)).await;
    match view {
        Ok(view) => view.unwrap().clone(),
        Err(_) => panic!("still {:?}, {:?}", lan.leases(), lan.journal(NETWORK, mac).await),
    }
}

pub async fn journal(lan: &Lan, mac: Mac) -> String {
    lan.journal(NETWORK, mac).await.unwrap().into_iter().map(|entry| entry.text + "\n").collect()
}

/// Runs a command in this thread's namespaces; its output, or a panic with its complaint.
pub fn sh(command: &str) -> String {
    try_sh(command).unwrap_or_else(|complaint| panic!("{command}: {complaint}"))
}

pub fn try_sh(command: &str) -> Result<String, String> {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    match output.status.success() {
        true => Ok(text),
        false => Err(text + &String::from_utf8_lossy(&output.stderr)),
    }
}

pub fn inside(namespace: &Path, command: &str) -> String {
    sh(&format!("exec nsenter --net={} {command}", namespace.display()))
}
