//! The rpm family: two stages with real tools, from a repository of our own; the same again byte for byte; a package update
//! makes what is above it new; what cannot be verified is not made.

use serde_json::Value;

use crate::author::Author;
use crate::rpm_repository::RpmRepository;

const REPO: &str = "common/repos/el-1/local.repo";

/// A site with the base `el-1`, `tool` on it, and `beside` on nothing of it.
struct Place {
    author: Author,
    repository: RpmRepository,
}

impl std::ops::Deref for Place {
    type Target = Author;

    fn deref(&self) -> &Author {
        &self.author
    }
}

impl Place {
    fn new() -> Place {
        Place::with(RpmRepository::new())
    }

    fn with(repository: RpmRepository) -> Place {
        let mut place = Place { author: Author::new(), repository };
        // dnf knows no quotes.
        let word = place.engine.directory.path().join("word");
        place.author.engine.temporary = word;
        place.base("hello");
        place.repo(&place.repository.path().display().to_string(), "gpgcheck=1");
        place.key("KEY-local");
        place.image("tool", "el-1", "grep -q tool /tool");
        place
    }

    fn base(&self, package: &str) {
        self.write(
            "containerauthor/bases/el-1.toml",
            &format!("release = \"1\"\npackages = [\"{package}\"]\nepoch = 1700000000\nchecks = [\"test -s /usr/share/hello\"]\n"),
        );
    }

    fn repo(&self, at: &str, more: &str) {
        self.write(
            REPO,
            &format!("# ours\n[local]\nname=ours\nbaseurl=file://{at}\nrepo_gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/KEY\n{more}\n"),
        );
    }

    fn key(&self, name: &str) {
        std::fs::write(self.site.path().join("common/repos/el-1/KEY"), self.repository.key(name)).unwrap();
    }

    fn refused(&self) -> (i32, String) {
        let (code, _, told) = self.moorage(&["make-base-image", "el-1", "--refresh"]);
        assert_ne!(code, 0);
        (code, told)
    }
}

#[test]
#[ignore = "needs the package mirror and minutes: scripts/test --soak"]
fn a_base_of_the_rpm_family_and_what_is_above_it() {
    let place = Place::new();
    place.ok(&["make-dev-image", "tool"]);
    assert_eq!(place.hello("tool"), "1.0");
    let (base, tool) = (place.id("el-1"), place.id("tool"));
    assert_eq!(place.inside("el-1", &["cat", "/usr/share/hello-is"]), "set up");
    // Stage 0 is not part of it; what the base's own tools need is.
    place.inside("el-1", &["test", "!", "-e", "/usr/bin/dnf"]);
    place.inside("el-1", &["test", "-s", "/var/lib/rpm/rpmdb.sqlite"]);
    place.inside("el-1", &["grep", "-q", "gpgcheck=1", "/etc/yum.repos.d/local.repo"]);
    place.inside("el-1", &["test", "-s", "/etc/pki/rpm-gpg/KEY"]);
    assert_eq!(place.inside("el-1", &["cat", "/etc/shadow"]), "root:*:19675:0:99999:7:::");

    // The same packages make the same image, later too; so does a lock.
    place.ok(&["make-base-image", "el-1", "--refresh"]);
    assert_eq!(place.id("el-1"), base);
    let lock = place.site.path().join("containerauthor/bases/el-1.lock");
    place.ok(&["make-base-image", "el-1", "--lock", lock.to_str().unwrap()]);
    let text = std::fs::read_to_string(&lock).unwrap();
    assert!(
        text.contains("\"hello:x86_64\" = \"1.0-1\"") && text.contains("\"basefiles:x86_64\" = \"1-1\""),
        "{text}"
    );
    assert_eq!(place.id("el-1"), base);
    place.engine.docker(&["rmi", "--force", "moorage/el-1:latest", "moorage/tool:latest"]);
    place.ok(&["make-base-image", "el-1"]);
    assert_eq!(place.id("el-1"), base);
    std::fs::remove_file(&lock).unwrap();
    place.ok(&["make-dev-image", "tool"]);
    let tool_again = place.id("tool");
    assert_ne!(tool, "");
    assert_eq!(place.ok(&["rebuild-images"]), "");

    place.repository.publish("1.1");
    assert!(place.ok(&["list-images"]).contains("hello:x86_64 1.0-1 → 1.1-1"));
    let planned: Value = place.json(&["rebuild-images", "--dry-run"]);
    let names: Vec<&str> =
        planned["images"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["el-1", "tool"]);
    place.ok(&["rebuild-images"]);
    assert_eq!(place.hello("tool"), "1.1");
    assert!(place.id("el-1") != base && place.id("tool") != tool_again);
    assert_eq!(place.ok(&["rebuild-images"]), "");

    what_cannot_be_verified_is_not_made(&place);
    a_directory_that_dnf_takes_apart_is_named(place);
}

