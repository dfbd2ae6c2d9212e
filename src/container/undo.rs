//! Taking a container apart: after a failed make, and for `remove-container`. Every step may find its thing gone.

use std::time::Duration;

use anyhow::Result;

use super::{Host, Record, build, roots, slice};
use crate::engine::InUse;
use crate::report::{Fault, Kind};

/// How often and how far apart an engine is asked again that still uses what is to go.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(200);

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
    let volumes = record.volumes();
    note(format!("the container {name}"), out_of_the_engine(host, record, &volumes).await);
    for volume in volumes {
        let (opt, name) = (host.opt.clone(), volume.clone());
        note(format!("the volume {volume}"), build::blocking(move || opt.remove_volume(&name)).await);
    }
    note("its control groups".to_owned(), groups(host, record).await);
    note(format!("the lease of {}", record.mac), host.lan.release(&record.network_id, record.mac).await);
    if !remains.is_empty() {
        host.leftovers.notify_one();
    } else if let Err(error) = host.records.remove(name) {
        remains.push(format!("the record of {name}: {error:#}"));
    } else if let Err(error) = roots::collect(host).await {
        // Nobody's any more, and asked about again with the next container that goes.
        tracing::warn!("what only {name} needed stays: {error:#}");
    }
    remains
}

/// Removes the container and its volumes from the engine. An engine that was creating the container when its caller
/// went away goes on for a while: until it has ended, the container cannot be seen and its volumes are in use.
async fn out_of_the_engine(host: &Host, record: &Record, volumes: &[String]) -> Result<()> {
    let mut tries = 0;
    loop {
        engine_container(host, record).await?;
        let mut in_use = None;
        for volume in volumes {
            if let Err(InUse(why)) = host.engine.remove_volume(volume, &record.id).await? {
                in_use = Some(why);
            }
        }
        let Some(why) = in_use else { return Ok(()) };
        tries += 1;
        if tries == TRIES {
            return Err(Fault::new(Kind::Failed, "the engine still uses its volumes")
                .why(why)
                .next("docker ps -a shows who; the daemon tries again by itself")
                .into());
        }
        // An engine says nothing when it gives a container up that it never finished creating.
        tokio::time::sleep(PAUSE).await;
    }
}

async fn groups(host: &Host, record: &Record) -> Result<()> {
    let cgroups = host.engine.cgroups(&host.config.cgroup).await?;
    slice::release(&cgroups, &record.id).await
}

/// A container of that name which is not ours stays.
async fn engine_container(host: &Host, record: &Record) -> Result<()> {
    match host.engine.inspect(record.spec.name.as_str()).await? {
        Some(found) if found.id == record.id => host.engine.remove(&found.engine_id).await,
        _ => Ok(()),
    }
}
