//! A project of its own for each test, and the removal of what it made.

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::archive::{self, Archive};
use super::{Outcome, Person, machine, root, world};

/// A site with one project that no other test knows. When it goes out of scope its containers are removed, and only
/// they.
#[derive(Debug)]
pub struct Scene {
    /// The project's name; every container's name begins with it.
    pub project: String,
    site: PathBuf,
    archives: PathBuf,
    /// Who has made something, so that everything can be found again.
    people: RefCell<Vec<Person>>,
}

/// What `make-dev-container` and `make-os-container` said about the container.
#[derive(Debug, Clone)]
pub struct Made(pub Value);

impl Made {
    fn text(&self, of: &Value, key: &str) -> String {
        of[key].as_str().unwrap_or_else(|| panic!("no {key} in {:#}", self.0)).to_owned()
    }

    pub fn name(&self) -> String {
        self.text(&self.0["container"], "name")
    }

    pub fn address(&self) -> String {
        self.text(&self.0["container"], "address")
    }

    pub fn mac(&self) -> String {
        self.text(&self.0["container"], "mac")
    }

    pub fn host_key(&self) -> String {
        self.text(&self.0, "host_key")
    }

    pub fn opt_directory(&self) -> PathBuf {
        self.text(&self.0, "opt_directory").into()
    }

    pub fn log(&self) -> PathBuf {
        self.text(&self.0, "log").into()
    }

    pub fn existed(&self) -> bool {
        self.0["existed"].as_bool().unwrap_or_else(|| panic!("no existed in {:#}", self.0))
    }
}

impl Scene {
    /// `word` begins the project's name: letters and digits. The project uses the demo image, has no `/opt` archive and no
    /// source, and one branch `main`.
    pub fn new(word: &str) -> Scene {
        // Each test has a process of its own (nextest), so its id tells tests apart.
        let project = format!("{word}{}", std::process::id());
        let site = world().join("tmp").join(format!("site-{project}"));
        let archives = Path::new("/usr/local/share/moorage").join(&project);
        fs::create_dir_all(site.join("dockeruser/projects")).unwrap();
        fs::create_dir_all(site.join("dockeruser/licences")).unwrap();
        fs::create_dir_all(&archives).unwrap();
        let scene = Scene { project, site, archives, people: RefCell::default() };
        scene.write("");
        scene
    }

    /// Replaces the project's file: `settings` are the lines of `[defaults]` beside the image.
    pub fn write(&self, settings: &str) {
        self.raw(&format!("[defaults]\nimage = \"demo\"\n{settings}\n[[branch]]\nmatch = \"main\"\n"));
    }

    /// Replaces the whole text of the project's file.
    pub fn raw(&self, text: &str) {
        self.raw_as(&self.project, text);
    }

    /// Another project's file.
    pub fn raw_as(&self, project: &str, text: &str) {
        archive::put(&self.site.join(format!("dockeruser/projects/{project}.toml")), text.as_bytes());
    }

    /// The site's directory.
    pub fn site(&self) -> &str {
        self.site.to_str().unwrap()
    }

    /// Puts an archive where the daemon may take it from; returns its `file://` URL.
    pub fn archive(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.archives.join(name);
        archive::put(&path, bytes);
        format!("file://{}", path.display())
    }

    /// A scene whose containers have `/opt/product`, which says the project's name.
    pub fn with_product(word: &str) -> Scene {
        let scene = Scene::new(word);
        let url = scene.archive("product.tar.zst", &Archive::product(&scene.project).zst());
        scene.write(&format!("opt = \"{url}\""));
        scene
    }

    /// A repository that everybody can read, with one branch `main` and these files (name, permissions, text).
    pub fn repository(&self, files: &[(&str, u32, &str)]) -> String {
        self.repository_called("source", files)
    }

    /// One of several.
    pub fn repository_called(&self, name: &str, files: &[(&str, u32, &str)]) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = self.archives.join("repository");
        fs::create_dir_all(&directory).unwrap();
        for (name, mode, text) in files {
            let path = directory.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        let bundle = self.archives.join(format!("{name}.bundle"));
        let script = format!(
            "cd {}; git init -q -b main; git add -A; git -c user.name=t -c user.email=t@localhost commit -qm t; git bundle create -q {} HEAD main",
            directory.display(),
            bundle.display()
        );
        root().shell(&script).ok();
        fs::remove_dir_all(directory).unwrap();
        bundle.to_str().unwrap().to_owned()
    }

