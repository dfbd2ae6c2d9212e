//! `show-logs`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::builder::NonEmptyStringValueParser;
use serde::Serialize;

use super::view;
use crate::api::{Client, ContainerDetail, client};
use crate::invocation::Invocation;
use crate::report::output::{self, Lines};
use crate::report::{Fault, Kind, Table};

/// Show what a container's init wrote, or list the logs of the runs of moorage on it
///
/// What a terminal would act on is shown as text.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage show-logs siem-9.2 --follow
  moorage show-logs siem-9.2 --runs")]
pub struct Args {
    /// The container; your own also by its short name (siem-9.2)
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    name: String,
    /// Go on as more is written, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Only the last N lines
    #[arg(long, short = 'n', value_name = "N")]
    lines: Option<u32>,
    /// List the logs of each run of moorage on this container, newest last
    #[arg(long, conflicts_with_all = ["follow", "lines"])]
    runs: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    if args.runs {
        let detail: ContainerDetail = client.get(&client::container(&args.name, "")).await?;
        return list_runs(Path::new(&detail.logs_directory), invocation);
    }
    let mut query = format!("/logs?follow={}", args.follow);
    if let Some(lines) = args.lines {
        query.push_str(&format!("&lines={lines}"));
    }
    let mut chunks = client.bytes(&client::container(&args.name, &query)).await?;
    let mut lines = Lines::default();
    while let Some(chunk) = chunks.next().await? {
        output::stdout(lines.take(&chunk).as_bytes())?;
    }
    output::stdout(lines.finish().as_bytes())
}

/// The log of one run.
#[derive(Debug, Serialize)]
struct Run {
    path: PathBuf,
    bytes: u64,
}

fn list_runs(directory: &Path, invocation: &Invocation) -> Result<()> {
    let runs = runs(directory)?;
    let mut table = Table::new(&["LOG", "SIZE"]);
    for run in &runs {
        table.row([run.path.display().to_string(), view::size(run.bytes)]);
    }
    invocation.print_list("runs", &runs, table, "no runs")
}

/// The logs in a directory; their names begin with the time, so that they sort by it.
fn runs(directory: &Path) -> Result<Vec<Run>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            let fault = Fault::new(Kind::Denied, "these logs are not yours to read");
            let fault = fault.why(format!("{}: {e}", directory.display()));
            return Err(fault.next("ask the container's owner").into());
        }
        Err(e) => return Err(e).with_context(|| format!("list {}", directory.display())),
    };
    let mut runs = Vec::new();
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            runs.push(Run { bytes: entry.metadata()?.len(), path });
        }
    }
    runs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_listed_oldest_first() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["2026-02-01-stop.log", "2026-01-01-make.log", "other.txt"] {
            std::fs::write(directory.path().join(name), "12345").unwrap();
        }
        let found = runs(directory.path()).unwrap();
        let names: Vec<_> = found.iter().map(|run| run.path.file_name().unwrap()).collect();
        assert_eq!(names, ["2026-01-01-make.log", "2026-02-01-stop.log"]);
        assert_eq!(found[0].bytes, 5);
        assert!(runs(&directory.path().join("none")).unwrap().is_empty());
    }
}
