//! Source checkouts: `git clone` as the person who asked, with their own git, keys and configuration.

mod progress;

use std::io::IsTerminal as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::report::{Fault, Kind, Reporter, Unit};
use crate::spec::SourceSpec;

/// The key of the progress events.
const STEP: &str = "source";
/// How many of git's last lines explain a failure.
const LAST_WORDS: usize = 8;

/// Clones every source into `staging`, side by side, each into a directory named by its index. Dropping the future
/// kills what still runs.
///
/// # Errors
/// [`Kind::Missing`] without git, [`Kind::NotFound`] for a branch or tag that is not there, else [`Kind::Failed`]
/// with git's own last words.
pub async fn all(sources: &[SourceSpec], staging: &Path, reporter: &Reporter) -> Result<()> {
    reporter.begin(STEP, format!("check out {}", names(sources)));
    let progress = progress::Sum::new(sources.len());
    try_join_all(sources.iter().enumerate().map(|(index, source)| {
        let directory = staging.join(index.to_string());
        let progress = &progress;
        async move {
            clone(source, &directory, |percent| {
                reporter.progress(STEP, progress.set(index, percent), Some(progress.total()), Unit::Items);
            })
            .await
        }
    }))
    .await?;
    reporter.end(STEP, format!("checked out {}", names(sources)));
    Ok(())
}

fn names(sources: &[SourceSpec]) -> String {
    let name = |source: &SourceSpec| match &source.reference {
        Some(reference) => format!("{} {reference}", source.repo),
        None => source.repo.clone(),
    };
    sources.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// Clones one source into `directory`, which git makes.
async fn clone(source: &SourceSpec, directory: &Path, mut progress: impl FnMut(u64)) -> Result<()> {
    let mut git = command(source, directory).spawn().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Fault::new(Kind::Missing, format!("{} cannot be checked out", source.repo))
                .why("git is not installed")
                .next("apt install git")
        }
        _ => failed(source).why(format!("git cannot be started: {error}")),
    })?;
    let said = listen(&mut git, &mut progress).await?;
    let status = git.wait().await.context("wait for git")?;
    if status.success() {
        return Ok(());
    }
    let mut fault = explain(source, &said);
    if said.iter().any(|line| line.contains("unable to write")) {
        fault.why.extend(room(directory));
        fault.next = Some("make room there, then run the same command again".to_owned());
    }
    Err(fault.into())
}

fn command(source: &SourceSpec, directory: &Path) -> Command {
    let mut git = Command::new("git");
    // A repository's address may name a command to run; whoever wrote the site is not to run one as this person.
    git.args(["-c", "protocol.ext.allow=never", "clone", "--progress", "--recurse-submodules"]);
    // A local clone shares its files with the repository by hard links, and would give them to the container.
    git.arg("--no-local");
    if let Some(reference) = &source.reference {
        git.arg(format!("--branch={reference}"));
    }
    git.arg("--").arg(&source.repo).arg(directory);
    // Set by a git hook or alias around us, these would make git work on another repository.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR"] {
        git.env_remove(variable);
    }
    // Its messages are read below.
    git.env("LC_ALL", "C");
    if !std::io::stdin().is_terminal() {
        git.env("GIT_TERMINAL_PROMPT", "0");
    }
    git.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
    git
}

/// Reads what git says until it ends; returns its last lines that are no progress.
async fn listen(git: &mut Child, progress: &mut impl FnMut(u64)) -> Result<Vec<String>> {
    let mut from = git.stderr.take().context("git has no stderr")?;
    let mut said = Vec::new();
    let mut pieces = progress::Pieces::default();
    let mut chunk = [0; 4096];
    loop {
        let count = from.read(&mut chunk).await.context("read what git says")?;
        let complete = match count {
            0 => pieces.finish(),
            _ => pieces.take(&chunk[..count]),
        };
        for line in complete {
            match progress::percent(&line) {
                Some(percent) => progress(percent),
                None if line.trim().is_empty() || line.starts_with("hint:") => {}
                None => said.push(line),
            }
        }
        said.drain(..said.len().saturating_sub(LAST_WORDS));
        if count == 0 {
            return Ok(said);
        }
    }
}

fn failed(source: &SourceSpec) -> Fault {
    Fault::new(Kind::Failed, format!("{} cannot be checked out", names(std::slice::from_ref(source))))
        .next(format!("see that this works: git ls-remote -- '{}'", source.repo.replace('\'', r"'\''")))
}

/// What git says of a full disk names a file of the repository, not the disk. It has removed that file, so that only
/// the room there is now can be told.
fn room(directory: &Path) -> Option<String> {
    let place = directory.ancestors().find(|place| place.exists())?;
    let room = rustix::fs::statvfs(place).ok()?;
    let free = humansize::format_size(room.f_bavail.saturating_mul(room.f_frsize), humansize::BINARY);
    Some(format!("there may be too little space: {free} are free in {}", place.display()))
}

/// git's last words as a fault.
fn explain(source: &SourceSpec, said: &[String]) -> Fault {
    let no_such_reference = said.iter().any(|line| {
        line.contains("Remote branch ") && line.contains(" not found in upstream")
            || line.contains("Could not find remote branch ")
    });
    let mut fault = match &source.reference {
        Some(reference) if no_such_reference => {
            Fault::new(Kind::NotFound, format!("{} has no branch or tag {reference:?}", source.repo))
                .next(format!("git ls-remote --heads --tags -- '{}'", source.repo.replace('\'', r"'\''")))
        }
        _ => failed(source),
    };
    fault.why.extend(said.iter().cloned());
    fault
}
