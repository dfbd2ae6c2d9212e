//! Images for real: bases from package repositories, dev images on them, publishing, with a Docker Engine of their own.
//! Needs root, dockerd, mmdebstrap and the package mirror, and fails without: scripts/test --soak runs it in a world.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test ends at what it did not expect"
)]

mod author;
mod bases;
mod checked;
mod engine;
mod gate;
mod interrupted;
mod publish;
mod rebuild;
mod relay;
mod repository;
mod rpm;
mod rpm_repository;
mod secrets;
mod squash;
mod taken;

use std::path::Path;
use std::process::Command;

use moorage::image::{Build, base, dockerfile};
use moorage::report::{Event, Reporter};
use moorage::site::{HostConfig, Site};

use engine::Engine;

#[tokio::test]
#[ignore = "needs the package mirror and minutes: scripts/test --soak"]
async fn a_base_and_a_dev_image_that_boots() {
    let engine = Engine::start();
    let ours = moorage::engine::Engine::new(engine.directory.path().join("socket"));
    let site = Site::load(None, HostConfig::default()).unwrap();
    let report = Reporter::new(|event| {
        if !matches!(event, Event::Progress { .. }) {
            eprintln!("{}", serde_json::to_string(&event).unwrap());
        }
    });
    let secrets = Default::default();
    let build = Build { site: &site, engine: &ours, report: &report, refresh: false, secrets: &secrets };

    // The base is not there: it is made first.
    let demo = dockerfile::make(build, "demo").await.unwrap();
    assert!(demo.changed);
    let debian = base::make(build, "debian-12", None).await.unwrap().built;
    assert!(!debian.changed, "the base that was just made is up to date");
    let again = dockerfile::make(build, "demo").await.unwrap();
    assert_eq!((again.changed, &again.id), (false, &demo.id));
    eprintln!("debian-12 {} bytes, demo {} bytes", debian.size, demo.size);

    // The same packages make the same image.
    let refreshed = base::make(Build { refresh: true, ..build }, "debian-12", None).await.unwrap().built;
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
