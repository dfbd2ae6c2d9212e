//! Images for real: a base from the package mirror and the built-in dev image on it, with a Docker Engine of its own,
//! until systemd in it is running and sshd answers. Needs root, dockerd, mmdebstrap and the mirror, and fails without.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test ends at what it did not expect"
)]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use bollard::Docker;
use moorage::image::{Build, base, dockerfile};
use moorage::report::{Event, Reporter};
use moorage::site::{HostConfig, Site};

/// A dockerd in a mount namespace of its own, without a network of its own, gone with the value.
struct Engine {
    dockerd: Child,
    directory: tempfile::TempDir,
}

impl Engine {
    fn start() -> Engine {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let ready = UnixDatagram::bind(at("notify")).unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let mut dockerd = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "dockerd", "--bridge=none", "--iptables=false"])
            .arg("--ip6tables=false")
            .args([format!("--data-root={}", at("data")), format!("--exec-root={}", at("exec"))])
            .args([format!("--pidfile={}", at("pid")), format!("--host=unix://{}", at("socket"))])
            .env("NOTIFY_SOCKET", at("notify"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("run dockerd");
        ready.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let mut said = [0; 4096];
        loop {
            let Ok(length) = ready.recv(&mut said) else {
                dockerd.kill().unwrap();
                dockerd.wait().unwrap();
                panic!("dockerd did not get ready:\n{}", std::fs::read_to_string(at("log")).unwrap());
            };
            if said[..length].windows(7).any(|word| word == b"READY=1") {
                return Engine { dockerd, directory };
            }
        }
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.directory.path().join("socket").display())
    }

    fn docker(&self, arguments: &[&str]) -> String {
        let output =
            Command::new("docker").args(["--host", &self.socket()]).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "docker {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.dockerd);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("stop dockerd");
        self.dockerd.wait().expect("wait for dockerd");
    }
}

#[tokio::test]
#[ignore = "needs the package mirror, which worlds for tests do not have; scripts/test builds the images in a step of \
            its own. cargo nextest run --run-ignored only -E 'binary(images)'"]
async fn a_base_and_a_dev_image_that_boots() {
    let engine = Engine::start();
    let docker = Docker::connect_with_unix(&engine.socket(), 600, bollard::API_DEFAULT_VERSION).unwrap();
    let docker = docker.negotiate_version().await.unwrap();
    let site = Site::load(None, HostConfig::default()).unwrap();
    let report = Reporter::new(|event| {
        if !matches!(event, Event::Progress { .. }) {
            eprintln!("{}", serde_json::to_string(&event).unwrap());
        }
    });
    let build = Build { site: &site, docker: &docker, report: &report, refresh: false };

    // The base is not there: it is made first.
    let demo = dockerfile::make(build, "demo").await.unwrap();
    assert!(demo.changed);
    let debian = base::make(build, "debian-12").await.unwrap();
    assert!(!debian.changed, "the base that was just made is up to date");
    let again = dockerfile::make(build, "demo").await.unwrap();
    assert_eq!((again.changed, &again.id), (false, &demo.id));
    eprintln!("debian-12 {} bytes, demo {} bytes", debian.size, demo.size);

    // The same packages make the same image.
    let refreshed = base::make(Build { refresh: true, ..build }, "debian-12").await.unwrap();
    assert_eq!((refreshed.changed, &refreshed.id), (false, &debian.id));

    let label = |name: &str| {
        engine.docker(&[
            "inspect",
            "--format",
            &format!("{{{{ index .Config.Labels {name:?} }}}}"),
            &demo.image,
        ])
    };
    assert_eq!(label("moorage.base"), "debian-12");
    assert_eq!(label("org.opencontainers.image.base.name"), "moorage/debian-12:latest");
    assert_eq!(label("org.opencontainers.image.base.digest"), debian.id);

    boots(&engine, &demo.image);
}

/// systemd reaches `running` and sshd answers, with no capability added.
fn boots(engine: &Engine, image: &str) {
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert!(!v2, "this test knows the flags for cgroup v1 only");
    #[rustfmt::skip]
    engine.docker(&[
        "run", "--detach", "--name", "boots", "--network", "none", "--cgroupns", "host", "--cap-drop", "MKNOD",
        "--volume", "/sys/fs/cgroup:/sys/fs/cgroup:ro", "--tmpfs", "/run:exec,mode=755", "--tmpfs", "/run/lock",
        "--tmpfs", "/tmp:exec,mode=1777", image,
    ]);
    // `--wait` returns when the start has ended, well or not; but before systemd listens there is nobody to ask, and
    // from outside no event tells when it does.
    let ask = || {
        let asked = Command::new("docker")
            .args(["--host", &engine.socket(), "exec", "boots", "systemctl", "is-system-running", "--wait"])
            .output()
            .unwrap();
        String::from_utf8(asked.stdout).unwrap().trim().to_owned()
    };
    let state =
        (0..200).map(|_| ask()).find(|state| !state.is_empty() && state != "offline").unwrap_or_default();
    let failed = engine.docker(&["exec", "boots", "systemctl", "--failed", "--no-legend"]);
    assert_eq!(state, "running", "{failed}");
    let banner =
        engine.docker(&["exec", "boots", "bash", "-c", "read -r line < /dev/tcp/127.0.0.1/22; echo $line"]);
    assert!(banner.starts_with("SSH-2.0-OpenSSH"), "{banner}");
    let settings = engine.docker(&["exec", "boots", "sshd", "-T"]);
    assert!(settings.contains("passwordauthentication no"), "{settings}");
    engine.docker(&["rm", "--force", "boots"]);
}
