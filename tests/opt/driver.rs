//! The volume driver protocol, over HTTP as dockerd speaks it.

use moorage::opt::driver::PeerPid;
use serde_json::{Value, json};

use crate::pack::Pack;
use crate::world::{World, entries};

/// What dockerd is to the driver.
pub struct Docker<'a> {
    world: &'a World,
    address: std::net::SocketAddr,
}

impl<'a> Docker<'a> {
    pub fn new(world: &'a World) -> Docker<'a> {
        Docker::as_process(world, rustix::thread::gettid().as_raw_nonzero().get())
    }

    /// A thread's ID does, too: it has a mountinfo of its own.
    pub fn as_process(world: &'a World, pid: i32) -> Docker<'a> {
        let router = world.store.router().layer(axum::Extension(PeerPid(pid)));
        let address = world.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            tokio::spawn(axum::serve(listener, router).into_future());
            address
        });
        Docker { world, address }
    }

    pub fn post(&self, verb: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let url = format!("http://{}/VolumeDriver.{verb}", self.address);
        self.world.block_on(async {
            // dockerd sends no content type that a JSON extractor would take.
            let request =
                reqwest::Client::new().post(url).header("Accept", "application/vnd.docker.plugins.v1.2+json");
            let response = request.body(body).send().await.unwrap();
            let status = response.status().as_u16();
            (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
        })
    }

    pub fn ok(&self, verb: &str, body: Value) -> Value {
        let (status, answer) = self.post(verb, body.to_string());
        assert_eq!((status, answer.get("Err")), (200, None), "{verb}: {answer}");
        answer
    }

    pub fn error(&self, verb: &str, body: Value) -> String {
        let (status, answer) = self.post(verb, body.to_string());
        assert_ne!(status, 200, "{verb}: {answer}");
        answer["Err"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_foreign_volume_from_create_to_remove_each_call_twice() {
    let world = World::new();
    let docker = Docker::new(&world);
    assert_eq!(docker.ok("Capabilities", json!({})), json!({"Capabilities": {"Scope": "local"}}));
    assert_eq!(docker.ok("List", json!({})), json!({"Volumes": []}));
    let name = json!({"Name": "scratch", "Opts": null});
    let mount = json!({"Name": "scratch", "ID": "abc"});
    for _ in 0..2 {
        docker.ok("Create", name.clone());
    }
    let merged = world.merged("scratch");
    for _ in 0..2 {
        assert_eq!(docker.ok("Mount", mount.clone())["Mountpoint"], json!(merged));
    }
    std::fs::write(merged.join("f"), "x").unwrap();
    assert_eq!(docker.ok("Path", name.clone())["Mountpoint"], json!(merged));
    assert_eq!(docker.ok("Get", name.clone())["Volume"]["Name"], "scratch");
    assert_eq!(docker.ok("List", json!({}))["Volumes"][0]["Mountpoint"], json!(merged));
    for _ in 0..2 {
        docker.ok("Unmount", mount.clone());
    }
    assert_eq!(std::fs::read(merged.join("f")).unwrap(), b"x");
    for _ in 0..2 {
        docker.ok("Remove", name.clone());
    }
    assert_eq!(docker.ok("List", json!({})), json!({"Volumes": []}));
    assert_eq!(entries(&world.storage().join(".store/volumes")), [] as [std::path::PathBuf; 0]);
    assert!(docker.error("Get", name.clone()).contains("no volume scratch"));
    assert!(docker.error("Mount", mount.clone()).contains("no volume scratch"));
    docker.ok("Unmount", mount);
}

#[test]
fn a_prune_does_not_destroy_what_the_daemon_made() {
    let world = World::new();
    world.volume("siem", &[]);
    std::fs::write(world.view("siem").join("precious"), "x").unwrap();
    let docker = Docker::new(&world);
    docker.ok("Create", json!({"Name": "siem"}));
    docker.ok("Remove", json!({"Name": "siem"}));
    assert!(world.view("siem").join("precious").exists());
    docker.ok("Create", json!({"Name": "siem"}));
    docker.ok("Mount", json!({"Name": "siem", "ID": "x"}));
}

#[test]
fn docker_does_not_get_or_break_a_volume_that_is_being_made() {
    let world = World::new();
    let upper = world.new_volume("siem", &[]).unwrap();
    let docker = Docker::new(&world);
    assert!(docker.error("Create", json!({"Name": "siem"})).contains("being made"));
    assert!(docker.error("Mount", json!({"Name": "siem", "ID": "x"})).contains("not ready"));
    docker.ok("Remove", json!({"Name": "siem"}));
    upper.make_dirs("a").unwrap();
    world.store.finish_volume("siem").unwrap();
    docker.ok("Mount", json!({"Name": "siem", "ID": "x"}));
}

#[test]
fn a_mount_after_a_reboot_is_remade_with_its_view() {
    let world = World::new();
    let layer = world.layer(Pack::new().file("f", b"x").tar());
    world.volume("siem", &[&layer]);
    world.unmount_all();
    Docker::new(&world).ok("Mount", json!({"Name": "siem", "ID": "x"}));
    assert!(world.merged("siem").join("f").exists());
    assert!(world.view("siem").join("f").exists());
    // Only the overlay gone, as after a clumsy umount: the view must not show the old one.
    rustix::mount::unmount(world.merged("siem"), rustix::mount::UnmountFlags::empty()).unwrap();
    Docker::new(&world).ok("Mount", json!({"Name": "siem", "ID": "x"}));
    std::fs::write(world.merged("siem").join("new"), "x").unwrap();
    assert!(world.view("siem").join("new").exists());
}

#[test]
fn dockerd_must_see_the_mount() {
    let world = World::new();
    world.volume("siem", &[]);
    // Process 1 lives in the host's mount namespace, which this test has left.
    let error = Docker::as_process(&world, 1).error("Mount", json!({"Name": "siem", "ID": "x"}));
    assert!(error.contains("does not see it"), "{error}");
    Docker::new(&world).ok("Mount", json!({"Name": "siem", "ID": "x"}));
}

#[test]
fn calls_that_say_nothing_or_nonsense() {
    let world = World::new();
    let docker = Docker::new(&world);
    for verb in ["Create", "Remove", "Mount", "Unmount", "Path", "Get", "List", "Capabilities"] {
        let (status, answer) = docker.post(verb, "");
        assert_eq!(status, 400, "{verb}");
        assert!(answer["Err"].as_str().unwrap().contains("empty"), "{answer}");
        assert_eq!(docker.post(verb, "{").0, 400);
    }
    for name in ["", "../../etc", "a/b", ".store"] {
        for verb in ["Create", "Remove", "Mount", "Unmount", "Path", "Get"] {
            assert_eq!(docker.post(verb, json!({"Name": name}).to_string()).0, 400, "{verb} {name}");
        }
    }
    let error = docker.error("Create", json!({"Name": "x", "Opts": {"size": "1g"}}));
    assert!(error.contains("size") && error.contains("valid options"), "{error}");
    assert!(docker.error("Create", json!({"Name": "staging"})).contains("staging"));
    assert!(world.store.volumes().unwrap().is_empty());
}

#[test]
fn cannot_list_is_not_an_empty_list() {
    let world = World::new();
    std::fs::write(world.home.join("state/volumes/broken.json"), "{").unwrap();
    assert!(Docker::new(&world).error("List", json!({})).contains("broken.json"));
    std::fs::remove_file(world.home.join("state/volumes/broken.json")).unwrap();
}
