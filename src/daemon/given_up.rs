//! Containers that dockerd leaves down though nobody has stopped them.
//!
//! Two ways lead there: when we come late, a dockerd that starts tries for some fifteen seconds and then never again,
//! whatever the restart policy says; and a dockerd that was killed without live-restore ends, when it starts again, what
//! still runs, and then takes it for stopped by a person (seen with 20.10), whether or not we were there to see it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::App;
use super::operations::RECOVERY;
use crate::engine::Incarnation;

/// Between two looks for the engine. It answers once it is done with all that it starts by itself.
const AGAIN: Duration = Duration::from_secs(1);

/// Starts them, as soon as the engine answers: once now, and whenever there is a new dockerd.
pub async fn start(app: Arc<App>, stop: CancellationToken) {
    let mut engines = app.host.lan.engines();
    let mut looked_after = None;
    loop {
        while let Err(error) = attempt(&app, &mut looked_after).await {
            tracing::debug!("looking for what dockerd gave up waits: {error:#}");
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
        tokio::select! {
            changed = engines.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}

/// `looked_after`: for which dockerd this was done; whoever else calls the drivers is not one that is new.
async fn attempt(app: &Arc<App>, looked_after: &mut Option<Incarnation>) -> Result<()> {
    // One that was just started may still be at work on what it found.
    app.host.engine.ping().await?;
    let engine = app.host.engine.incarnation().await;
    if engine.is_some() && engine == *looked_after {
        return Ok(());
    }
    app.host.lan.collect_stale().await;
    let given_up = app.host.engine.given_up().await?;
    tracing::info!("containers given up by dockerd: {}", given_up.len());
    for lost in given_up {
        start_one(app, &lost.name, &lost.why).await?;
    }
    *looked_after = engine;
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
