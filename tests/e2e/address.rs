//! The kinds of addresses beside those that a DHCP server grants.

use crate::support::{Made, Scene, ann, root};

fn inside(made: &Made, script: &str) -> String {
    root().run("docker", &["exec", &made.name(), "sh", "-c", script]).ok().stdout.trim().to_owned()
}

#[test]
fn a_chosen_address_is_on_the_lan_and_stays() {
    let scene = Scene::with_product("chosen");
    // The lab leases none below .16.
    let made = scene.make(&ann(), &["--address", "10.86.0.9/24@10.86.0.1"]);
    assert_eq!(made.address(), "10.86.0.9");
    scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
    assert_eq!(inside(&made, "ip -o -4 route show default | cut -d' ' -f3"), "10.86.0.1");
    ann().moorage(&["restart-container", &made.name()]).ok();
    assert_eq!(scene.containers()[0]["address"], "10.86.0.9");
    scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
    let leases = ann().moorage(&["list-leases", "--format", "json"]).ok().json();
    let leases = leases["leases"].as_array().unwrap();
    let own = leases.iter().find(|lease| lease["address"] == "10.86.0.9").unwrap();
    assert_eq!((&own["state"], &own["server"]), (&"static".into(), &serde_json::Value::Null));
    // Another address is another specification.
    scene
        .try_make(&ann(), &["--address", "10.86.0.10/24@10.86.0.1"])
        .ends(5)
        .says("10.86.0.9/24@10.86.0.1 here");
}

#[test]
fn on_dockers_bridge_a_container_answers_its_host() {
    let scene = Scene::with_product("bridged");
    let made = scene.make(&ann(), &["--address", "nat"]);
    let seen = root().run("docker", &["inspect", "-f", "{{.NetworkSettings.IPAddress}}", &made.name()]).ok();
    assert_eq!(made.address(), seen.stdout.trim());
    assert_eq!(made.mac(), inside(&made, "cat /sys/class/net/eth0/address"));
    scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
    assert_eq!(scene.containers()[0]["network"], "nat");
    ann().moorage(&["restart-container", &made.name()]).ok();
    scene.inside(&ann(), &made.name(), "/opt/product/say").ok().says(&scene.project);
    let leases = ann().moorage(&["list-leases", "--format", "json"]).ok();
    assert!(!leases.stdout.contains(&made.name()), "{}", leases.stdout);
}

#[test]
fn without_an_address_there_is_only_the_loopback() {
    let scene = Scene::with_product("alone");
    let made = scene.make(&ann(), &["--address", "none"]);
    assert!(made.0["container"]["address"].is_null());
    assert_eq!(inside(&made, "ls /sys/class/net"), "lo");
    scene.inside(&ann(), &made.name(), "/opt/product/say").ok().says(&scene.project);
    ann().moorage(&["restart-container", &made.name()]).ok();
    assert_eq!(scene.containers()[0]["state"], "running");
}

#[test]
fn a_project_or_its_branch_says_which_kind_and_the_command_line_says_it_last() {
    let scene = Scene::new("projectaddress");
    let file = |address: &str| {
        format!(
            "[defaults]\nimage = \"demo\"\naddress = \"none\"\n[[branch]]\nmatch = \"ma*\"\n{address}\n[[branch]]\nmatch = \"*\"\n"
        )
    };
    // A word that is none is found before anything is made, with its place.
    scene.raw(&file("address = \"wifi\""));
    scene.try_make(&ann(), &[]).ends(2).says(&format!("{}.toml:6:", scene.project)).says("\"wifi\"");
    ann().moorage(&["scripthacker", "check-site", "--site", scene.site()]).ends(2).says("\"wifi\"");

    scene.raw(&file("address = \"10.86.0.8/24@10.86.0.1\""));
    let made = scene.make(&ann(), &[]);
    assert_eq!(made.address(), "10.86.0.8");
    root().run("ping", &["-c", "1", "-W", "2", "10.86.0.8"]).ok();
    scene.remove_all();

    let other = scene.make(&ann(), &["--address", "nat"]);
    assert_eq!(scene.containers()[0]["network"], "nat");
    assert!(other.address().starts_with("172."), "{}", other.address());
    scene.remove_all();

    scene.raw(&file(""));
    assert!(scene.make(&ann(), &[]).0["container"]["address"].is_null());
}

#[test]
fn what_is_no_address_is_refused_before_anything_is_done() {
    let scene = Scene::with_product("noaddress");
    for bad in ["wifi", "10.86.0.9", "10.86.0.0/24"] {
        scene.try_make(&ann(), &["--address", bad]).ends(2);
    }
    scene.nothing_left();
}
