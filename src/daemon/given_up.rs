//! Containers that dockerd leaves down though nobody has stopped them.
//!
//! Two ways lead there: when we come late, a dockerd that starts tries for some fifteen seconds and then never again,
//! whatever the restart policy says; and a dockerd that was killed without live-restore ends, when it starts again, what
//! still runs, and then takes it for stopped by a person (seen with 20.10).

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::App;
use super::operations::RECOVERY;
use crate::container::Record;
use crate::lan::LeaseView;

/// Between two looks for the engine. It answers once it is done with all that it starts by itself.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts them, as soon as the engine answers: once now, and whenever there is a new dockerd.
pub async fn start(app: Arc<App>, stop: CancellationToken) {
    let mut orphans = app.host.lan.orphans();
    let mut live = Vec::new();
    loop {
        while let Err(error) = attempt(&app, &live).await {
            tracing::debug!("looking for what dockerd gave up waits: {error:#}");
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
        tokio::select! {
            changed = orphans.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
        live = orphans.borrow_and_update().clone();
    }
}

/// `live`: what was in use when dockerd's process changed.
async fn attempt(app: &Arc<App>, live: &[LeaseView]) -> Result<()> {
    // One that was just started may still be at work on what it found.
    app.host.engine.ping().await?;
    app.host.lan.collect_stale().await;
    for lost in app.host.engine.given_up().await? {
        start_one(app, &lost.name, &lost.why).await?;
    }
    let was_live =
        |record: &Record| live.iter().any(|l| (&l.network, l.mac) == (&record.network_id, record.mac));
    for (name, record) in app.host.records.all()?.into_iter().filter(|(_, record)| was_live(record)) {
        let found = app.host.engine.inspect(&name).await?;
        if found.is_some_and(|found| found.engine_id == record.engine_id && !found.running) {
            start_one(app, &name, "it ran when its dockerd ended").await?;
        }
    }
    Ok(())
}

async fn start_one(app: &Arc<App>, name: &str, why: &str) -> Result<()> {
    // A person who works on it knows better.
    let Ok(_operation) = app.operations.begin_now(name, RECOVERY, 0) else { return Ok(()) };
    if app.host.records.get(name)?.is_some_and(|record| record.intent.is_some()) {
        return Ok(());
    }
    tracing::info!("{name}: starting it again: {why}");
    if let Err(error) = app.host.engine.start(name).await {
        tracing::warn!("{name}: it does not start: {error:#}");
    }
    Ok(())
}
