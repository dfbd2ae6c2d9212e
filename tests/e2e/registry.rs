//! Images and `/opt` trees that come from a registry: pulled while the rest goes on, and given up cleanly.

use std::path::Path;

use rustix::process::Signal;

use crate::support::archive::Archive;
use crate::support::registry::{NOBODY, Pushed, REGISTRY, Way};
use crate::support::{Running, Scene, ann, root};

/// More than the manifest and the image's configuration, less than the layer.
const IN_THE_LAYER: usize = 1_000_000;

/// A scene whose project uses `image`, and all else a project can have.
fn with_image(scene: &Scene, image: &str) {
    let url = scene.archive("product.tar.zst", &Archive::product(&scene.project).zst());
    let source = scene.repository(&[("README", 0o644, "source\n")]);
    scene.raw(&format!(
        "[defaults]\nimage = \"{image}\"\nopt = \"{url}\"\n[[defaults.source]]\nrepo = \"{source}\"\n[[branch]]\nmatch = \"main\"\n"
    ));
}

/// Starts a make and goes on until the pull is in the middle of a layer.
fn pulling(scene: &Scene, way: &Way) -> Running {
    let ann = ann();
    ann.public_key();
    scene.knows(&ann);
    let mut running = Running::start(&ann, &scene.words(&[]));
    assert!(running.reaches("image"), "the pull never began: {}", running.end().whole());
    way.until_stalled();
    running
}

fn is_here(image: &str) -> bool {
    root().run("docker", &["image", "inspect", image]).code == 0
}

#[test]
fn an_image_is_pulled_once_and_what_is_pulled_is_shown() {
    let scene = Scene::new("pulled");
    let pushed = Pushed::image(&scene.project);
    let image = pushed.at(REGISTRY);
    with_image(&scene, &image);
    assert!(!is_here(&image));
    let ann = ann();
    let projects =
        ann.moorage(&["list-projects", "--site", scene.site(), "--format", "json"]).ok().json()["projects"]
            .take();
    let ours = projects.as_array().unwrap().iter().find(|project| project["name"] == scene.project).unwrap();
    assert_eq!(ours["branches"][0]["image"]["here"], false, "{ours:#}");
    assert!(ours["branches"][0]["image"]["packed_bytes"].as_u64().unwrap() > 3_900_000, "{ours:#}");
    ann.public_key();
    scene.knows(&ann);
    let mut running = Running::start(&ann, &scene.words(&[]));
    let whole = running.event("the whole image", |event| {
        event["event"] == "progress"
            && event["step"] == "image"
            && event["total"].as_u64().is_some_and(|total| total > 3_900_000 && event["done"] == total)
    });
    let end = running.end();
    assert!(whole, "the pull's progress never got to its end: {}", end.whole());
    end.ok().says("\"step\":\"image\"").says(&format!("pulling {image}"));
    assert!(is_here(&image));
    let made = scene.make(&ann, &[]);
    assert!(made.existed());
    ann.moorage(&["show-container", &made.name()]).ok().says(&image);
    scene.ssh(&ann, &made, "stat -c %s /usr/local/share/noise").ok().says("4000000");
    // It is here, so that the next one pulls nothing.
    scene.try_make(&ann, &["--name", &format!("{}-other", scene.project)]).ok().never_says("pulling");
}

#[test]
fn an_image_the_registry_does_not_have_is_named_and_nothing_is_left() {
    let scene = Scene::new("noimage");
    with_image(&scene, &format!("{REGISTRY}/no-such:latest"));
    let said = scene.try_make(&ann(), &[]).ends(4).says("no-such").says("not found");
    said.helps();
    scene.nothing_left();
}

#[test]
fn a_registry_that_is_not_there_is_named_and_nothing_is_left() {
    let scene = Scene::new("noregistry");
    with_image(&scene, &format!("{NOBODY}/demo:latest"));
    scene.try_make(&ann(), &[]).ends(1).says(NOBODY).says("refused").helps();
    scene.nothing_left();
}

#[test]
fn a_registry_that_the_host_does_not_allow_is_never_asked() {
    let scene = Scene::new("foreign");
    // It would answer.
    let way = Way::that_stalls_after(0, 5999);
    let pushed = Pushed::image(&scene.project);
    with_image(&scene, &pushed.at(&way.registry));
    scene.try_make(&ann(), &[]).ends(6).says(&way.registry).says("registries").helps();
    assert!(!is_here(&pushed.at(&way.registry)));
    scene.nothing_left();
}

#[test]
fn the_rest_goes_on_beside_the_pull_and_ctrl_c_ends_all() {
    let scene = Scene::new("beside");
    let pushed = Pushed::image(&scene.project);
    let way = Way::that_stalls_after(IN_THE_LAYER, 5002);
    let image = pushed.at(&way.registry);
    with_image(&scene, &image);
    let ann = ann();
    ann.public_key();
    scene.knows(&ann);
    let mut running = Running::start(&ann, &scene.words(&[]));
    let mut missing = std::collections::BTreeSet::from(["opt", "address", "source"]);
    while !missing.is_empty() {
        let ended = std::cell::RefCell::new(String::new());
        let came = running.event("the end of opt, address and source", |event| {
            *ended.borrow_mut() = event["step"].as_str().unwrap_or_default().to_owned();
            event["event"] == "end"
        });
        assert!(came, "the command ended while {missing:?} were not done: {}", running.end().whole());
        missing.remove(ended.borrow().as_str());
    }
    way.until_stalled();
    running.signal(Signal::INT);
    running.end().ends(130);
    // The command has waited until all was undone.
    scene.nothing_left();
    assert!(!is_here(&image));
    way.open();
    let made = scene.make(&ann, &[]);
    scene.ssh(&ann, &made, "/opt/product/say").ok().says(&scene.project);
}

