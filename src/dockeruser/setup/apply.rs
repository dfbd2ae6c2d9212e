//! Does what was planned, in order; the first failure stops it, and running setup again goes on from there.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

use crate::engine::Engine;
use crate::report::{Fault, Kind, Reporter};
use crate::service::{self, Background, run};

use super::observe::{Host, PROGRAM, SITE, answers};
use super::plan::Step;
use super::site;

const UNITS: [&str; 3] = ["moorage.socket", "moorage-plugin.socket", "moorage.service"];

pub async fn apply(host: &Host, steps: &[Step], reporter: &Reporter) -> Result<()> {
    // Everybody reads the configuration and the site, whatever root wants its own files to be.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    for step in steps {
        let text = step.text();
        if step.is_slow() {
            reporter.begin("setup", text.as_str());
        }
        one(host, step, reporter).await.with_context(|| format!("cannot {text}"))?;
        reporter.end("setup", format!("{text}: done"));
    }
    Ok(())
}

async fn one(host: &Host, step: &Step, reporter: &Reporter) -> Result<()> {
    match step {
        Step::InstallEngine => install_engine(reporter).await,
        Step::StartEngine { systemd } => start_engine(*systemd, reporter).await,
        Step::InstallProgram { from } => install(from, &host.path(PROGRAM)),
        Step::Link { names } => {
            names.iter().try_for_each(|name| link(&host.path("/usr/local/bin").join(name)))
        }
        Step::CloneSite { url } => {
            let (url, directory) = (url.clone(), host.path(SITE));
            spawn_blocking(move || site::clone(&url, &directory)).await?
        }
        Step::UpdateSite { url } => {
            let (url, directory) = (url.clone(), host.path(SITE));
            spawn_blocking(move || site::update(&url, &directory)).await?
        }
        Step::Write { path, text } => write(&host.path(path), text),
        Step::EnableUnits => {
            run("setup", "systemctl", &["daemon-reload"], reporter).await?;
            run("setup", "systemctl", &[&["enable"], &UNITS[..]].concat(), reporter).await
        }
        Step::StartDaemon { systemd } => start_daemon(*systemd, reporter).await,
        Step::RestartDaemon { systemd: true } => {
            run("setup", "systemctl", &["restart", "moorage.service"], reporter).await
        }
        Step::RestartDaemon { systemd: false } => {
            service::end_listener(Path::new(crate::api::SOCKET)).await?;
            start_daemon(false, reporter).await
        }
        Step::MakeNetwork { name, parent, vlan } => {
            Engine::of_this_host().create_lan(name, parent, *vlan).await
        }
    }
}

async fn install_engine(reporter: &Reporter) -> Result<()> {
    let install = ["-qq", "-y", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends", "install"];
    run("setup", "apt-get", &["-qq", "update"], reporter).await?;
    let _down = KeptDown::begin()?;
    run("setup", "apt-get", &[&install[..], &["docker.io"]].concat(), reporter).await?;
    // Newer releases have the command line in a package of its own.
    match Path::new("/usr/bin/docker").exists() {
        true => Ok(()),
        false => run("setup", "apt-get", &[&install[..], &["docker-cli"]].concat(), reporter).await,
    }
}

/// Says of itself whose it is.
const POLICY: &str = "#!/bin/sh\n# moorage setup: no service starts while packages are installed; removed at its end.\nexit 101\n";

/// What tells Debian's packages not to start the services they bring (invoke-rc.d(8)), while it lives: where no systemd
/// looks after them, they would be nobody's.
struct KeptDown(Option<&'static Path>);

impl KeptDown {
    fn begin() -> Result<KeptDown> {
        let policy = Path::new("/usr/sbin/policy-rc.d");
        // One of ours that a killed setup left is taken over, an admin's is not.
        let foreign = fs::read_to_string(policy).is_ok_and(|text| text != POLICY);
        if Path::new("/run/systemd/system").exists() || foreign {
            return Ok(KeptDown(None));
        }
        fs::write(policy, POLICY).with_context(|| format!("write {}", policy.display()))?;
        let kept = KeptDown(Some(policy));
        fs::set_permissions(policy, fs::Permissions::from_mode(0o755))?;
        Ok(kept)
    }
}

impl Drop for KeptDown {
    fn drop(&mut self) {
        if let Some(policy) = self.0
            && let Err(error) = fs::remove_file(policy)
        {
            tracing::warn!("{} remains, and no package can start its service: {error}", policy.display());
        }
    }
}

async fn start_engine(systemd: bool, reporter: &Reporter) -> Result<()> {
    let answers = async || Engine::of_this_host().ping().await.is_ok();
    if systemd {
        run("setup", "systemctl", &["enable", "--now", "docker"], reporter).await?;
        return match service::until(answers).await {
            true => Ok(()),
            false => Err(Fault::new(Kind::TimedOut, "the Docker Engine does not answer")
                .next("journalctl -u docker")
                .into()),
        };
    }
    Background {
        program: "dockerd",
        arguments: &[],
        log: Path::new("/var/log/moorage/dockerd.log"),
        pid_file: Path::new("/run/moorage/dockerd.pid"),
    }
    .start(answers)
    .await
}

async fn start_daemon(systemd: bool, reporter: &Reporter) -> Result<()> {
    if systemd {
        return run("setup", "systemctl", &[&["start"], &UNITS[..]].concat(), reporter).await;
    }
    Background {
        program: PROGRAM,
        arguments: &["daemon"],
        log: Path::new("/var/log/moorage/daemon.log"),
        pid_file: Path::new("/run/moorage/daemon.pid"),
    }
    .start(async || answers(Path::new(crate::api::SOCKET)).await)
    .await
}

/// Puts the program in place by a rename: a daemon that runs from the old file goes on.
fn install(from: &Path, to: &Path) -> Result<()> {
    let directory = to.parent().context("the program needs a directory")?;
    fs::create_dir_all(directory)?;
    let staging = tempfile::Builder::new().prefix(".moorage-").tempfile_in(directory)?;
    fs::copy(from, staging.path()).with_context(|| format!("copy {}", from.display()))?;
    fs::set_permissions(staging.path(), fs::Permissions::from_mode(0o755))?;
    staging.persist(to).map_err(|e| e.error).with_context(|| format!("write {}", to.display()))?;
    Ok(())
}

fn link(path: &Path) -> Result<()> {
    match symlink("moorage", path) {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e).context("make the link"),
        _ => Ok(()),
    }
}

/// Configuration, which other programs and people read.
fn write(path: &Path, text: &str) -> Result<()> {
    let directory = path.parent().context("a file needs a directory")?;
    fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
    crate::state::replace(path, text.as_bytes())?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_written_once_and_readable() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::at(root.path());
        fs::create_dir_all(root.path().join("usr/local/bin")).unwrap();
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let program = root.path().join("program");
        fs::write(&program, "program").unwrap();
        let steps = [
            Step::Write { path: super::super::observe::SPEC, text: "unix:///x\n".into() },
            Step::InstallProgram { from: program },
            Step::Link { names: vec!["list-containers".into()] },
        ];
        for _ in 0..2 {
            apply(&host, &steps, &Reporter::silent()).await.unwrap();
        }
        assert_eq!(host.text(super::super::observe::SPEC).unwrap().unwrap(), "unix:///x\n");
        let mode = |path: &str| fs::metadata(host.path(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(super::super::observe::SPEC), 0o644);
        assert_eq!(mode("/etc/docker/plugins"), 0o755);
        assert_eq!(mode(PROGRAM), 0o755);
        assert_eq!(host.text("/usr/local/bin/list-containers").unwrap().unwrap(), "program");
    }
}
