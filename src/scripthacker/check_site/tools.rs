//! The real tools: shellcheck for what a shell runs, the engine's parser and `docker build --check` for Dockerfiles.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use anyhow::{Context as _, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Finding;
use crate::engine::Engine;
use crate::image::buildkit::client;
use crate::image::script::Script;
use crate::image::variants::{NOTHING, Variant};

/// What a person reads of a Dockerfile's rules.
const REFERENCE: &str = "https://docs.docker.com/reference/dockerfile/";

/// The tools that are here.
pub struct Tools<'a> {
    engine: Option<&'a Engine>,
    /// A `docker` that knows `build --check`.
    docker: Option<PathBuf>,
    shellcheck: bool,
    /// What is not checked, and why.
    pub missing: Vec<String>,
}

impl<'a> Tools<'a> {
    pub async fn new(engine: &'a Engine) -> Tools<'a> {
        let mut missing = Vec::new();
        let version = Command::new("shellcheck").arg("--version").stdout(Stdio::null()).status().await;
        let shellcheck = version.is_ok_and(|status| status.success());
        if !shellcheck {
            missing
                .push("shell scripts: shellcheck is not installed (apt-get install shellcheck)".to_owned());
        }
        let there = engine.ping().await;
        let docker = match &there {
            Ok(()) => with_check().await,
            Err(error) => {
                missing.push(format!("Dockerfiles by a builder, they are only parsed: {error}"));
                None
            }
        };
        if there.is_ok() && docker.is_none() {
            missing.push(
                "the rules of docker build --check: no docker here knows it (buildx 0.15 or newer)"
                    .to_owned(),
            );
        }
        Tools { engine: there.is_ok().then_some(engine), docker, shellcheck, missing }
    }

    /// What builders say of a Dockerfile, which has been parsed. Nothing is run or pulled.
    pub async fn dockerfile(&mut self, variant: &Variant) -> Result<Option<Finding>> {
        if variant.on == NOTHING {
            let Some(docker) = &self.docker else { return Ok(None) };
            return checked(docker, variant).await;
        }
        let Some(engine) = self.engine else { return Ok(None) };
        if variant.needs_buildkit {
            if self.docker.is_none() {
                self.not(format!("{} by BuildKit, which builds it: it is only parsed", variant.origin));
            }
            return Ok(None);
        }
        let said = engine.parse_dockerfile(variant.archive.clone()).await?;
        Ok(said.map(|why| Finding {
            what: format!("{}: the builder does not take it", variant.origin),
            why: vec![why],
            next: Some(REFERENCE.into()),
        }))
    }

    /// What shellcheck says of a script.
    pub async fn shell(&self, script: &Script) -> Result<Vec<Finding>> {
        if !self.shellcheck {
            return Ok(Vec::new());
        }
        let mut command = Command::new("shellcheck");
        command.args(["--format=gcc", "--severity=warning"]);
        if !script.text.starts_with("#!") {
            // Variables come from the image's and the container's environment (SC2154: referenced but not assigned), and what
            // was a placeholder is constant now (SC2050).
            command.arg(format!("--shell={}", script.shell)).arg("--exclude=SC2050,SC2154");
        }
        let output = ask(command.arg("-"), script.text.as_bytes()).await.context("run shellcheck")?;
        Ok(findings(&script.place, script.above, &String::from_utf8_lossy(&output.stdout)))
    }

    /// Remembers something that is not checked, once.
    pub fn not(&mut self, what: String) {
        if !self.missing.contains(&what) {
            self.missing.push(what);
        }
    }
}

/// A `docker` that knows `build --check`.
async fn with_check() -> Option<PathBuf> {
    let docker = client::find().await.ok()?;
    let help =
        Command::new(&docker).args(["build", "--help"]).env("DOCKER_BUILDKIT", "1").output().await.ok()?;
    String::from_utf8_lossy(&help.stdout).contains("--check").then_some(docker)
}

/// `docker build --check` ends with an error where it has something to say.
async fn checked(docker: &PathBuf, variant: &Variant) -> Result<Option<Finding>> {
    let mut command = Command::new(docker);
    command.args(["build", "--check", "-"]).env("DOCKER_BUILDKIT", "1");
    let output = ask(&mut command, &variant.archive).await.context("run docker build --check")?;
    if output.status.success() {
        return Ok(None);
    }
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    Ok(Some(Finding {
        what: format!("{}: docker build --check has found something", variant.origin),
        why: said.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(str::to_owned).collect(),
        next: Some(REFERENCE.into()),
    }))
}

/// Runs a program with something on its stdin.
async fn ask(command: &mut Command, input: &[u8]) -> Result<Output> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("start it")?;
    let mut stdin = child.stdin.take().context("write to it")?;
    let hand_in = async {
        // One that does not read to the end says why itself.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let ((), output) = tokio::join!(hand_in, child.wait_with_output());
    output.context("wait for it")
}

/// `-:3:7: warning: words [SC2046]`
fn findings(place: &str, above: usize, said: &str) -> Vec<Finding> {
    let one = |line: &str| {
        let rest = line.strip_prefix("-:")?;
        let mut parts = rest.splitn(3, ':');
        let (line, column, words) = (parts.next()?, parts.next()?, parts.next()?.trim());
        let line = line.parse::<usize>().ok()? + above;
        let words = words.split_once(": ").map_or(words, |(_, words)| words);
        Some(Finding { what: format!("{place}:{line}:{column}: {words}"), why: Vec::new(), next: None })
    };
    said.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shellcheck_s_words_get_their_place() {
        let said = "-:3:7: warning: Quote this to prevent word splitting. [SC2046]\n-:4:1: error: Expected a command. [SC1072]\n";
        let found: Vec<String> =
            findings("x/trim", 10, said).into_iter().map(|finding| finding.what).collect();
        assert_eq!(
            found,
            [
                "x/trim:13:7: Quote this to prevent word splitting. [SC2046]",
                "x/trim:14:1: Expected a command. [SC1072]"
            ]
        );
    }
}
