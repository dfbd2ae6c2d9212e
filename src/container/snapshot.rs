//! Snapshots: states that containers had. A state is taken as for cloning; the container goes back to it (`anew`), and new
//! containers start from it (`clone`).

use anyhow::Result;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::{Host, Record, Root, clone, lifecycle, roots};
use crate::api::{SnapshotResult, SnapshotView};
use crate::failpoint;
use crate::opt::LayerId;
use crate::report::{Fault, Kind, Reporter};
use crate::spec::{ContainerName, SnapshotName};

/// A state that a container had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub name: SnapshotName,
    /// The container as it was.
    pub of: Record,
    pub made: Timestamp,
    pub root: Root,
    /// Of `/opt`, lowest first.
    pub layers: Vec<LayerId>,
}

/// What the snapshot is recorded under; the container may be gone.
pub fn key(container: &ContainerName, name: &SnapshotName) -> String {
    // Neither has a dot.
    format!("{container}.{name}")
}

pub fn missing(key: &str) -> Fault {
    Fault::new(Kind::NotFound, format!("there is no snapshot {}", key.replacen('.', " ", 1)))
        .next("list-snapshots")
}

/// Takes a snapshot of `source`, which stops for a moment.
pub async fn take(
    host: &Host,
    source: &Record,
    name: &SnapshotName,
    (log, report, cancel): (&str, &Reporter, &CancellationToken),
) -> Result<SnapshotResult> {
    let container = &source.spec.name;
    let key = key(container, name);
    if host.snapshots.get(&key)?.is_some() {
        return Err(Fault::new(Kind::Differs, format!("{container} has a snapshot {name} already"))
            .next(format!("another --name, or remove-snapshot {container} {name}"))
            .into());
    }
    let held = host.held_roots.unused();
    let image_id = clone::image_under(host, source).await?;
    let taken = clone::source::take(host, source, &held.key, (report, cancel)).await;
    let taken = match taken {
        Ok(taken) => taken,
        Err(error) => {
            drop(held);
            if let Err(error) = roots::collect(host).await {
                tracing::warn!("what the snapshot {key} left stays: {error:#}");
            }
            return Err(error);
        }
    };
    failpoint::reach("snapshot-taken");
    let snapshot = Snapshot {
        name: name.clone(),
        of: Record { intent: None, ..source.clone() },
        made: Timestamp::now(),
        root: Root { key: held.key.clone(), image_id },
        layers: taken.layers.clone(),
    };
    host.snapshots.put(&key, &snapshot)?;
    if taken.stopped_ms > 0 {
        lifecycle::up(host, source).await?;
    }
    report.end("snapshot", format!("{container} {name} is taken"));
    Ok(SnapshotResult {
        container: container.clone(),
        snapshot: name.clone(),
        stopped_ms: taken.stopped_ms,
        log: log.to_owned(),
    })
}

/// Forgets a snapshot, and removes what only it needs.
pub async fn remove(host: &Host, key: &str) -> Result<()> {
    for (name, record) in host.records.all()? {
        if let Some(super::Intent::Anew { to: super::To::Snapshot(to), .. }) = &record.intent
            && to == key
        {
            return Err(Fault::new(Kind::Failed, format!("{name} is being put back to it"))
                .next(format!("start-container {name}, then the same command again"))
                .into());
        }
    }
    host.snapshots.remove(key)?;
    failpoint::reach("snapshot-forgotten");
    roots::collect(host).await
}

/// All snapshots, the oldest of each container first.
pub fn all(host: &Host) -> Result<Vec<SnapshotView>> {
    let mut views: Vec<SnapshotView> = host
        .snapshots
        .all()?
        .into_iter()
        .map(|(_, snapshot)| SnapshotView {
            container: snapshot.of.spec.name,
            snapshot: snapshot.name,
            owner: snapshot.of.spec.owner,
            project: snapshot.of.spec.project,
            branch: snapshot.of.spec.branch,
            image: snapshot.of.spec.image,
            made: snapshot.made,
        })
        .collect();
    views.sort_by(|a, b| (&a.container, a.made).cmp(&(&b.container, b.made)));
    Ok(views)
}