/// EL 8's rpm knows no other database.
#[test]
#[ignore = "needs the package mirror and minutes: scripts/test --soak"]
fn a_base_whose_packages_are_in_berkeley_db_is_the_same_byte_for_byte() {
    let place = Place::with(RpmRepository::with_berkeley_db());
    place.ok(&["make-base-image", "el-1"]);
    let base = place.id("el-1");
    let lock = place.site.path().join("containerauthor/bases/el-1.lock");
    place.ok(&["make-base-image", "el-1", "--refresh", "--lock", lock.to_str().unwrap()]);
    assert_eq!(place.id("el-1"), base, "made anew");
    place.engine.docker(&["rmi", "--force", "moorage/el-1:latest"]);
    place.ok(&["make-base-image", "el-1"]);
    assert_eq!(place.id("el-1"), base, "made from its lock");

    // It is a database, with these packages in it, to whoever reads such.
    place.engine.docker(&["create", "--name", "look", "--network", "none", "moorage/el-1:latest", "true"]);
    let to = place.site.path().join("copied");
    place.engine.docker(&["cp", "look:/var/lib/rpm", to.to_str().unwrap()]);
    assert!(to.join("Packages").is_file() && !to.join("rpmdb.sqlite").exists());
    let asked = |question: &[&str]| {
        let mut rpm = std::process::Command::new("rpm");
        rpm.args(["--define", "_db_backend bdb_ro", "--dbpath", to.to_str().unwrap()]).args(question);
        let said = rpm.args(["--qf", "%{NAME} "]).output().unwrap();
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let all = asked(&["-qa"]);
    assert!(all.contains("hello ") && all.contains("basefiles "), "{all}");
    assert_eq!(asked(&["-q", "--whatprovides", "/bin/sh"]), "basefiles ");
}

fn a_directory_that_dnf_takes_apart_is_named(mut place: Place) {
    place.author.engine.temporary = place.engine.directory.path().join("two words");
    let (code, told) = place.refused();
    assert!(code == 2 && told.contains("two words") && told.contains("TMPDIR=/var/tmp"), "{code}: {told}");
}

fn what_cannot_be_verified_is_not_made(place: &Place) {
    let before = place.id("el-1");
    let at = place.repository.path().display().to_string();
    place.repo("/nowhere", "");
    let (_, said) = place.refused();
    assert!(said.contains(&format!("{REPO}:4: the repository cannot be reached")), "{said}");
    place.repo(&at, "gpgcheck=0");
    let (code, said) = place.refused();
    assert_eq!(code, 2);
    assert!(said.contains(&format!("{REPO}:7: gpgcheck is switched off")), "{said}");
    place.repo(&at, "");
    place.key("KEY-other");
    let (_, said) = place.refused();
    assert!(
        said.contains(&format!("{REPO}:4: the signature of the repository's metadata is wrong")),
        "{said}"
    );
    std::fs::remove_file(place.site.path().join("common/repos/el-1/KEY")).unwrap();
    let (code, said) = place.refused();
    assert_eq!(code, 3);
    assert!(said.contains(&format!("{REPO}:6: the key /etc/pki/rpm-gpg/KEY is not there")), "{said}");
    place.key("KEY-local");
    place.base("gti");
    let (_, said) = place.refused();
    assert!(said.contains("bases/el-1.toml:2:13: there is no package \"gti\""), "{said}");
    place.repository.publish_unsigned();
    place.base("odd");
    let (_, said) = place.refused();
    assert!(said.contains(&format!("{REPO}:4: the repository has a package that is not signed")), "{said}");
    assert_eq!(place.id("el-1"), before, "what was refused has changed nothing");
}
