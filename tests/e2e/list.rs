//! What the verbs that look say.

use crate::support::{Scene, ann, bob, root};

#[test]
fn a_container_is_listed_to_everybody_with_what_people_need() {
    let scene = Scene::with_product("listed");
    let made = scene.make(&ann(), &[]);
    bob().moorage(&["list-containers"]).ok().says(&made.name()).says(&made.address()).says("running");
    let listed = scene.containers();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0]["mac"], made.mac());
    assert_eq!(listed[0]["owner"], "ann");
    assert_eq!(listed[0]["state"], "running");
    ann().moorage(&["list-leases"]).ok().says(&made.address());
}

#[test]
fn a_list_without_anything_is_empty_and_no_error() {
    let none = ann().moorage(&["list-containers", "--filter", "project=nobody", "--format", "json"]).ok();
    assert_eq!(none.json()["containers"], serde_json::json!([]));
}

#[test]
fn data_goes_to_stdout_and_nothing_else_does() {
    let list = ann().moorage(&["list-containers", "--format", "json"]).ok();
    assert_eq!(list.stdout.lines().count(), 1, "{}", list.whole());
    list.json();
}

#[test]
fn one_container_is_shown_whole() {
    let scene = Scene::with_product("shown");
    let made = scene.make(&ann(), &[]);
    ann().moorage(&["show-container", &made.name()]).ok().says(&made.address()).says(&made.mac());
    let shown = ann().moorage(&["show-container", &made.name(), "--format", "json"]).ok().json();
    assert_eq!(shown["host_key"].as_str().unwrap(), made.host_key());
    assert_eq!(shown["spec"]["project"], scene.project);
    // ssh asks the container itself for its key: it is the one that is shown.
    let scanned = root().run("ssh-keyscan", &["-t", "ed25519", &made.address()]).ok();
    assert!(scanned.stdout.contains(&made.host_key()), "{}", scanned.whole());
    ann().moorage(&["show-container", "no-such-container"]).ends(4).helps();
}

#[test]
fn projects_are_listed_with_their_branches() {
    let scene = Scene::with_product("offered");
    ann()
        .moorage(&["list-projects", "--site", scene.site()])
        .ok()
        .says(&scene.project)
        .says("main")
        .says("demo");
    let json = ann().moorage(&["list-projects", "--site", scene.site(), "--format", "json"]).ok().json();
    assert!(json["projects"].to_string().contains(&scene.project), "{json:#}");
}

#[test]
fn logs_of_each_run_and_of_the_container_are_shown() {
    let scene = Scene::new("logs");
    scene.write("setup = [\"echo words of the set-up\"]");
    let made = scene.make(&ann(), &[]);
    let log = std::fs::read_to_string(made.log()).unwrap();
    assert!(log.contains("words of the set-up"), "{log}");
    use std::os::unix::fs::MetadataExt as _;
    assert_eq!(std::fs::metadata(made.log()).unwrap().uid(), 0);
    ann().moorage(&["show-logs", &made.name()]).ok();
    ann().moorage(&["show-logs", &made.name(), "--runs"]).ok().says("make");
}

#[test]
fn roles_are_optional_and_links_are_commands() {
    ann().run("list-containers", &[]).ok();
    ann().run("moorage", &["dockeruser", "list-containers"]).ok();
    ann().run("make-dev-container", &["--help"]).ok().says("make-dev-container");
    ann().moorage(&["no-such-verb"]).ends(2).helps();
}

#[test]
fn a_container_whose_image_was_replaced_is_marked_and_make_says_so() {
    let scene = Scene::new("outdated");
    let image = format!("moorage/{}:latest", scene.project);
    root().run("docker", &["tag", "moorage/demo", &image]).ok();
    scene.raw(&format!("[defaults]\nimage = \"{image}\"\n[[branch]]\nmatch = \"main\"\n"));
    let ann = ann();
    let made = scene.make(&ann, &[]);
    let marked = format!("{image} (outdated)");
    ann.moorage(&["list-containers"]).ok().says(&image).never_says(&marked);
    // What rebuild-images does at its end: the name is another image's now.
    root().shell(&format!("echo 'FROM moorage/demo' | docker build -q --label newer=yes -t {image} -")).ok();
    ann.moorage(&["list-containers"]).ok().says(&marked);
    let list = root().moorage(&["list-containers", "--format", "json"]).ok().json();
    let all = list["containers"].as_array().unwrap();
    let ours = all.iter().find(|one| one["name"] == made.name().as_str()).unwrap();
    assert_eq!(ours["outdated"], true, "{ours:#}");
    scene.try_make(&ann, &[]).ok().says("is older than the image");
    // Made anew it has the new one.
    root().moorage(&["remove-container", &made.name(), "--yes"]).ok();
    scene.try_make(&ann, &[]).ok().never_says("is older than the image");
    scene.remove_all();
    root().run("docker", &["rmi", "--force", &image]).ok();
}
