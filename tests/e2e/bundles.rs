//! create-bundle and apply-bundle: what one registry has, in another that has nothing, in a world without a way out.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::support::served::{ADDRESS, PULL, PUSH, Place, STATE};
use crate::support::{Outcome, Scene, ann, root};

/// A registry with things, and a bundle of it.
struct Bundled {
    place: Place,
    parts: PathBuf,
    key: PathBuf,
}

impl Bundled {
    /// Of all that the registry has, in parts of at most 2 MB.
    fn of(place: Place) -> Bundled {
        let parts = place.directory.path().join("parts");
        let key = place.directory.path().join("bundle.pub");
        let bundled = Bundled { place, parts, key };
        let made = bundled.create(&["--format", "json"]).ok().json();
        std::fs::write(&bundled.key, made["key"].as_str().unwrap()).unwrap();
        bundled
    }

    fn create(&self, more: &[&str]) -> Outcome {
        let words = ["create-bundle", self.parts.to_str().unwrap(), "--part-size", "2MB", "--only-images"];
        root().moorage(&[&words[..], more].concat())
    }

    fn apply(&self, parts: &[&Path], more: &[&str]) -> Outcome {
        let mut words = vec!["apply-bundle", "--key", self.key.to_str().unwrap()];
        words.extend(parts.iter().map(|part| part.to_str().unwrap()));
        root().moorage(&[&words[..], more].concat())
    }

    fn all(&self) -> Vec<PathBuf> {
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(&self.parts).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        all
    }

    /// Another registry in place of this one: another authority, and nothing in it.
    fn another_registry(&self) {
        root().moorage(&["stop-registry"]).ok();
        std::fs::remove_dir_all(STATE).unwrap();
        root().shell(&format!("rm -rf /etc/docker/certs.d/{ADDRESS}:*")).ok();
        self.place.start(&["--name", ADDRESS, "--port", "6443", "--trust"]).ok();
    }

    fn is_empty(&self) -> bool {
        self.place.show()["repositories"].as_array().unwrap().is_empty()
    }
}

#[test]
fn a_container_is_made_where_no_network_goes() {
    let scene = Scene::new("bundled");
    let place = Place::published_to();
    let (image, opt) = (format!("{}:1", scene.project), format!("opt/{}:1", scene.project));
    root().run("docker", &["tag", "moorage/demo", &format!("{PUSH}/{image}")]).ok();
    place.docker("ann", &["push", "-q", &format!("{PUSH}/{image}")]).ok();
    let tree = Path::new(scene.site()).join("tree");
    std::fs::create_dir_all(tree.join("product")).unwrap();
    std::fs::write(tree.join("product/word"), "crossed").unwrap();
    let config = place.directory.path().join("ann");
    let mut publish = root().command("moorage");
    publish.env("DOCKER_CONFIG", config).args([
        "publish-opt",
        tree.to_str().unwrap(),
        &format!("oci://{PUSH}/{opt}"),
    ]);
    Outcome::of(&mut publish).ok();
    root().run("docker", &["rmi", &format!("{PUSH}/{image}")]).ok();

    let parts = place.directory.path().join("parts");
    let key = place.directory.path().join("bundle.pub");
    let created = root()
        .moorage(&["create-bundle", parts.to_str().unwrap(), "--part-size", "100MB", "--format", "json"])
        .ok()
        .json();
    std::fs::write(&key, created["key"].as_str().unwrap()).unwrap();
    assert_eq!(created["images"].as_array().unwrap().len(), 2, "{created:#}");
    let bundled = Bundled { place, parts, key };
    bundled.another_registry();
    let way_out = root().shell("ip route show default; ip -6 route show default").ok();
    assert_eq!(way_out.stdout, "");
    let programs = bundled.place.directory.path().join("programs");
    bundled
        .apply(&[&bundled.parts], &["--programs", programs.to_str().unwrap()])
        .ok()
        .says("docker-registry");
    root().run(programs.join("docker-registry").to_str().unwrap(), &["--version"]).ok().says("docker");
    root().run(programs.join("moorage").to_str().unwrap(), &["--version"]).ok().says("moorage");
    assert!(bundled.is_empty());
    let applied = bundled.apply(&[&bundled.parts], &["--format", "json"]).ok().json();
    assert_eq!(applied["images"].as_array().unwrap().len(), 2, "{applied:#}");
    assert!(applied["new_blobs"].as_u64().unwrap() > 2, "{applied:#}");
    bundled.place.blobs_are_whole();

    scene.raw(&format!(
        "[defaults]\nimage = \"{PULL}/{image}\"\nopt = \"oci://{PULL}/{opt}\"\n[[branch]]\nmatch = \"main\"\n"
    ));
    let made = scene.make(&ann(), &[]);
    scene.ssh(&ann(), &made, "cat /opt/product/word").ok().says("crossed");
    scene.remove_all();
    root().run("docker", &["rmi", &format!("{PULL}/{image}")]).ok();
}