    /// The words of `make-dev-container` for this scene's branch `main`, and `more`.
    pub fn words<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let words = ["make-dev-container", &self.project, "main", "--site", self.site(), "--yes"];
        words.into_iter().chain(more.iter().copied()).collect()
    }

    /// Runs `make-dev-container` as `person`, whatever comes of it.
    pub fn try_make(&self, person: &Person, more: &[&str]) -> Outcome {
        person.public_key();
        self.knows(person);
        person.moorage(&self.words(more))
    }

    /// Runs `make-dev-container` as `person`, which has to succeed.
    #[track_caller]
    pub fn make(&self, person: &Person, more: &[&str]) -> Made {
        let with_format: Vec<_> = more.iter().copied().chain(["--format", "json"]).collect();
        Made(self.try_make(person, &with_format).ok().json())
    }

    /// Remembers that `person` may have made something.
    pub fn knows(&self, person: &Person) {
        let mut people = self.people.borrow_mut();
        if !people.contains(person) {
            people.push(person.clone());
        }
    }

    /// This scene's containers, as `list-containers` shows them to root.
    pub fn containers(&self) -> Vec<Value> {
        let list = root().moorage(&["list-containers", "--format", "json"]).ok().json();
        let all = list["containers"]
            .as_array()
            .unwrap_or_else(|| panic!("no list of containers: {list:#}"))
            .clone();
        let ours = |one: &Value| one["name"].as_str().is_some_and(|name| name.starts_with(&self.project));
        all.into_iter().filter(ours).collect()
    }

    /// Removes this scene's containers; each has to go.
    #[track_caller]
    pub fn remove_all(&self) {
        for one in self.containers() {
            let name = one["name"].as_str().unwrap();
            root().moorage(&["remove-container", name, "--yes"]).ok();
        }
    }

    /// Waits until no operation goes on and nothing of this scene is recorded: a client that went away cancels its
    /// operation, which then undoes itself while nobody listens.
    #[track_caller]
    pub fn undone(&self) {
        let records = Path::new("/var/lib/moorage/containers");
        let here = |name: fs::DirEntry| name.file_name().to_string_lossy().starts_with(&self.project);
        super::events::until_directory(records, || {
            !fs::read_dir(records).unwrap().map(|entry| entry.unwrap()).any(here)
        });
    }

    /// Nothing of this scene is left: no container, volume, mount, link, lease, record or directory.
    #[track_caller]
    pub fn nothing_left(&self) {
        let left = self.left();
        assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    }

    fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for one in self.containers() {
            left.push(format!("container {one}"));
        }
        for kind in [&["ps", "-a", "--format", "{{.Names}}"][..], &["volume", "ls", "-q"]] {
            let list = root().run("docker", kind).ok();
            let ours = list.stdout.lines().filter(|name| name.contains(&self.project));
            left.extend(ours.map(|name| format!("docker {} {name}", kind[0])));
        }
        left.extend(machine::mounts(&self.project).into_iter().map(|point| format!("mount {point}")));
        // Logs outlive a container; archives in the store belong to whoever uses them next.
        let files =
            ["/var/lib/moorage", "/opt/containers"].iter().flat_map(|top| machine::files(top, &self.project));
        left.extend(files.filter(|path| !path.starts_with("/opt/containers/logs/")));
        let leases = root().moorage(&["list-leases", "--format", "json"]);
        if leases.stdout.contains(&self.project) {
            left.push(format!("lease {}", leases.stdout));
        }
        left
    }

    /// Runs `script` inside, as the owner, through `enter-container`.
    pub fn inside(&self, person: &Person, name: &str, script: &str) -> Outcome {
        person.moorage(&["enter-container", name, "--", "sh", "-euc", script])
    }

    /// `ssh` from the host with exactly the host key that was reported.
    pub fn ssh(&self, person: &Person, made: &Made, script: &str) -> Outcome {
        let known = self.site.join(format!("known-{}", made.name()));
        archive::put(&known, format!("{} {}\n", made.address(), made.host_key()).as_bytes());
        let known = format!("UserKnownHostsFile={}", known.display());
        let address = made.address();
        person.run(
            "ssh",
            &[
                "-o",
                "BatchMode=yes",
                "-o",
                "StrictHostKeyChecking=yes",
                "-o",
                &known,
                "-o",
                "ConnectTimeout=10",
                &address,
                script,
            ],
        )
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        let removal = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            self.remove_all();
            let _ = fs::remove_dir_all(&self.archives);
            let _ = fs::remove_dir_all(&self.site);
            self.left()
        }));
        // A test that has failed already keeps its own words.
        if std::thread::panicking() {
            return;
        }
        match removal {
            Ok(left) => assert!(left.is_empty(), "left behind after removal:\n{}", left.join("\n")),
            Err(failure) => std::panic::resume_unwind(failure),
        }
    }
}
