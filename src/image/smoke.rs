//! Trying an image before anybody gets it: it boots, its init reaches `running`, sshd answers, its own checks succeed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::STEP;
use crate::engine::{Engine, Exec, Init};
use crate::report::{Fault, Kind, Reporter};

/// How long init may take until it is up.
const BOOT: Duration = Duration::from_secs(120);
/// How long one check of the definition may take.
const CHECK: Duration = Duration::from_secs(300);
/// Between two questions to an init that does not listen yet: no event tells from outside when it does.
const ASK: Duration = Duration::from_millis(100);
/// Lines of output that an error keeps.
const KEPT: usize = 12;

/// What is tried.
#[derive(Clone, Copy)]
pub struct Trial<'a> {
    pub engine: &'a Engine,
    pub report: &'a Reporter,
    /// The control group that all containers are below.
    pub cgroup: &'a str,
    /// The image's id.
    pub image: &'a str,
    /// The definition's name, for messages.
    pub name: &'a str,
    /// Shell commands that have to succeed inside, as root.
    pub checks: &'a [String],
}

/// Tries the image in a container without network that goes away with this.
pub async fn test(trial: Trial<'_>) -> Result<()> {
    let image = trial.engine.image(trial.image).await?;
    let image = image.with_context(|| format!("the image {} went away", trial.image))?;
    let init = image.command.first().filter(|command| is_init(command));
    trial.report.begin(STEP, format!("try {}", trial.name));
    let kind = init.map_or_else(|| Init::Docker { command: Vec::new() }, |path| Init::Own(path.clone()));
    let container = trial.engine.create_trial(trial.image, kind, trial.cgroup).await?;
    let tried = inside(trial, &container, init.is_some()).await;
    trial.engine.remove(&container).await?;
    tried?;
    trial.report.end(STEP, format!("{} boots and does what it should", trial.name));
    Ok(())
}

/// A full machine's image starts its init.
fn is_init(command: &str) -> bool {
    ["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"].contains(&command)
}

async fn inside(trial: Trial<'_>, container: &str, machine: bool) -> Result<()> {
    trial.engine.start(container).await?;
    if machine {
        boots(trial, container).await?;
        answers(trial, container).await?;
    }
    for check in trial.checks {
        let (code, said) = shell(trial, container, check, CHECK).await?;
        if code != 0 {
            return Err(failed(trial, format!("its check fails: {check}"), said));
        }
    }
    Ok(())
}

async fn boots(trial: Trial<'_>, container: &str) -> Result<()> {
    let asked = async {
        loop {
            let (_, said) = shell(trial, container, "systemctl is-system-running --wait", BOOT).await?;
            let state = said.last().cloned().unwrap_or_default();
            // Before systemd listens nobody answers, or `offline`.
            if matches!(state.as_str(), "running" | "degraded" | "maintenance" | "stopping") {
                return anyhow::Ok(state);
            }
            let found = trial.engine.inspect(container).await?;
            if !found.is_some_and(|found| found.running) {
                return Ok("its init has ended".to_owned());
            }
            tokio::time::sleep(ASK).await;
        }
    };
    let state = match tokio::time::timeout(BOOT, asked).await {
        Ok(state) => state?,
        Err(_) => format!("not up after {} s", BOOT.as_secs()),
    };
    if state == "running" {
        return Ok(());
    }
    let (_, units) =
        shell(trial, container, "systemctl --failed --no-legend --plain", BOOT).await.unwrap_or_default();
    Err(failed(trial, format!("its init does not reach running: {state}"), units))
}

/// sshd says who it is (RFC 4253, 4.2), where there is one.
async fn answers(trial: Trial<'_>, container: &str) -> Result<()> {
    let ask = "command -v sshd >/dev/null || [ -x /usr/sbin/sshd ] || exit 0; \
               exec timeout 30 bash -c 'until exec 3<>/dev/tcp/127.0.0.1/22; do sleep 0.1; done 2>/dev/null; \
               read -r line <&3; case $line in SSH-2.0-*) ;; *) echo \"it says: $line\"; exit 1 ;; esac'";
    let (code, said) = shell(trial, container, ask, CHECK).await?;
    match code {
        0 => Ok(()),
        _ => Err(failed(trial, "its sshd does not answer".to_owned(), said)),
    }
}