#[test]
fn parts_are_written_once_verified_alone_and_taken_in_once() {
    let place = Place::published_to();
    for name in ["siem:1", "siem:2", "other:1"] {
        place.publish(&[name]);
    }
    let bundled = Bundled::of(place);
    let all = bundled.all();
    assert!(all.len() >= 5, "{all:?}");
    for part in &all {
        assert!(std::fs::metadata(part).unwrap().len() <= 2_000_000, "{part:?}");
        bundled.apply(&[part], &["--dry-run"]).ok().says("as it was signed");
    }
    // A run that was interrupted had written some of them.
    let times = |parts: &[PathBuf]| -> Vec<_> {
        parts.iter().map(|part| std::fs::metadata(part).unwrap().modified().unwrap()).collect()
    };
    let before = times(&all[1..]);
    std::fs::remove_file(&all[0]).unwrap();
    assert_eq!(bundled.create(&["--format", "json"]).ok().json()["kept"], all.len() - 1);
    assert_eq!(times(&all[1..]), before);
    // Some only, and none.
    let some = bundled.place.directory.path().join("some");
    let words = ["create-bundle", some.to_str().unwrap(), "siem:1", "--only-images"];
    let made = root().moorage(&[&words[..], &["--format", "json"]].concat()).ok().json();
    assert_eq!((made["images"].as_array().unwrap().len(), made["parts"].as_array().unwrap().len()), (1, 1));
    root().moorage(&["create-bundle", some.to_str().unwrap(), "none:*"]).ends(4).helps();
    root().moorage(&["create-bundle", some.to_str().unwrap(), "--part-size", "1KB"]).ends(2).helps();

    // OpenSSH and any tar tell the same.
    let look = bundled.place.directory.path().join("look");
    root()
        .shell(&format!(
            "mkdir {0}; cd {0}; for part in {1}/*; do tar -xf $part; done; printf 'us %s\\n' \"$(cat {2})\" >allowed; \
             ssh-keygen -Y verify -f allowed -I us -n moorage-bundle -s bundle.json.sig <bundle.json; \
             cat oci-layout; ls index.json blobs/sha256",
            look.display(),
            bundled.parts.display(),
            bundled.key.display()
        ))
        .ok()
        .says("imageLayoutVersion");

    bundled.another_registry();
    // It is killed after a part, and again when all blobs are there: nobody sees anything of it.
    for place in ["bundle-part", "bundle-stored"] {
        let mut command = root().command("moorage");
        command.env("MOORAGE_FAILPOINT", place).args([
            "apply-bundle",
            "--key",
            bundled.key.to_str().unwrap(),
        ]);
        let killed = Outcome::of(command.arg(&bundled.parts));
        assert_eq!(killed.code, 128 + 9, "{}", killed.whole());
        assert!(bundled.is_empty());
    }
    let applied = bundled.apply(&[&bundled.parts], &["--format", "json"]).ok().json();
    assert_eq!((&applied["new_blobs"], applied["images"].as_array().unwrap().len()), (&0.into(), 3));
    for name in ["siem:1", "siem:2", "other:1"] {
        let image = format!("{PULL}/{name}");
        bundled.place.docker("nobody", &["pull", "-q", &image]).ok();
        root().run("docker", &["rmi", &image]).ok();
    }
    bundled.apply(&[&bundled.parts], &[]).ok().says("verified").says("0 new blobs");
    bundled.place.blobs_are_whole();
    assert!(!Path::new(STATE).join("data/incoming").exists());
    // What it brought is as good as pushed: it is collected like it.
    bundled.place.collect(&["--keep-tag", "siem:1", "--grace", "0s", "--yes"]).ok().says("other:1");
    bundled.place.docker("nobody", &["pull", "-q", &format!("{PULL}/siem:1")]).ok();
}

#[test]
fn what_is_not_as_it_was_signed_is_said_and_nothing_is_visible() {
    let place = Place::published_to();
    place.publish(&["siem:1"]);
    place.publish(&["siem:2"]);
    let bundled = Bundled::of(place);
    let all = bundled.all();
    let other = bundled.place.directory.path().join("other");
    let words = ["create-bundle", other.to_str().unwrap(), "siem:1", "--part-size", "2MB", "--only-images"];
    root().moorage(&words).ok();
    bundled.another_registry();

    // Missing, and of another bundle.
    let without: Vec<&Path> = all.iter().skip(1).map(PathBuf::as_path).collect();
    bundled.apply(&without, &[]).ends(4).says("missing: 1 of").helps();
    let mut mixed: Vec<&Path> = without.clone();
    let foreign = other.join("part-001.tar");
    mixed.push(&foreign);
    bundled.apply(&mixed, &[]).ends(2).says("different bundles").helps();
    bundled.apply(&[Path::new("/nowhere")], &[]).ends(4).helps();
    // By somebody else.
    root().shell("rm -f other-key*; ssh-keygen -q -t ed25519 -N '' -f other-key").ok();
    let others = root().home.join("other-key.pub");
    root()
        .moorage(&["apply-bundle", bundled.parts.to_str().unwrap(), "--key", others.to_str().unwrap()])
        .ends(6)
        .says("not signed by a trusted key")
        .helps();
    assert!(bundled.is_empty());

    // Each kind of damage to the second part.
    let part = &all[1];
    let good = std::fs::read(part).unwrap();
    let contents = 512 + 20;
    for (at, code) in [(good.len() as u64 / 2, 1), (contents, 6), (10, 1)] {
        let byte = [good[usize::try_from(at).unwrap()] ^ 1];
        std::fs::File::options().write(true).open(part).unwrap().write_at(&byte, at).unwrap();
        let said = bundled.apply(&[&bundled.parts], &[]).ends(code).says("part-002.tar");
        said.helps();
        bundled.apply(&[part], &["--dry-run"]).ends(code).says("part-002.tar").helps();
        assert!(bundled.is_empty());
        std::fs::write(part, &good).unwrap();
    }
    for length in [good.len() / 2, 700, 100, 0] {
        std::fs::write(part, &good[..length]).unwrap();
        bundled.apply(&[&bundled.parts], &[]).ends(1).says("part-002.tar").helps();
        assert!(bundled.is_empty());
    }
    std::fs::write(part, &good).unwrap();
    bundled.apply(&[&bundled.parts], &[]).ok();
    bundled.place.docker("nobody", &["pull", "-q", &format!("{PULL}/siem:2")]).ok();
    bundled.place.blobs_are_whole();
}
