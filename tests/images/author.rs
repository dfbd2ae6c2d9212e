//! An author with a site and an engine of their own.

use serde_json::Value;

use crate::engine::Engine;

pub struct Author {
    pub engine: Engine,
    pub site: tempfile::TempDir,
}

impl Author {
    pub fn new() -> Author {
        Author { engine: Engine::start(), site: tempfile::tempdir().unwrap() }
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.site.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub fn image(&self, name: &str, base: &str, check: &str) {
        let directory = format!("containerauthor/images/{name}");
        self.write(
            &format!("{directory}/image.toml"),
            &format!("base = \"{base}\"\nchecks = [\"{check}\"]\n"),
        );
        self.write(
            &format!("{directory}/Dockerfile.j2"),
            &format!("FROM {{{{ base }}}}\nRUN echo {name} >/{name}\n"),
        );
    }

    pub fn moorage(&self, arguments: &[&str]) -> (i32, String, String) {
        let site = self.site.path().to_str().unwrap();
        self.engine.moorage(&[&["--site", site, "--progress", "plain"], arguments].concat())
    }

    pub fn ok(&self, arguments: &[&str]) -> String {
        let (code, said, told) = self.moorage(arguments);
        assert_eq!(code, 0, "{arguments:?}: {told}");
        said
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[arguments, &["--format", "json"]].concat())).unwrap()
    }

    pub fn id(&self, name: &str) -> String {
        self.engine.docker(&["image", "inspect", "--format", "{{.Id}}", &format!("moorage/{name}:latest")])
    }

    /// What the package `hello` of an image says.
    pub fn hello(&self, name: &str) -> String {
        self.inside(name, &["cat", "/usr/share/hello"])
    }

    pub fn inside(&self, name: &str, command: &[&str]) -> String {
        let image = format!("moorage/{name}:latest");
        self.engine.docker(&[&["run", "--rm", "--network", "none", &image], command].concat())
    }

    /// Something that has a shell, to be built on.
    pub fn tar(&self) -> &'static str {
        let script = "mkdir -p ground/bin && cp /bin/busybox ground/bin/busybox && ln -sf busybox ground/bin/sh && \
                      ln -sf busybox ground/bin/true && tar -C ground -cf /var/tmp/ground.tar .";
        let status =
            std::process::Command::new("sh").args(["-euc", script]).current_dir(self.site.path()).status();
        assert!(status.unwrap().success());
        std::fs::remove_dir_all(self.site.path().join("ground")).unwrap();
        "/var/tmp/ground.tar"
    }
}
