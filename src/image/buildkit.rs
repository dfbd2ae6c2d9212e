//! A build with secrets. The classic builder knows none, and the engine's other one, BuildKit, is spoken to by Docker's own
//! command line: what a secret is stays between the two, and gets into no layer, history or log.

pub(crate) mod client;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use bollard::query_parameters::{RemoveImageOptions, TagImageOptions};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use super::stream::Tail;
use super::{Build, STEP};
use crate::report::{Fault, Kind, Unit};
use crate::site::ImageDefinition;

/// The files with the secrets that an author hands in, by name.
pub type Secrets = BTreeMap<String, PathBuf>;

/// BuildKit takes no image's id in `FROM`. The id is a name's tag for as long as the build goes on, and nobody can have put
/// another image there: no registry is called that (RFC 6761, 6.4).
const PINNED: &str = "moorage.invalid/pinned";

/// What is built: the context without its base.
pub(super) struct Wanted<'a> {
    pub reference: &'a str,
    pub labels: &'a std::collections::HashMap<String, String>,
    pub arguments: &'a std::collections::HashMap<String, String>,
}

/// `NAME=FILE` as it is typed.
pub fn parse(text: &str) -> Result<(String, PathBuf), String> {
    match text.split_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() && !name.contains(',') => {
            Ok((name.to_owned(), file.into()))
        }
        _ => Err("a secret is NAME=FILE".to_owned()),
    }
}

/// The files of an image's secrets. One that is not handed in, or is no file: [`Kind::Usage`].
pub(super) fn of(definition: &ImageDefinition, secrets: &Secrets) -> Result<Secrets, Fault> {
    let one = |name: &String| {
        let Some(file) = secrets.get(name) else {
            let what =
                format!("{} is built with the secret {name:?}, which was not handed in", definition.name);
            return Err(Fault::new(Kind::Usage, what).next(format!("--secret {name}=FILE")));
        };
        match file.is_file() && !file.display().to_string().contains(',') {
            true => Ok((name.clone(), file.clone())),
            false => {
                let what = format!("the secret {name:?} cannot be read from {}", file.display());
                Err(Fault::new(Kind::Usage, what).next(format!("ls -la {}", file.display())))
            }
        }
    };
    definition.raw.secrets.iter().map(one).collect()
}

/// The name that stands for an id, given without `sha256:`.
pub(super) fn pinned_name(id: &str) -> String {
    format!("{PINNED}:{id}")
}

/// A name that `FROM` may have for an image, in place of its id.
pub(super) struct Pinned {
    pub name: String,
    made: bool,
}

impl Pinned {
    pub async fn of(build: Build<'_>, pinned: &str) -> Result<Pinned> {
        let Some(id) = pinned.strip_prefix("sha256:") else {
            return Ok(Pinned { name: pinned.to_owned(), made: false });
        };
        let name = TagImageOptions { repo: Some(PINNED.to_owned()), tag: Some(id.to_owned()) };
        let named = build.docker().await?.tag_image(pinned, Some(name)).await;
        named.with_context(|| format!("give {pinned} a name to build on"))?;
        Ok(Pinned { name: pinned_name(id), made: true })
    }

    /// Takes the name away again. One that a killed build left is taken away by the next on the same image.
    pub async fn forget(self, build: Build<'_>) -> Result<()> {
        if self.made {
            let keep = RemoveImageOptions { noprune: true, ..RemoveImageOptions::default() };
            let removed = build.docker().await?.remove_image(&self.name, Some(keep), None).await;
            removed.with_context(|| format!("take the name {} away", self.name))?;
        }
        Ok(())
    }
}

/// Builds the context `archive`; what the builder says is shown live.
pub(super) async fn build(
    build: Build<'_>,
    archive: Vec<u8>,
    secrets: &Secrets,
    wanted: Wanted<'_>,
) -> Result<()> {
    let mut command = Command::new(client::find().await?);
    command.args(["build", "--progress=plain", "--network=host", "--tag", wanted.reference]);
    if build.refresh {
        command.arg("--no-cache");
    }
    for (name, value) in wanted.labels {
        command.arg("--label").arg(format!("{name}={value}"));
    }
    for name in wanted.arguments.keys() {
        // Its value is that of the environment.
        command.arg("--build-arg").arg(name);
    }
    for (name, file) in secrets {
        command.arg("--secret").arg(format!("id={name},src={}", file.display()));
    }
    let child = command
        .arg("-")
        .env("DOCKER_BUILDKIT", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.context("run docker build")?;
    let mut stdin = child.stdin.take().context("hand the build its context")?;
    let mut lines = BufReader::new(child.stderr.take().context("read what the builder says")?).lines();
    let hand_in = async {
        // A builder that went away says why itself.
        let _ = stdin.write_all(&archive).await;
        drop(stdin);
    };
    let listen = async {
        let mut tail = Tail::default();
        while let Some(line) = lines.next_line().await.context("read what the builder says")? {
            if let Some((done, total)) = step(&line) {
                build.report.progress(STEP, done, Some(total), Unit::Items);
            }
            tail.line(build.report, line);
        }
        anyhow::Ok(tail)
    };
    let ((), heard) = tokio::join!(hand_in, listen);
    let tail = heard?;
    let status = child.wait().await.context("wait for docker build")?;
    match status.success() {
        true => Ok(()),
        false => Err(tail
            .fault(format!("{} could not be built", wanted.reference), Some(status.to_string()))
            .into()),
    }
}

/// `#5 [2/4] RUN …`
fn step(line: &str) -> Option<(u64, u64)> {
    let rest = line.strip_prefix('#')?.split_once(" [")?.1.split_once(']')?.0;
    let (done, total) = rest.rsplit(' ').next()?.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_builder_s_steps_are_counted() {
        assert_eq!(step("#5 [2/4] RUN x"), Some((2, 4)));
        assert_eq!(step("#7 [stage-1 3/12] COPY x"), Some((3, 12)));
        assert_eq!(step("#1 [internal] load build definition"), None);
        assert_eq!(step("Step 1/2"), None);
    }

    #[test]
    fn secrets_are_named_files() {
        assert_eq!(parse("token=/x/y=z").unwrap(), ("token".into(), "/x/y=z".into()));
        assert!(parse("token").is_err() && parse("=x").is_err() && parse("a=").is_err());
    }
}
