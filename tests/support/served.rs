//! The registry that `start-registry` makes of the world's host, and people who use it.

use std::fs::File;

use rustix::fs::{FlockOperation, flock};

use super::{Outcome, root, world};

/// Not on the loopback network, where Docker trusts everybody. TEST-NET-1 (RFC 5737).
pub const ADDRESS: &str = "192.0.2.10";
pub const PULL: &str = "192.0.2.10:6443";
pub const PUSH: &str = "192.0.2.10:6444";
pub const STATE: &str = "/var/lib/moorage/registry";

/// This host, with its address and no registry yet. Whatever was started and installed goes with it; a host has one registry,
/// so one test at a time has this.
#[derive(Debug)]
pub struct Place {
    pub directory: tempfile::TempDir,
    _lock: File,
}

impl Place {
    pub fn new() -> Place {
        let lock = File::create(world().join("registryserver.lock")).unwrap();
        flock(&lock, FlockOperation::LockExclusive).unwrap();
        let place = Place { directory: tempfile::tempdir().unwrap(), _lock: lock };
        root().run("ip", &["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]).ok();
        place
    }

    /// With a registry that runs and that this host trusts.
    pub fn served() -> Place {
        let place = Place::new();
        place.start(&["--name", ADDRESS, "--name", "Registry.Test", "--port", "6443", "--trust"]).ok();
        place
    }

    pub fn start(&self, words: &[&str]) -> Outcome {
        root().moorage(&[&["start-registry"], words].concat())
    }

    pub fn show(&self) -> serde_json::Value {
        root().moorage(&["show-registry", "--format", "json"]).ok().json()
    }

    pub fn add(&self, user: &str, password: &str) -> Outcome {
        root().shell(&format!("printf '%s\\n' '{password}' | moorage add-user {user}"))
    }

    /// Docker as somebody whose logins are in the directory of that name.
    pub fn docker(&self, who: &str, words: &[&str]) -> Outcome {
        let config = self.directory.path().join(who);
        Outcome::of(root().command("docker").env("DOCKER_CONFIG", config).args(words))
    }

    pub fn log_in(&self, user: &str, password: &str) -> Outcome {
        let line = format!("printf %s '{password}' | docker login -u {user} --password-stdin {PUSH}");
        let config = self.directory.path().join(user);
        Outcome::of(root().command("sh").env("DOCKER_CONFIG", config).args(["-euc", &line]))
    }

    /// An image that nobody else has, as `name`.
    pub fn image(&self, name: &str) {
        self.image_of(name, 3_000_000);
    }

    /// One of about so many bytes.
    pub fn image_of(&self, name: &str, bytes: u32) {
        let tar = self.directory.path().join("ground.tar");
        root()
            .shell(&format!(
                "cd {}; mkdir -p ground; head -c {bytes} /dev/urandom >ground/noise; tar -C ground -cf {1} .; \
                 docker import {1} {name}",
                self.directory.path().display(),
                tar.display()
            ))
            .ok();
    }

    /// The process ids of the servers.
    pub fn processes(&self) -> Vec<String> {
        ["reader", "writer"]
            .map(|name| std::fs::read_to_string(format!("/run/moorage/registry-{name}.pid")).unwrap())
            .to_vec()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        root().shell(&format!(
            "[ ! -e {STATE}/registry.json ] || moorage stop-registry; rm -rf {STATE} /etc/docker/certs.d/*:644?; \
             ip address del {ADDRESS}/32 dev lo; \
             docker image ls --format '{{{{.Repository}}}}:{{{{.Tag}}}}' | grep '^{ADDRESS}:644' | xargs -r docker rmi"
        ));
    }
}

impl Place {
    /// With a registry to which `ann` may publish, logged in.
    pub fn published_to() -> Place {
        let place = Place::served();
        place.add("ann", PASSWORD).ok();
        place.log_in("ann", PASSWORD).ok();
        place
    }

    /// Publishes an image that nobody else has under each of these names, and takes it out of the engine.
    #[track_caller]
    pub fn publish(&self, names: &[&str]) {
        let first = format!("{PUSH}/{}", names[0]);
        self.image(&first);
        for name in names {
            let name = format!("{PUSH}/{name}");
            root().run("docker", &["tag", &first, &name]).ok();
            self.docker("ann", &["push", "-q", &name]).ok();
        }
        for name in names {
            root().run("docker", &["rmi", &format!("{PUSH}/{name}")]).ok();
        }
    }

    pub fn collect(&self, words: &[&str]) -> Outcome {
        root().moorage(&[&["collect-garbage"], words].concat())
    }

    /// Lets three hours pass for all that the registry has.
    pub fn age(&self) {
        root().shell(&format!("find {STATE}/data -type f -exec touch -d '3 hours ago' {{}} +")).ok();
        self.age_dropped();
    }

    /// Lets three hours pass since tags were dropped.
    pub fn age_dropped(&self) {
        let path = format!("{STATE}/dropped.json");
        let Ok(text) = std::fs::read_to_string(&path) else { return };
        let mut dropped: serde_json::Value = serde_json::from_str(&text).unwrap();
        for one in dropped.as_array_mut().unwrap() {
            one["when"] = (one["when"].as_i64().unwrap() - 3 * 3600).into();
        }
        std::fs::write(path, dropped.to_string()).unwrap();
    }

    /// A request to the publishers' server as `ann`; what is said is the status and, behind it, the body.
    pub fn ask(&self, words: &[&str], path: &str) -> Outcome {
        let authority = format!("{STATE}/ca.crt");
        let login = format!("ann:{PASSWORD}");
        let url = format!("https://{PUSH}/v2/{path}");
        let fixed = ["-sS", "--http1.1", "--cacert", &authority, "-u", &login, "-w", "%{http_code}"];
        root().run("curl", &[&fixed, words, &[&url]].concat())
    }

    /// Uploads a blob; answers its digest.
    #[track_caller]
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let file = self.directory.path().join("blob");
        std::fs::write(&file, bytes).unwrap();
        let digest = digest(bytes);
        let begun = self
            .ask(&["-X", "POST", "-D", "-", "-o", "/dev/null"], &format!("{repository}/blobs/uploads/"))
            .ok();
        let location =
            begun.stdout.lines().find_map(|line| line.strip_prefix("Location: ")).unwrap().trim().to_owned();
        let path = location.split_once("/v2/").unwrap().1;
        let data = format!("@{}", file.display());
        let words = ["-X", "PUT", "-H", "Content-Type: application/octet-stream", "--data-binary", &data];
        self.ask(&words, &format!("{path}&digest={digest}")).ok().says("201");
        digest
    }

    /// Puts a manifest under a tag or its digest.
    pub fn put_manifest(&self, name: &str, media_type: &str, text: &str) -> Outcome {
        let file = self.directory.path().join("manifest");
        std::fs::write(&file, text).unwrap();
        let (data, content) = (format!("@{}", file.display()), format!("Content-Type: {media_type}"));
        self.ask(&["-X", "PUT", "-H", &content, "--data-binary", &data], name)
    }

    /// Every blob is what its name says.
    #[track_caller]
    pub fn blobs_are_whole(&self) {
        let damaged = root().shell(&format!(
            "cd {STATE}/data/docker/registry/v2/blobs/sha256; \
             for f in */*; do [ \"$(sha256sum <$f/data)\" = \"${{f#*/}}  -\" ] || echo $f; done"
        ));
        assert_eq!(damaged.ok().stdout, "", "damaged blobs");
    }
}

/// As a registry writes it.
pub fn digest(bytes: &[u8]) -> String {
    use sha2::Digest as _;
    let hex: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Of `ann`, who publishes.
pub const PASSWORD: &str = "correct horse";
