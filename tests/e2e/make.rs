//! `make-dev-container` and `make-os-container`: from a branch name to a machine that answers.

use std::path::Path;

use crate::support::archive::{self, Archive};
use crate::support::web::{Manner, Web};
use crate::support::{Made, Scene, ann, bob, carol, machine, root};

#[test]
fn a_branch_becomes_a_machine_on_the_lan() {
    let scene = Scene::new("demo");
    // The built-in project: its archive, source, licence, set-up and check are those of the quickstart.
    scene.raw(
        &std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/roles/dockeruser/projects/demo.toml"))
            .unwrap(),
    );
    std::fs::copy(
        concat!(env!("CARGO_MANIFEST_DIR"), "/roles/dockeruser/licences/demo.lic"),
        Path::new(scene.site()).join("dockeruser/licences/demo.lic"),
    )
    .unwrap();
    let ann = ann();
    let made = scene.make(&ann, &[]);
    let name = made.name();
    assert_eq!(name, format!("{}-main-ann", scene.project));
    assert!(made.mac().starts_with("02:"), "{:#}", made.0);

    // From the host: ping, ssh with exactly the key that was reported, files.
    root().run("ping", &["-c", "1", "-W", "2", &made.address()]).ok();
    let inside =
        scene.ssh(&ann, &made, "id -u; hostname; systemctl is-system-running; cat demo-is-set-up; pwd").ok();
    assert_eq!(inside.stdout, format!("40101\n{name}\nrunning\ndone\n/opt/home/ann\n"));
    scene.ssh(&ann, &made, "git -C /opt/src/demo rev-parse --abbrev-ref HEAD").ok().says("main");
    scene.ssh(&ann, &made, "/opt/demo/bin/hello").ok().says(&name);
    scene.ssh(&ann, &made, "test -O /opt/src/demo/README && sudo -n id -u").ok().says("0");
    // The interface is the container's own: it has the MAC and the address that were reported, and IPv6.
    scene.ssh(&ann, &made, "ip -o link show eth0").ok().says(&made.mac());
    scene.ssh(&ann, &made, "ip -o -4 address show eth0").ok().says(&made.address());
    // The kernel asks first whether anybody has it already.
    let chosen =
        "until ip -o -6 address show dev eth0 scope global -tentative | grep inet6; do sleep 0.1; done";
    let ipv6 = scene.ssh(&ann, &made, chosen).ok();
    let listed = scene.containers().into_iter().find(|one| one["name"] == name.as_str()).unwrap();
    ipv6.says(
        listed["ipv6"][0].as_str().unwrap_or_else(|| panic!("list-containers has no IPv6: {listed:#}")),
    );
    // Names of leases resolve, inside and through the LAN's server.
    scene.ssh(&ann, &made, &format!("getent ahostsv4 {name}")).ok().says(&made.address());
    // The person's view on the host.
    let view = made.opt_directory();
    assert!(view.starts_with(format!("/opt/containers/{name}")), "{}", view.display());
    ann.run("cat", &[view.join("home/ann/demo-is-set-up").to_str().unwrap()]).ok().says("done");
    carol().run("ls", &[view.to_str().unwrap()]).ends(2);
    // The log of the run, root's own.
    let log = std::fs::read_to_string(made.log()).unwrap();
    assert!(log.contains("setting up main for ann"), "{log}");

    root().moorage(&["remove-container", &name, "--yes"]).ok();
    scene.nothing_left();
}

#[test]
fn the_same_again_changes_nothing_and_another_spec_is_refused() {
    let scene = Scene::with_product("again");
    let first = scene.make(&ann(), &[]);
    let second = scene.make(&ann(), &[]);
    assert!(!first.existed() && second.existed());
    assert_eq!((first.mac(), first.address()), (second.mac(), second.address()));
    scene
        .try_make(&ann(), &["--mount", "/opt/reference:/data/reference:ro"])
        .ends(5)
        .says("/opt/reference")
        .helps();
    scene.inside(&ann(), &first.name(), "/opt/product/say").ok().says(&scene.project);
}