fn failed(trial: Trial<'_>, why: String, said: Vec<String>) -> anyhow::Error {
    let mut fault = Fault::new(Kind::Failed, format!("{} fails its test: {why}", trial.name)).next(format!(
        "correct its definition, then: moorage rebuild-images; to look at it: docker run --rm -it {} bash",
        trial.image
    ));
    fault.why = said;
    fault.into()
}

async fn shell(
    trial: Trial<'_>,
    container: &str,
    script: &str,
    limit: Duration,
) -> Result<(i32, Vec<String>)> {
    let exec = Exec {
        command: vec!["/bin/sh".into(), "-c".into(), script.to_owned()],
        user: "0".into(),
        ..Exec::default()
    };
    let mut said = std::collections::VecDeque::new();
    let line = |line: &str| {
        if said.len() == KEPT {
            said.pop_front();
        }
        said.push_back(line.trim_end().to_owned());
    };
    let run = trial.engine.run(container, &exec, line);
    let code = match tokio::time::timeout(limit, run).await {
        Ok(code) => code?,
        Err(_) => -1,
    };
    Ok((code, said.into_iter().filter(|line| !line.is_empty()).collect()))
}

/// The packages of an image, `name:architecture` and version: as dpkg has written them down, else as the image's own rpm says
/// in a container below the control group `cgroup`; none where it has neither.
pub async fn packages(engine: &Engine, image: &str, cgroup: &str) -> Result<BTreeMap<String, String>> {
    if let Some(status) = engine.file_of_image(image, "/var/lib/dpkg/status").await? {
        return Ok(installed(&String::from_utf8_lossy(&status)));
    }
    let container = engine.create_trial(image, Init::Docker { command: Vec::new() }, cgroup).await?;
    let read = by_rpm(engine, &container).await;
    engine.remove(&container).await?;
    read
}

async fn by_rpm(engine: &Engine, container: &str) -> Result<BTreeMap<String, String>> {
    engine.start(container).await?;
    // By its path: a shell that is busybox has something of its own by that name.
    let script =
        format!("[ -x /usr/bin/rpm ] || exit 0; exec /usr/bin/rpm -qa --qf '{}'", super::base::RPM_FORMAT);
    let exec =
        Exec { command: vec!["/bin/sh".into(), "-c".into(), script], user: "0".into(), ..Exec::default() };
    let mut packages = BTreeMap::new();
    let line = |line: &str| {
        // The keys of the repositories are in the database as packages, without an architecture.
        let pair = line.trim_end().split_once(' ').filter(|(name, _)| !name.starts_with("gpg-pubkey:"));
        packages.extend(pair.map(|(name, version)| (name.to_owned(), version.to_owned())));
    };
    let code = engine.run(container, &exec, line).await?;
    anyhow::ensure!(code == 0, "rpm of the image ended with {code}");
    Ok(packages)
}

/// dpkg's status file: stanzas of fields.
fn installed(status: &str) -> BTreeMap<String, String> {
    let stanza = |text: &str| {
        let field = |name: &str| {
            text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).map(str::trim)
        };
        field("Status").filter(|status| status.ends_with(" installed"))?;
        Some((format!("{}:{}", field("Package")?, field("Architecture")?), field("Version")?.to_owned()))
    };
    status.split("\n\n").filter_map(stanza).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_is_read_from_dpkg() {
        let status = "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n\n\
                      Package: gone\nStatus: deinstall ok config-files\nArchitecture: amd64\nVersion: 1\n\n\
                      Package: tzdata\nStatus: install ok installed\nArchitecture: all\nDescription: x\n Version: no\nVersion: 2026a\n";
        let found: Vec<_> = installed(status).into_iter().collect();
        assert_eq!(found, [("bash:amd64".into(), "5.2-1".into()), ("tzdata:all".into(), "2026a".into())]);
    }
}
