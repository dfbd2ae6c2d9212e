//! Squashing: one layer above the base, and a container sees the very same files.

use std::path::Path;

use crate::author::Author;

/// What layers can do to each other and to the base.
const STEPS: [&str; 12] = [
    "rm /gone && rm -r /was-dir && echo file >/was-dir",
    "rm -r /dir && mkdir /dir && echo new >/dir/new",
    "echo one >/one && ln /one /two && ln /one /three",
    "echo other >/other && mv /other /one",
    "rm /was-file && mkdir /was-file && echo in >/was-file/in",
    "echo temporary >/temporary && mkdir /temporaries && echo x >/temporaries/x",
    "rm -r /temporary /temporaries",
    "rm -r /back && echo file >/back",
    "rm /back && mkdir /back && echo y >/back/y",
    "chown 12:34 /kept/x && chmod 4755 /kept/y && ln -s /nowhere /link",
    "mkdir -p /deep/er && echo 1 >/deep/er/1 && echo 2 >/deep/2",
    "rm /deep/er/1 && echo 3 >/deep/er/3",
];
const FLOOR: &str = "mkdir -p /dir/sub /was-dir /kept /back && echo a >/dir/a && echo b >/dir/sub/b && \
                     echo x >/was-dir/x && echo x >/kept/x && echo y >/kept/y && echo f >/was-file && \
                     echo g >/gone && echo old >/back/old";

impl Author {
    fn steps(&self, name: &str, base: &str, steps: &[&str]) {
        let directory = format!("containerauthor/images/{name}");
        self.write(&format!("{directory}/image.toml"), &format!("base = \"{base}\"\n"));
        let runs: String = steps.iter().map(|step| format!("RUN {step}\n")).collect();
        self.write(&format!("{directory}/Dockerfile.j2"), &format!("FROM {{{{ base }}}}\n{runs}"));
    }

    /// Every file that a container of the image sees, with all that can be told of it.
    fn files(&self, name: &str, into: &Path) -> String {
        let container = self.engine.docker(&["create", &format!("moorage/{name}:latest"), "true"]);
        let tar = into.with_extension("tar");
        self.engine.docker(&["export", "--output", tar.to_str().unwrap(), &container]);
        self.engine.docker(&["rm", &container]);
        std::fs::create_dir(into).unwrap();
        let script = "tar -xf \"$1\" -C \"$2\" && cd \"$2\" && find . ! -type d -printf '%P %y %m %U %G %n %l\\n' -o -printf '%P %y %m %U %G\\n' | sort";
        let words = ["-euc", script, "sh", tar.to_str().unwrap(), into.to_str().unwrap()];
        let output = std::process::Command::new("sh").args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn layers(&self, name: &str) -> Vec<String> {
        let layers = self.engine.docker(&[
            "image",
            "inspect",
            "--format",
            "{{ range .RootFS.Layers }}{{ . }} {{ end }}",
            &format!("moorage/{name}:latest"),
        ]);
        layers.split_whitespace().map(str::to_owned).collect()
    }
}

#[test]
#[ignore = "needs an engine of its own: scripts/test --soak"]
fn one_layer_above_the_base_is_the_same_to_a_container() {
    let author = Author::new();
    author.engine.docker(&["import", author.tar(), "example.test/ground:latest"]);
    let applets = "for name in mkdir rm mv ln chown chmod cat; do busybox ln -s busybox /bin/$name; done";
    author.steps("floor", "example.test/ground", &[applets, FLOOR]);
    author.steps("tower", "floor", &STEPS);
    author.ok(&["make-dev-image", "tower"]);
    let place = tempfile::tempdir().unwrap();
    let (floor, before) = (author.layers("floor"), author.layers("tower"));
    assert_eq!(before.len(), floor.len() + STEPS.len());
    let files = author.files("tower", &place.path().join("before"));
    let id = author.id("tower");

    author.ok(&["make-dev-image", "tower", "--squash"]);
    let after = author.layers("tower");
    assert_eq!(after.len(), floor.len() + 1);
    assert!(after.starts_with(&floor), "the base is shared");
    assert_ne!(author.id("tower"), id);
    assert_eq!(author.files("tower", &place.path().join("after")), files);
    let places = ["before", "after"].map(|name| place.path().join(name));
    let same =
        std::process::Command::new("diff").args(["-r", "--no-dereference"]).args(&places).output().unwrap();
    assert!(same.status.success(), "{}", String::from_utf8_lossy(&same.stdout));
    // Its lineage is what it was, and there is nothing more to squash.
    assert_eq!(author.ok(&["rebuild-images"]), "");
    let squashed = author.id("tower");
    author.ok(&["make-dev-image", "tower", "--squash"]);
    assert_eq!(author.id("tower"), squashed);

    // What was saved from a container, too.
    author.engine.docker(&[
        "run",
        "--name",
        "worked",
        "--network",
        "none",
        "moorage/tower:latest",
        "sh",
        "-c",
        "rm /one && echo z >/z",
    ]);
    author.engine.docker(&["commit", "worked", "moorage/saved:latest"]);
    author.engine.docker(&["rm", "worked"]);
    let files = author.files("saved", &place.path().join("saved"));
    let (code, _, told) =
        author.moorage(&["publish-image", "moorage/saved:latest", "--to", "localhost:1/saved:1", "--squash"]);
    assert_eq!(code, 1, "there is no registry: {told}");
    author.engine.docker(&["tag", "localhost:1/saved:1", "moorage/saved:latest"]);
    assert_eq!(author.layers("saved").len(), floor.len() + 1);
    assert_eq!(author.files("saved", &place.path().join("saved-squashed")), files);
}