#[test]
fn a_stopped_container_is_started_by_the_same_command() {
    let scene = Scene::with_product("stopped");
    let made = scene.make(&ann(), &[]);
    ann().moorage(&["stop-container", &made.name()]).ok();
    let again = scene.make(&ann(), &[]);
    assert!(again.existed());
    assert_eq!(again.address(), made.address());
    scene.ssh(&ann(), &again, "true").ok();
}

#[test]
fn dry_run_prints_the_plan_and_does_nothing() {
    let scene = Scene::with_product("dry");
    scene.try_make(&ann(), &["--dry-run"]).ok().says("/opt");
    let shell = scene.try_make(&ann(), &["--dry-run", "--as-shell"]).ok().says("docker ").says("macvlan");
    // What it prints is a script that a shell can read.
    let mut check = root().command("sh");
    let path = Path::new(scene.site()).join("plan.sh");
    archive::put(&path, shell.stdout.as_bytes());
    crate::support::Outcome::of(check.arg("-n").arg(&path)).ok();
    scene.nothing_left();
}

#[test]
fn two_containers_of_one_person_and_of_two_people_talk_to_each_other() {
    let scene = Scene::with_product("talk");
    let first = scene.make(&ann(), &[]);
    let second = scene.make(&ann(), &["--name", &format!("{}-other", scene.project)]);
    let bobs = scene.make(&bob(), &[]);
    assert_eq!(second.name(), format!("{}-other-ann", scene.project));
    let addresses = [first.address(), second.address(), bobs.address()];
    assert!(addresses[0] != addresses[1] && addresses[1] != addresses[2] && addresses[0] != addresses[2]);
    for made in [&second, &bobs] {
        scene.inside(&ann(), &first.name(), &format!("ping -c 1 -W 2 {}", made.name())).ok();
    }
    // Both are the same archive, which is here once; what one writes the other does not see.
    scene.inside(&ann(), &first.name(), "sudo sh -c 'echo mine >/opt/product/word'").ok();
    scene.inside(&ann(), &second.name(), "/opt/product/say").ok().says(&scene.project);
}

#[test]
fn an_archive_is_fetched_once_a_host() {
    let scene = Scene::new("once");
    let bytes = Archive::product(&scene.project).zst();
    let web = Web::serving(bytes.clone(), Manner::Well);
    scene.write(&format!(
        "opt = {{ url = \"{}\", sha256 = \"{}\" }}",
        web.url("product.tar.zst"),
        archive::sha256(&bytes)
    ));
    let first = scene.make(&ann(), &[]);
    let asked = web.asked();
    assert!(asked > 0);
    scene.make(&bob(), &[]);
    assert_eq!(web.asked(), asked, "the second container fetched it again");
    scene.inside(&ann(), &first.name(), "/opt/product/say").ok().says(&scene.project);
}

#[test]
fn each_format_of_archive_is_taken() {
    let scene = Scene::new("formats");
    let product = || Archive::product(&scene.project);
    for (name, bytes) in
        [("a.tar.gz", product().gz()), ("a.tar.xz", product().xz()), ("a.tar.zst", product().zst())]
    {
        let url = scene.archive(name, &bytes);
        scene.write(&format!("opt = \"{url}\""));
        let made = scene.make(&ann(), &[]);
        scene.inside(&ann(), &made.name(), "/opt/product/say").ok().says(&scene.project);
        scene.remove_all();
    }
}

#[test]
fn a_patch_is_stacked_on_the_archive() {
    let scene = Scene::new("patch");
    let base =
        scene.archive("base.tar.zst", &Archive::product("base").file("product/kept", 0o644, b"kept").zst());
    let patch = scene.archive("p1.tar.zst", &Archive::product("patched").zst());
    scene.write(&format!("opt = \"{base}\"\npatches = {{ p1 = \"{patch}\" }}"));
    let made = scene.make(&ann(), &["--patch", "p1"]);
    scene
        .inside(&ann(), &made.name(), "/opt/product/say; cat /opt/product/kept")
        .ok()
        .says("patched")
        .says("kept");
    scene.try_make(&ann(), &["--patch", "p2"]).ends(4).says("p1").helps();
}

