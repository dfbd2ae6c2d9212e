//! From a package update to new images, and nothing else; what fails promotes nothing; what was killed is gone on with.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::author::Author;
use crate::relay::Relay;
use crate::repository::{Repository, SUITE};

/// A site with the base `local-1`, `small` on it, `top` on that, and `beside` on something else.
pub struct Place {
    author: Author,
    repository: Repository,
}

impl std::ops::Deref for Place {
    type Target = Author;

    fn deref(&self) -> &Author {
        &self.author
    }
}

const IMAGES: [&str; 4] = ["local-1", "small", "top", "beside"];

impl Place {
    pub fn new() -> Place {
        let place = Place { author: Author::new(), repository: Repository::new() };
        place.repository.publish("1.0");
        std::fs::create_dir_all(place.site.path().join("common/repos/local-1")).unwrap();
        let keys = std::fs::read(place.repository.path().join("local.gpg")).unwrap();
        std::fs::write(place.site.path().join("common/repos/local-1/local.gpg"), keys).unwrap();
        place.sources(&place.repository.path(), "");
        place.write(
            "containerauthor/bases/local-1.toml",
            &format!("suite = \"{SUITE}\"\nkeyring = \"local.gpg\"\npackages = [\"hello\"]\nepoch = 1700000000\nchecks = [\"test -s /usr/share/hello\"]\n"),
        );
        place.image("small", "local-1", "true");
        place.image("top", "small", "true");
        place.image("beside", "example.test/ground", "true");
        place.engine.docker(&["import", place.tar(), "example.test/ground:latest"]);
        place
    }

    fn sources(&self, at: &Path, more: &str) {
        self.write(
            "common/repos/local-1/local.sources",
            &format!(
                "# ours\nTypes: deb\nURIs: copy://{}\nSuites: {SUITE}\nComponents: main\n{more}",
                at.display()
            ),
        );
    }

    fn ids(&self) -> Vec<String> {
        IMAGES.iter().map(|name| self.id(name)).collect()
    }

    /// Each image is built on the very image that its parent's name stands for.
    fn is_consistent(&self) {
        for (name, on) in [("small", "local-1"), ("top", "small")] {
            let label = self.engine.docker(&[
                "image",
                "inspect",
                "--format",
                "{{ index .Config.Labels \"moorage.base.id\" }}",
                &format!("moorage/{name}:latest"),
            ]);
            assert_eq!(label, self.id(on), "{name} on {on}");
        }
        assert_eq!(self.ok(&["rebuild-images"]), "");
    }
}

