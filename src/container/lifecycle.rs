//! start, stop, restart, remove. `make` starts through the very code here.

use std::time::Duration;

use anyhow::Result;

use super::{Host, Intent, Record, handed_on, last_words, ready, settle, throttle, undo, view};
use crate::api::VerbResult;
use crate::engine::Found;
use crate::report::{Fault, Kind, Reporter};

/// The engine's container of a record; one that is gone is an error that says what to do.
pub async fn engine_container(host: &Host, record: &Record) -> Result<Found> {
    let name = record.spec.name.as_str();
    match host.engine.inspect(name).await? {
        Some(found) if found.engine_id == record.engine_id => Ok(found),
        _ => {
            Err(Fault::new(Kind::NotFound, format!("Docker no longer has the container {name}"))
                .remains(format!("its /opt, below {}", host.directory(name).display()))
                .next(format!(
                    "recreate-container {name} makes it anew on the same /opt, remove-container {name} removes the rest"
                ))
                .into())
        }
    }
}

/// Starts the container and waits until its init, and sshd where the image has it, are up.
pub async fn start(host: &Host, record: &Record, report: &Reporter) -> Result<VerbResult> {
    let record = &settle::settle(host, record).await?;
    let name = record.spec.name.as_str();
    let found = engine_container(host, record).await?;
    let changed = !found.running;
    if changed {
        report.begin("start", format!("starting {name}"));
        host.engine.start(name).await?;
    }
    up(host, record).await?;
    if changed {
        report.end("start", format!("{name} is up"));
    }
    Ok(VerbResult { name: record.spec.name.clone(), state: "running".to_owned(), changed })
}

/// How long the interface may take from Docker's word that the container runs until its address answers.
const ATTACH: Duration = Duration::from_secs(30);

/// Waits until a started container has its address, on the host too.
async fn attached(host: &Host, record: &Record) -> Result<()> {
    let name = record.spec.name.as_str();
    if !record.spec.address.is_on_lan() {
        // Docker's own networks are there before the container runs.
        return Ok(());
    }
    match tokio::time::timeout(ATTACH, host.lan.attached(&record.network_id, record.mac)).await {
        Ok(Err(gone)) => Err(gone),
        Ok(Ok(view)) if view.is_live() => Ok(()),
        Ok(Ok(_)) => Err(Fault::new(Kind::TimedOut, format!("{name} runs without an address"))
            .why("no DHCP server has answered; it gets an address as soon as one does")
            .remains(format!("{name} runs"))
            .next(format!("moorage doctor, or list-containers {name} later"))
            .into()),
        Err(_) => Err(Fault::new(
            Kind::TimedOut,
            format!("{name} runs without an address after {} s", ATTACH.as_secs()),
        )
        .next(format!("show-container {name} shows the lease's journal"))
        .into()),
    }
}

/// Waits until a started container can be used.
pub async fn up(host: &Host, record: &Record) -> Result<()> {
    let name = record.spec.name.as_str();
    attached(host, record).await?;
    let found = engine_container(host, record).await?;
    let pid = match (found.running, found.pid) {
        (true, Some(pid)) => pid,
        _ => {
            return Err(Fault::new(Kind::Failed, format!("{name} ended as soon as it was started"))
                .next(format!("show-logs {name}"))
                .into());
        }
    };
    throttle::apply(host, record, &found).await?;
    if let Some(lease) = view::lease(host, record)
        && let Err(error) = handed_on::bring_up_to_date(record, &found, &lease).await
    {
        // It runs, and every renewal tries again.
        tracing::warn!("{name}: {error:#}");
    }
    let image = host.engine.image(&found.image_id).await?;
    let facts = match image {
        Some(image) => Some(host.facts(&image).await?),
        None => None,
    };
    match facts.is_some_and(|facts| facts.sshd && facts.init.is_some()) {
        true => ready::sshd(name, pid).await,
        false => Ok(()),
    }
}

pub async fn stop(host: &Host, record: &Record, report: &Reporter) -> Result<VerbResult> {
    let record = &settle::settle(host, record).await?;
    let name = record.spec.name.as_str();
    let changed = engine_container(host, record).await?.running;
    if changed {
        report.begin("stop", format!("stopping {name}"));
        host.engine.stop(name).await?;
        report.end("stop", format!("{name} is stopped"));
    }
    Ok(VerbResult { name: record.spec.name.clone(), state: "stopped".to_owned(), changed })
}

pub async fn restart(host: &Host, record: &Record, report: &Reporter) -> Result<VerbResult> {
    // Once: what is settled is another record than what was begun on.
    let record = &settle::settle(host, record).await?;
    stop(host, record, report).await?;
    start(host, record, report).await
}

/// Removes the container with its `/opt`, lease and record. Interrupted, it is finished when the daemon starts.
pub async fn remove(host: &Host, record: &Record, report: &Reporter) -> Result<VerbResult> {
    let name = record.spec.name.as_str();
    report.begin("remove", format!("removing {name}"));
    host.records.put(name, &Record { intent: Some(Intent::Remove), ..record.clone() })?;
    let remains = finish_removal(host, record, |warning| report.warning(warning)).await;
    if !remains.is_empty() {
        let mut fault = Fault::new(Kind::Partly, format!("{name} is only partly removed"))
            .next(format!("remove-container {name}"));
        fault.remains = remains;
        return Err(fault.into());
    }
    report.end("remove", format!("{name} is removed; its logs stay"));
    Ok(VerbResult { name: record.spec.name.clone(), state: "removed".to_owned(), changed: true })
}

/// What is done once the record says that the container is to go, by whichever daemon: its logs are kept, and all that
/// is its own is removed. Answers what could not be.
pub async fn finish_removal(host: &Host, record: &Record, warn: impl Fn(String)) -> Vec<String> {
    if let Err(error) = last_words::keep(host, record).await {
        warn(format!("what was logged in {} is not kept: {error:#}", record.spec.name));
    }
    undo::take_apart(host, record).await
}