#[test]
fn a_group_owns_a_container_and_each_of_it_may_use_it() {
    let scene = Scene::with_product("group");
    let made = scene.make(&ann(), &["--owner", "@support"]);
    assert_eq!(made.name(), format!("{}-main-support", scene.project));
    scene.inside(&bob(), &made.name(), "/opt/product/say").ok().says(&scene.project);
    carol().moorage(&["enter-container", &made.name(), "--", "true"]).ends(6).helps();
    scene.try_make(&carol(), &["--owner", "@support"]).ends(6).helps();
    bob().moorage(&["stop-container", &made.name()]).ok();
}

#[test]
fn a_host_path_is_mapped_as_asked() {
    let scene = Scene::with_product("mapped");
    let made = scene.make(&ann(), &["--mount", "/opt/reference:/data/reference:ro"]);
    scene
        .inside(&ann(), &made.name(), "cat /data/reference/file; ! sudo touch /data/reference/x")
        .ok()
        .says("reference");
}

#[test]
fn a_vanilla_system_has_its_own_init_or_dockers() {
    let scene = Scene::new("vanilla");
    let ann = ann();
    ann.public_key();
    scene.knows(&ann);
    let make = |image: &str, name: &str| {
        let words =
            ["make-os-container", image, "--name", name, "--site", scene.site(), "--yes", "--format", "json"];
        Made(ann.moorage(&words).ok().json())
    };
    let dev = make("demo", &format!("{}-dev", scene.project));
    scene.inside(&ann, &dev.name(), "cat /proc/1/comm").ok().says("systemd");
    let base = make("debian-12", &format!("{}-base", scene.project));
    scene.inside(&ann, &base.name(), "cat /proc/1/comm").ok().never_says("systemd");
    root().run("ping", &["-c", "1", "-W", "2", &base.address()]).ok();
}

#[test]
fn image_archive_address_and_source_go_on_side_by_side() {
    let scene = Scene::new("parallel");
    let bytes = Archive::product(&scene.project).zst();
    // An archive that never ends: the other three have to finish beside it.
    let web = Web::serving(bytes.clone(), Manner::StallsAfter(10));
    let source = scene.repository(&[("README", 0o644, "source\n")]);
    scene.write(&format!(
        "opt = {{ url = \"{}\", sha256 = \"{}\" }}\n[[defaults.source]]\nrepo = \"{source}\"",
        web.url("product.tar.zst"),
        archive::sha256(&bytes)
    ));
    let ann = ann();
    ann.public_key();
    scene.knows(&ann);
    let mut running = crate::support::Running::start(&ann, &scene.words(&[]));
    let mut missing = std::collections::BTreeSet::from(["image", "address", "source"]);
    while !missing.is_empty() {
        let ended = std::cell::RefCell::new(String::new());
        let came = running.event("the end of image, address and source", |event| {
            *ended.borrow_mut() = event["step"].as_str().unwrap_or_default().to_owned();
            event["event"] == "end"
        });
        assert!(came, "the command ended while {missing:?} were not done: {}", running.end().whole());
        missing.remove(ended.borrow().as_str());
    }
    running.signal(rustix::process::Signal::INT);
    running.end().ends(130);
    scene.undone();
    scene.nothing_left();
}

/// This looks at all interfaces of the host.
mod alone {
    use super::*;

    #[test]
    fn a_plain_docker_container_on_the_lan_works_too() {
        let name = format!("plain{}", std::process::id());
        let before = machine::interfaces();
        root()
            .run(
                "docker",
                &["run", "-d", "--name", &name, "--network", "lan", "moorage/debian-12", "sleep", "infinity"],
            )
            .ok();
        let address = root()
            .run(
                "docker",
                &["inspect", "-f", "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", &name],
            )
            .ok();
        root().run("ping", &["-c", "1", "-W", "2", address.stdout.trim()]).ok();
        root().run("docker", &["rm", "-f", &name]).ok();
        assert_eq!(before, machine::interfaces());
    }
}
