//! check-site as whoever writes a site uses it: every variant of every template, with the real tools, and without an engine.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::process::Command;

use serde_json::Value;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        Place(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> &Place {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
        self
    }

    fn image(&self, name: &str, image: &str, dockerfile: &str) -> &Place {
        let directory = format!("containerauthor/images/{name}");
        self.write(&format!("{directory}/image.toml"), image)
            .write(&format!("{directory}/Dockerfile.j2"), dockerfile)
    }

    /// Exit code, the mistakes without the site's directory, and what was not checked.
    fn check(&self) -> (i32, Vec<String>, Vec<String>, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorage"));
        command.args(["--site", self.0.path().to_str().unwrap(), "check-site", "--format", "json"]);
        // No engine is there.
        let output = command.env("DOCKER_HOST", "unix:///nowhere").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let said: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{told}"));
        let site = format!("{}/", self.0.path().display());
        let texts = |list: &Value| -> Vec<String> {
            let list = list.as_array().unwrap().iter();
            list.map(|one| one["what"].as_str().or(one.as_str()).unwrap().replace(&site, "")).collect()
        };
        (output.status.code().unwrap(), texts(&said["mistakes"]), texts(&said["unchecked"]), said.clone())
    }
}

#[test]
fn the_built_in_site_is_right_and_what_was_not_checked_is_said() {
    let place = Place::new();
    place.write("dockeruser/projects/mine.toml", "[defaults]\nimage = \"demo\"\n");
    let (code, mistakes, unchecked, said) = place.check();
    assert_eq!((code, mistakes), (0, Vec::new()));
    assert_eq!((said["projects"].as_u64(), said["bases"].as_u64()), (Some(2), Some(11)));
    assert_eq!((said["images"].as_u64(), said["variants"].as_u64()), (Some(1), Some(3)));
    assert!(unchecked.iter().any(|what| what.contains("they are only parsed")), "{unchecked:?}");
}

#[test]
fn every_mistake_of_an_image_has_its_line() {
    let place = Place::new();
    let base = "base = \"debian-12\"\n";
    place.image("word", base, "FROM {{ base }}\nRUM true\n");
    place.image("none", base, "FROM {{ base }}\nRUN echo {{ vars.nothing }}\n");
    place.image(
        "shell",
        base,
        "FROM {{ base }}\nENV dir=/x\nRUN ls \\\n # why\n && cd $dir\nRUN [[ -e /x ]]\n",
    );
    place.image("bash", base, "FROM {{ base }}\nSHELL [\"/bin/bash\", \"-c\"]\nRUN [[ -e /x ]]\n");
    place.image("exec", base, "FROM {{ base }}\nCMD [\"a\", \"b\"]\nENTRYPOINT exec it $(which x\n");
    place.image("open", base, "FROM debian:12\n");
    // Only what a variant has: a loop over packages makes a script of its own.
    place.image(
        "loop",
        "base = \"debian-12\"\npackages = [\"a\", \"b c\"]\n",
        "FROM {{ base }}\n{% for one in packages %}RUN [ {{ one }} == a ]\n{% endfor %}",
    );
    place.image("other", base, "FROM {{ base }}\nSHELL [\"/usr/bin/python3\", \"-c\"]\nRUN print()\n");
    place.image("check", "base = \"debian-12\"\nchecks = [\"if true\"]\n", "FROM {{ base }}\n");
    place.write("containerauthor/images/copied/image.toml", base);
    place.write("containerauthor/images/copied/Dockerfile", "FROM debian-12\n");
    let (code, mistakes, unchecked, _) = place.check();
    assert_eq!(code, 2);
    insta::assert_debug_snapshot!((
        mistakes,
        unchecked.into_iter().filter(|what| what.contains("images/")).collect::<Vec<_>>()
    ));
}

#[test]
fn every_branch_of_a_project_is_looked_at_with_its_own_values() {
    let place = Place::new();
    place.write(
        "dockeruser/projects/siem.toml",
        "[defaults]\nimage = \"demo\"\nsetup = [\"cd /opt/{project}/{branch}\", \"ls {owner}\"]\n\
         source = [{ repo = \"/srv/a/x\" }]\n\
         [[branch]]\nmatch = \"9.2\"\nlicence = { file = \"licences/{branch}.lic\", to = \"/opt/l\" }\n\
         [[branch]]\nmatch = \"{8.1,8.2}-*\"\nsetup = [\"if [ {branch} == x ]; then true; fi\"]\n\
         [[branch]]\nmatch = \"7.*\"\nsource = [{ repo = \"/srv/a/x\" }, { repo = \"/srv/b/x\" }]\n\
         [[branch]]\nmatch = \"6\"\nready = \"curl {brnch}\"\n",
    );
    let (code, mistakes, _, said) = place.check();
    assert_eq!(code, 2);
    // Its setup for each pattern and each alternative of one, and those of the demo.
    assert!(said["scripts"].as_u64().unwrap() >= 8, "{said:#}");
    insta::assert_debug_snapshot!(mistakes);
}

/// What the commands for beginners write is right, whatever they are told.
#[test]
fn what_new_site_and_new_project_write_is_right_in_all_variants() {
    let schema: Value =
        serde_json::from_str(include_str!("../templates/site/schema/project.schema.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let site = directory.path().join("site");
    let site = site.to_str().unwrap();
    let moorage = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorage"));
        let output = command.args(words).env("DOCKER_HOST", "unix:///nowhere").output().unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words:?}: {told}");
    };
    moorage(&["new-site", site]);
    let options: [[&str; 2]; 3] = [
        ["--image", "debian-12"],
        ["--opt", "oci://registry.corp:5000/opt/x:{branch}"],
        ["--repo", "ssh://git@git.corp/it's \"x\".git"],
    ];
    for which in 0..1 << options.len() {
        let name = format!("p{which}");
        let chosen = options.iter().enumerate().filter(|(at, _)| which >> at & 1 == 1);
        let words: Vec<&str> = chosen.flat_map(|(_, words)| *words).collect();
        moorage(&[&["new-project", &name, "--site", site], words.as_slice()].concat());
        let file = format!("{site}/dockeruser/projects/{name}.toml");
        let text = std::fs::read_to_string(file).unwrap();
        let value = serde_json::to_value(toml::from_str::<toml::Table>(&text).unwrap()).unwrap();
        assert!(schema.is_valid(&value), "{text}");
        for (at, [_, wanted]) in options.iter().enumerate() {
            let wanted = serde_json::to_string(wanted).unwrap();
            let there = value.to_string().contains(&wanted);
            assert_eq!(there, which >> at & 1 == 1, "{wanted} in {text}");
        }
    }
    moorage(&["check-site", "--site", site]);
}
