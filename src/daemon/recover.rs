//! Finishing and undoing what was begun: by the last daemon, or by this one when the engine was away.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio_util::sync::CancellationToken;

use super::App;
use super::operations::RECOVERY;
use crate::container::{Intent, lifecycle, roots, settle, undo};
use crate::engine::PROBE;

/// Between two attempts while the Docker Engine is not there: it starts after us, and says so to nobody.
const AGAIN: Duration = Duration::from_secs(1);

/// Takes apart what was half made and what was to be removed; when nothing is left, waits until something is.
pub async fn recover(app: Arc<App>, stop: CancellationToken) {
    let (mut first, mut said) = (true, String::new());
    loop {
        let attempted = attempt(&app, first).await;
        first &= attempted.is_err();
        let nothing_left = attempted.unwrap_or_else(|error| {
            // It is tried every second: the same is said once.
            let why = format!("{error:#}");
            if why != said {
                tracing::warn!("recovery waits: {why}");
                said = why;
            }
            false
        });
        if nothing_left {
            super::memory::trim();
        }
        let pause = async {
            match nothing_left {
                true => app.host.leftovers.notified().await,
                false => tokio::time::sleep(AGAIN).await,
            }
        };
        tokio::select! {
            () = pause => {}
            () = stop.cancelled() => return,
        }
    }
}

/// One pass; `true` when nothing is left. The first looks for what no record tells of, too.
async fn attempt(app: &App, first: bool) -> Result<bool> {
    // A daemon that was killed while it looked into an image left its probe.
    if app.host.engine.inspect(PROBE).await.is_ok_and(|probe| probe.is_some()) {
        app.host.engine.clear_probe().await?;
    }
    let unfinished: Vec<_> =
        app.host.records.all()?.into_iter().filter(|(_, record)| record.intent.is_some()).collect();
    if unfinished.is_empty() && !first {
        return Ok(true);
    }
    app.host.engine.ping().await?;
    let mut left = false;
    for (name, record) in unfinished {
        // Busy: the person was quicker, or it is being made right now.
        let Ok(_operation) = app.operations.begin_now(&name, RECOVERY, 0) else {
            left = true;
            continue;
        };
        // The record may have changed while we waited for others.
        let Some(current) = app.host.records.get(&name)? else { continue };
        if current.id != record.id || current.intent.is_none() {
            continue;
        }
        if let Some(Intent::Clone { .. } | Intent::Anew { .. }) = current.intent {
            tracing::info!("{name}: going on with what was interrupted");
            // What cannot be ended now is tried again when somebody starts it.
            if let Err(error) = settle::settle(&app.host, &current).await {
                tracing::warn!("{error:#}");
            }
            continue;
        }
        let remains = match current.intent {
            Some(Intent::Make) => {
                tracing::info!("{name}: undoing the make that was interrupted");
                undo::take_apart(&app.host, &current).await
            }
            _ => {
                tracing::info!("{name}: finishing the removal that was interrupted");
                lifecycle::finish_removal(&app.host, &current, |warning| tracing::warn!("{warning}")).await
            }
        };
        left |= !remains.is_empty();
    }
    // Committed, or frozen, for nobody.
    roots::collect(&app.host).await?;
    Ok(!left)
}
