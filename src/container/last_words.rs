//! What a container's services and its PID 1 logged, kept when the container goes.

use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;

use super::runlog::RunLog;
use super::{Host, Record};
use crate::engine::Exec;

/// The longest that is waited for what a container says; it is about to go.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lines of the journal that are kept.
const JOURNAL: &str = "20000";

/// Writes the last lines of the journal and of the engine's log beside the logs of the runs. One that does not run has no
/// journal to be asked.
pub async fn keep(host: &Host, record: &Record) -> Result<()> {
    let name = record.spec.name.as_str();
    let Some(found) = host.engine.inspect(name).await?.filter(|found| found.id == record.id) else {
        return Ok(());
    };
    let all = async {
        if found.running {
            journal(host, record).await?;
        }
        output(host, record).await
    };
    tokio::time::timeout(PATIENCE, all).await.context("it does not say it in time")?
}

/// What its services logged, where it has systemd.
async fn journal(host: &Host, record: &Record) -> Result<()> {
    let image = host.engine.inspect(record.spec.name.as_str()).await?.map(|found| found.image_id);
    let image = match image {
        Some(id) => host.engine.image(&id).await?,
        None => None,
    };
    let facts = match image {
        Some(image) => host.facts(&image).await?,
        None => return Ok(()),
    };
    if facts.init.is_none() {
        return Ok(());
    }
    let script =
        format!("command -v journalctl >/dev/null || exit 0; exec journalctl --no-pager -n {JOURNAL}");
    let exec =
        Exec { command: vec!["/bin/sh".into(), "-c".into(), script], user: "root".into(), ..Exec::default() };
    let log = open(host, record, "journal")?;
    host.engine.run(record.spec.name.as_str(), &exec, |line| log.line(line)).await?;
    Ok(())
}

/// What its PID 1 wrote, as the engine kept it.
async fn output(host: &Host, record: &Record) -> Result<()> {
    let mut pieces = Box::pin(host.engine.output(record.spec.name.as_str(), false, None).await?);
    let mut log = None;
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        let log = match &mut log {
            Some(log) => log,
            empty => empty.insert(open(host, record, "output")?),
        };
        String::from_utf8_lossy(&piece).lines().for_each(|line| log.line(line));
    }
    Ok(())
}

fn open(host: &Host, record: &Record, what: &str) -> Result<RunLog> {
    RunLog::open(&host.config.storage, record.spec.name.as_str(), what, record.reader())
}
