//! Taking a container apart: after a failed make, and for `remove-container`. Every step may find its thing gone.

use anyhow::Result;

use super::{Host, Record, slice};
use crate::engine::Cgroup;

/// Removes all that belongs to `record`, goes on when a step fails, and answers what could not be removed. The record
/// itself goes last, and only when nothing is left: what remains is tried again when the daemon starts.
pub async fn take_apart(host: &Host, record: &Record) -> Vec<String> {
    let name = record.spec.name.as_str();
    let mut remains = Vec::new();
    let mut note = |what: String, result: Result<()>| {
        if let Err(error) = result {
            tracing::warn!("{what} of {name} remains: {error:#}");
            remains.push(format!("{what}: {error:#}"));
        }
    };
    note(format!("the container {name}"), engine_container(host, record).await);
    let volumes = (0..record.spec.mounts.len()).map(|index| record.mount_volume(index));
    for volume in volumes.chain([record.opt_volume().to_owned()]) {
        let removed = match host.engine.remove_volume(&volume).await {
            Ok(()) => {
                let (opt, name) = (host.opt.clone(), volume.clone());
                super::build::blocking(move || opt.remove_volume(&name)).await
            }
            Err(error) => Err(error),
        };
        note(format!("the volume {volume}"), removed);
    }
    note("the limits".to_owned(), slice::release(Cgroup::of_this_host(), &record.id).await);
    note(format!("the lease of {}", record.mac), host.lan.release(&record.network_id, record.mac).await);
    if !remains.is_empty() {
        host.leftovers.notify_one();
    } else if let Err(error) = host.records.remove(name) {
        remains.push(format!("the record of {name}: {error:#}"));
    }
    remains
}

/// A container of that name which is not ours stays.
async fn engine_container(host: &Host, record: &Record) -> Result<()> {
    match host.engine.inspect(record.spec.name.as_str()).await? {
        Some(found) if found.id == record.id => host.engine.remove(&found.engine_id).await,
        _ => Ok(()),
    }
}
