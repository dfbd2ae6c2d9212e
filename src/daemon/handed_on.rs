//! Running containers hear of it when their lease names other DNS or time servers than before: at a renewal, or when dockerd
//! has started them and written its own.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::App;
use crate::container::handed_on::bring_up_to_date;
use crate::lan::LeaseView;

/// Tells every container that a lease is of, once now and then as leases change, for ever.
pub async fn keep(app: Arc<App>, stop: CancellationToken) {
    let mut news = app.host.lan.news();
    for lease in app.host.lan.leases() {
        tell(&app, &lease).await;
    }
    loop {
        let lease = tokio::select! {
            lease = news.recv() => lease,
            () = stop.cancelled() => return,
        };
        match lease {
            Ok(lease) => tell(&app, &lease).await,
            Err(RecvError::Lagged(_)) => {
                for lease in app.host.lan.leases() {
                    tell(&app, &lease).await;
                }
            }
            Err(RecvError::Closed) => return,
        }
    }
}

async fn tell(app: &Arc<App>, lease: &LeaseView) {
    if let Err(error) = try_tell(app, lease).await {
        tracing::warn!("{}: it was not told of the LAN's servers: {error:#}", lease.hostname);
    }
}

/// A container of somebody else's making is left alone: what it asks `docker run` has said.
async fn try_tell(app: &Arc<App>, lease: &LeaseView) -> Result<()> {
    if !lease.is_live() || !lease.pinned {
        return Ok(());
    }
    let host = &app.host;
    let Some(record) = host.records.get(&lease.hostname).ok().flatten() else { return Ok(()) };
    if (record.mac, &record.network_id) != (lease.mac, &lease.network) || record.engine_id.is_empty() {
        return Ok(());
    }
    match host.engine.inspect(&lease.hostname).await? {
        Some(found) if found.engine_id == record.engine_id => {
            // It may have changed once more since.
            let now = host.lan.watch(&lease.network, lease.mac).map(|watch| watch.borrow().clone());
            bring_up_to_date(&record, &found, now.as_ref().unwrap_or(lease)).await
        }
        _ => Ok(()),
    }
}