#[test]
#[ignore = "needs the package mirror and minutes: scripts/test --soak"]
fn a_package_update_makes_exactly_the_images_above_it_new() {
    let place = Place::new();
    how_much_of_how_much_is_said(&place);
    place.ok(&["make-dev-image", "beside"]);
    let first = place.ids();
    assert_eq!(place.hello("top"), "1.0");
    place.engine.docker(&["create", "--name", "old", "--network", "none", "moorage/top:latest", "true"]);

    // Nothing is stale.
    assert_eq!(place.ok(&["rebuild-images"]), "");
    let listed = place.json(&["list-images"]);
    let of = |listed: &Value, name: &str| {
        listed["images"].as_array().unwrap().iter().find(|image| image["name"] == name).unwrap().clone()
    };
    assert!(IMAGES.iter().all(|name| of(&listed, name)["stale"] == false), "{listed:#}");
    assert_eq!(of(&listed, "top")["containers"][0]["outdated"], false);

    // The index is signed anew without a change: nothing is stale, and nothing is built.
    place.repository.sign("");
    assert_eq!(place.ok(&["rebuild-images"]), "");

    place.repository.publish("1.1");
    let listed = place.json(&["list-images"]);
    assert!(place.ok(&["list-images"]).contains("hello:all 1.0 → 1.1"));
    let stale: Vec<bool> = IMAGES.iter().map(|name| of(&listed, name)["stale"] == true).collect();
    assert_eq!(stale, [true, true, true, false]);
    assert_eq!(place.ids(), first, "looking changes nothing");
    let planned = place.json(&["rebuild-images", "--dry-run"]);
    let levels: Vec<_> = planned["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["name"].as_str().unwrap(), one["level"].as_u64().unwrap()))
        .collect();
    assert_eq!(levels, [("local-1", 1), ("small", 2), ("top", 3)]);
    assert_eq!(place.ids(), first, "a dry run changes nothing");

    place.ok(&["rebuild-images"]);
    let second = place.ids();
    let same: Vec<bool> = first.iter().zip(&second).map(|(one, two)| one == two).collect();
    assert_eq!(same, [false, false, false, true]);
    assert_eq!(place.hello("top"), "1.1");
    let top = of(&place.json(&["list-images"]), "top");
    assert_eq!(
        (&top["containers"][0]["name"], &top["containers"][0]["outdated"]),
        (&"old".into(), &true.into())
    );
    place.is_consistent();

    a_failing_test_promotes_nothing(&place);
    what_was_killed_is_gone_on_with(&place);
    parents_get_their_names_first_and_who_is_killed_between_two_is_gone_on_with(&place);
}

/// The base's bytes on their way to the engine, and the steps of a build.
fn how_much_of_how_much_is_said(place: &Place) {
    let site = place.site.path().to_str().unwrap();
    let words = ["--site", site, "--progress", "json", "make-dev-image", "top"];
    let (code, _, told) = place.engine.moorage(&words);
    assert_eq!(code, 0, "{told}");
    let events = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let (mut bytes, mut items) = (Vec::new(), Vec::new());
    for event in events.filter(|event| event["event"] == "progress") {
        let (done, total) = (event["done"].as_u64().unwrap(), event["total"].as_u64());
        match event["unit"] == "bytes" {
            true => bytes.push((done, total)),
            false => items.push((done, total.expect("a total"))),
        }
    }
    // How much it will be is known when it is written.
    let (done, total) = bytes.pop().expect("bytes of the base");
    assert!(total == Some(done) && done > 1 << 20, "{bytes:?}");
    assert!(bytes.iter().all(|(_, total)| total.is_none()), "{bytes:?}");
    assert!(bytes.windows(2).all(|two| two[0].0 <= two[1].0), "{bytes:?}");
    // Two images of as many steps: the builder counts the labels, too.
    let total = items.first().expect("steps of the builds").1;
    let once = || (1..=total).map(|step| (step, total));
    assert_eq!(items, once().chain(once()).collect::<Vec<_>>());
}

fn a_failing_test_promotes_nothing(place: &Place) {
    let before = place.ids();
    place.repository.publish("1.2");
    place.image("top", "small", "test -e /nowhere");
    let (code, _, told) = place.moorage(&["rebuild-images"]);
    assert_eq!(code, 1);
    assert!(told.contains("top fails its test") && told.contains("test -e /nowhere"), "{told}");
    assert_eq!(place.ids(), before);
    // What was good waits, and only what failed is made again.
    place.image("top", "small", "grep -q 1.2 /usr/share/hello");
    let (code, _, told) = place.moorage(&["rebuild-images"]);
    assert_eq!(code, 0, "{told}");
    for kept in ["local-1", "small"] {
        assert!(told.contains(&format!("{kept}: was made and tried before")), "{told}");
    }
    assert!(!told.contains("top: was made"), "{told}");
    assert_eq!(place.hello("top"), "1.2");
    place.is_consistent();
}

fn what_was_killed_is_gone_on_with(place: &Place) {
    place.image("top", "small", "test -s /usr/share/hello");
    for (version, step) in [("1.3", "small"), ("1.4", "top")] {
        place.repository.publish(version);
        let site = place.site.path().to_str().unwrap();
        let mut command = place.engine.command(&["--site", site, "--progress", "json", "rebuild-images"]);
        let mut running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(running.stderr.take().unwrap()).lines();
        let reached = lines.map(Result::unwrap).any(|line| {
            serde_json::from_str::<Value>(&line)
                .is_ok_and(|event| event["event"] == "begin" && event["step"] == step)
        });
        assert!(reached, "{step} never began");
        running.kill().unwrap();
        running.wait().unwrap();
        assert_ne!(place.hello("top"), version);
        place.ok(&["rebuild-images"]);
        assert_eq!(place.hello("top"), version);
        place.is_consistent();
    }
    let left = place.engine.docker(&["ps", "--all", "--quiet", "--filter", "label=moorage.trial"]);
    assert_eq!(left, "", "trials were left");
}

fn parents_get_their_names_first_and_who_is_killed_between_two_is_gone_on_with(place: &Place) {
    for (version, promoted) in [("1.5", 1), ("1.6", 2)] {
        place.repository.publish(version);
        let before = place.ids();
        let engine = place.engine.directory.path();
        let relay = Relay::holding(
            &engine.join("socket"),
            &engine.join(format!("relay{promoted}")),
            "/tag?",
            promoted,
        );
        let site = place.site.path().to_str().unwrap();
        let mut command = place.engine.command(&["--site", site, "rebuild-images"]);
        command.env("DOCKER_HOST", &relay.socket).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = command.spawn().unwrap();
        relay.until_held();
        running.kill().unwrap();
        running.wait().unwrap();
        // `local-1`, `small` and `top`, in this order; `beside` is none of them.
        let renamed: Vec<bool> = before.iter().zip(place.ids()).map(|(one, two)| *one != two).collect();
        assert_eq!(renamed, [true, promoted > 1, false, false]);
        let (code, _, told) = place.moorage(&["rebuild-images"]);
        assert_eq!(code, 0, "{told}");
        assert!(!told.contains("Step "), "what was good is not built again: {told}");
        assert_eq!((place.hello("top"), place.hello("small")), (version.into(), version.into()));
        place.is_consistent();
    }
}

#[test]
#[ignore = "needs the package mirror and minutes: scripts/test --soak"]
fn mistakes_name_file_and_line() {
    let place = &Place::new();
    let told = |place: &Place| {
        let (code, _, told) = place.moorage(&["make-base-image", "local-1", "--refresh"]);
        assert_ne!(code, 0);
        (code, told)
    };
    let file = "common/repos/local-1/local.sources";
    place.sources(Path::new("/nowhere"), "");
    let (_, said) = told(place);
    assert!(said.contains(&format!("{file}:3: ")), "{said}");
    // Nobody listens there.
    place.write(
        file,
        &format!("# ours\nTypes: deb\nURIs: http://127.0.0.1:1/debian\nSuites: {SUITE}\nComponents: main\n"),
    );
    let (code, said) = told(place);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("{file}:3: the repository cannot be reached")), "{said}");
    place.sources(&place.repository.path(), "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n");
    let (_, said) = told(place);
    assert!(said.contains(&format!("{file}:3: ")) && said.contains("another key"), "{said}");
    place.sources(&place.repository.path(), "Signed-By: /nowhere.gpg\n");
    let (code, said) = told(place);
    assert_eq!(code, 3);
    assert!(said.contains(&format!("{file}:6: ")) && said.contains("/nowhere.gpg"), "{said}");
    place.sources(&place.repository.path(), "");
    // What was signed is not what is there.
    place.repository.forge();
    let (code, said) = told(place);
    assert_eq!(code, 1);
    assert!(said.contains(&format!("{file}:3: the repository's signature is wrong")), "{said}");
    assert!(said.contains("BADSIG"), "{said}");
    place.repository.sign("Valid-Until: Sat, 01 Jan 2022 00:00:00 UTC\\n");
    let (_, said) = told(place);
    assert!(said.contains(&format!("{file}:3: ")) && said.contains("out of date"), "{said}");
    place.repository.sign("");
    // The base's own keyring.
    let definition = "containerauthor/bases/local-1.toml";
    let with = |keyring: &str| {
        let text = format!(
            "suite = \"{SUITE}\"\nkeyring = \"{keyring}\"\npackages = [\"hello\"]\nepoch = 1700000000\n"
        );
        place.write(definition, &text);
    };
    with("none.gpg");
    let (code, said) = told(place);
    assert_eq!(code, 3);
    assert!(said.contains(&format!("{definition}:2:11: the keyring none.gpg is not there")), "{said}");
    with("local.gpg");
    place.ok(&["make-base-image", "local-1", "--refresh"]);
}
