//! Each release of the apt family, from its own package mirror: made twice, it is the same byte for byte.

use crate::author::Author;

/// Makes the built-in base `name`, and once more; what its os-release says has to be `release`.
fn twice(name: &str, release: &str) {
    let author = Author::new();
    author.write("dockeruser/projects/none.toml", "[defaults]\nimage = \"demo\"\n");
    author.ok(&["make-base-image", name]);
    let first = author.id(name);
    let said = author.inside(name, &["sh", "-c", ". /etc/os-release; echo \"$ID-$VERSION_ID\""]);
    assert_eq!(said, release);
    // The company's files, as they are, and nothing that was only for making it.
    for file in ["apt.conf", "dpkg.cfg"] {
        let built_in = format!("{}/roles/common/repos/{name}/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(built_in).unwrap();
        let there = author.inside(name, &["sh", "-c", "cat /etc/apt/apt.conf.d/* /etc/dpkg/dpkg.cfg.d/*"]);
        for line in text.lines().filter(|line| !line.starts_with(['/', '#']) && !line.is_empty()) {
            assert!(there.contains(line), "{line:?} of {file} is not in the image");
        }
        assert!(!there.contains("force-unsafe-io"), "{there}");
    }
    // What dev images are built with.
    author.inside(name, &["apt-get", "--version"]);
    assert_eq!(author.inside(name, &["dpkg", "--audit"]), "");
    // Without the first in the engine, nothing can be taken from it.
    author.engine.docker(&["rmi", "--force", &format!("moorage/{name}:latest")]);
    author.ok(&["make-base-image", name]);
    assert_eq!(author.id(name), first, "the same packages, another image");
    let listed = author.json(&["list-images"]);
    let one = listed["images"].as_array().unwrap().iter().find(|image| image["name"] == name).unwrap();
    assert_eq!(one["stale"], false, "{one:#}");
}

macro_rules! twice {
    ($test:ident, $name:literal, $release:literal) => {
        #[test]
        #[ignore = "needs the package mirror and minutes: scripts/test --soak"]
        fn $test() {
            twice($name, $release);
        }
    };
}

twice!(debian_11_is_made_the_same_twice, "debian-11", "debian-11");
twice!(debian_13_is_made_the_same_twice, "debian-13", "debian-13");
twice!(ubuntu_22_04_is_made_the_same_twice, "ubuntu-22.04", "ubuntu-22.04");
twice!(ubuntu_24_04_is_made_the_same_twice, "ubuntu-24.04", "ubuntu-24.04");
