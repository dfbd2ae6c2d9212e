//! The real tools: shellcheck for what a shell runs, the engine's parser for Dockerfiles.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::Finding;
use crate::engine::Engine;
use crate::image::dockerfile::Rendered;

/// The tools that are here.
pub struct Tools<'a> {
    engine: Option<&'a Engine>,
    shellcheck: bool,
    /// What is not checked because its tool is not here.
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
        if let Err(error) = &there {
            missing.push(format!("the syntax of Dockerfiles: {error}"));
        }
        Tools { engine: there.is_ok().then_some(engine), shellcheck, missing }
    }

    /// What the engine's builder says of a Dockerfile. It reads all of it before it looks for the stage that was asked
    /// for, and there is none of that name: so it runs nothing.
    pub async fn dockerfile(&self, rendered: &Rendered) -> Result<Option<Finding>> {
        let Some(engine) = self.engine else { return Ok(None) };
        let said = engine.parse_dockerfile(rendered.archive.clone()).await?;
        Ok(said.map(|why| Finding {
            what: format!("{}: the builder does not take it", rendered.origin),
            why: vec![why],
            next: Some("https://docs.docker.com/reference/dockerfile/".into()),
        }))
    }

    /// What shellcheck says of a script; of one without `#!`, as what `sh -c` is given.
    pub async fn shell(&self, place: &str, text: &str) -> Result<Vec<Finding>> {
        if !self.shellcheck {
            return Ok(Vec::new());
        }
        let mut command = Command::new("shellcheck");
        command.args(["--format=gcc", "--severity=warning"]);
        if !text.starts_with("#!") {
            command.arg("--shell=sh");
        }
        let mut child = command
            .arg("-")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("run shellcheck")?;
        let mut input = child.stdin.take().context("write to shellcheck")?;
        input.write_all(text.as_bytes()).await.context("write to shellcheck")?;
        drop(input);
        let output = child.wait_with_output().await.context("wait for shellcheck")?;
        Ok(findings(place, &String::from_utf8_lossy(&output.stdout)))
    }
}

/// `-:3:7: warning: words [SC2046]`
fn findings(place: &str, said: &str) -> Vec<Finding> {
    let one = |line: &str| {
        let rest = line.strip_prefix("-:")?;
        let mut parts = rest.splitn(3, ':');
        let (line, column, words) = (parts.next()?, parts.next()?, parts.next()?.trim());
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
        let found: Vec<String> = findings("x/trim", said).into_iter().map(|finding| finding.what).collect();
        assert_eq!(
            found,
            [
                "x/trim:3:7: Quote this to prevent word splitting. [SC2046]",
                "x/trim:4:1: Expected a command. [SC1072]"
            ]
        );
    }
}