#[test]
fn a_client_that_is_killed_while_it_pulls_is_undone_and_the_next_run_converges() {
    let scene = Scene::new("pullkillcli");
    let pushed = Pushed::image(&scene.project);
    let way = Way::that_stalls_after(IN_THE_LAYER, 5003);
    with_image(&scene, &pushed.at(&way.registry));
    let running = pulling(&scene, &way);
    running.signal(Signal::KILL);
    running.end().ends(128 + 9);
    scene.undone();
    scene.nothing_left();
    way.open();
    let made = scene.make(&ann(), &[]);
    scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
}

/// A tree with `/opt/product` that says `word`.
fn tree(scene: &Scene, word: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let tree = Path::new(scene.site()).join("tree");
    std::fs::create_dir_all(tree.join("product")).unwrap();
    std::fs::write(tree.join("product/word"), word).unwrap();
    std::fs::write(tree.join("product/say"), "#!/bin/sh\ncat /opt/product/word\n").unwrap();
    std::fs::set_permissions(tree.join("product/say"), PermissionsExt::from_mode(0o755)).unwrap();
    tree.to_str().unwrap().to_owned()
}

#[test]
fn a_published_opt_tree_is_the_containers_opt() {
    let scene = Scene::new("ociopt");
    let url = format!("oci://{REGISTRY}/opt/{}:1", scene.project);
    let publish = |word: &str| {
        root().moorage(&["publish-opt", &tree(&scene, word), &url, "--format", "json"]).ok().json()
    };
    let first = publish("one");
    scene.write(&format!("opt = \"{url}\""));
    let ann = ann();
    scene.try_make(&ann, &["--dry-run", "--as-shell"]).ok().says("oras manifest fetch").says(&url[6..]);
    let made = scene.make(&ann, &[]);
    scene.ssh(&ann, &made, "/opt/product/say").ok().says("one");
    assert!(scene.make(&ann, &[]).existed());
    ann.moorage(&["list-projects", "--site", scene.site()]).ok().says(&scene.project);

    // The tag is given to another tree: who is made now has that, who is there keeps theirs, and the digest is the first's.
    publish("two");
    let later = scene.make(&ann, &["--name", &format!("{}-later", scene.project)]);
    scene.ssh(&ann, &later, "/opt/product/say").ok().says("two");
    scene.ssh(&ann, &made, "/opt/product/say").ok().says("one");
    scene.write(&format!("opt = \"{url}@{}\"", first["digest"].as_str().unwrap()));
    let pinned = scene.make(&ann, &["--name", &format!("{}-pinned", scene.project)]);
    scene.ssh(&ann, &pinned, "/opt/product/say").ok().says("one");
}

#[test]
fn an_opt_tree_of_a_registry_that_is_not_allowed_or_does_not_have_it_leaves_nothing() {
    let scene = Scene::new("ocifault");
    for (registry, code, word) in
        [("127.0.0.1:5999", 6, "registries"), (NOBODY, 1, NOBODY), (REGISTRY, 4, "no-such")]
    {
        scene.write(&format!("opt = \"oci://{registry}/opt/no-such:1\""));
        scene.try_make(&ann(), &[]).ends(code).says(word).helps();
        scene.nothing_left();
    }
    // An image is no tree for /opt.
    let pushed = Pushed::image(&scene.project);
    scene.write(&format!("opt = \"oci://{}\"", pushed.at(REGISTRY)));
    scene.try_make(&ann(), &[]).ends(2).says("is not an /opt archive").helps();
    scene.nothing_left();
}

/// These stop daemons.
mod alone {
    use super::*;
    use crate::support::machine::{Daemons, world};

    #[test]
    fn a_daemon_that_is_killed_while_it_pulls_undoes_it_when_it_is_back() {
        let scene = Scene::new("pullkilldaemon");
        let pushed = Pushed::image(&scene.project);
        let way = Way::that_stalls_after(IN_THE_LAYER, 5004);
        with_image(&scene, &pushed.at(&way.registry));
        let _daemons = Daemons;
        let running = pulling(&scene, &way);
        world("kill9", "daemon");
        running.end().ends(1).says("daemon went away");
        world("start", "daemon");
        scene.undone();
        scene.nothing_left();
        way.open();
        let made = scene.make(&ann(), &[]);
        scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
    }

    #[test]
    fn an_engine_that_is_killed_while_it_pulls_is_said_and_nothing_is_left() {
        let scene = Scene::new("pullkillengine");
        let pushed = Pushed::image(&scene.project);
        let way = Way::that_stalls_after(IN_THE_LAYER, 5005);
        with_image(&scene, &pushed.at(&way.registry));
        let _daemons = Daemons;
        let running = pulling(&scene, &way);
        world("kill9", "dockerd");
        let end = running.end();
        assert_ne!(end.code, 0, "{}", end.whole());
        way.open();
        world("start", "dockerd");
        scene.undone();
        scene.nothing_left();
        let made = scene.make(&ann(), &[]);
        scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
    }

    #[test]
    fn images_that_are_here_need_no_registry() {
        let scene = Scene::new("registrydown");
        let pushed = Pushed::image(&scene.project);
        with_image(&scene, &pushed.at(REGISTRY));
        let _registry = Registry;
        world("kill9", "registry");
        scene.try_make(&ann(), &[]).ends(1).says(REGISTRY).helps();
        scene.nothing_left();
        world("start", "registry");
        scene.make(&ann(), &[]);
        scene.remove_all();
        world("kill9", "registry");
        scene.make(&ann(), &[]);
    }

    /// It runs again when this goes.
    struct Registry;

    impl Drop for Registry {
        fn drop(&mut self) {
            world("start", "registry");
        }
    }
}
