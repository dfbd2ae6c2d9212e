//! Other limits for a container, in force at once.

use anyhow::Result;

use super::{Host, Record, check, lifecycle, slice};
use crate::api::{ResizeRequest, Resized};

/// Sets what is asked for, and leaves the rest as it is. A container that is made anew keeps it.
pub async fn resize(host: &Host, record: &Record, request: &ResizeRequest) -> Result<Resized> {
    let name = record.spec.name.as_str();
    let wanted = wanted(record, request);
    check::check(&wanted.spec, &host.config)?;
    let limits = check::effective(&wanted.spec.limits, &host.config.limits);
    let found = lifecycle::engine_container(host, record).await?;
    host.engine.limit(&found.engine_id, &limits).await?;
    let image = host.engine.image(&found.image_id).await?;
    if let Some(image) = image
        && host.facts(&image).await?.init.is_some()
    {
        let cgroups = host.engine.cgroups(&host.config.cgroup).await?;
        slice::confine(&cgroups, &record.id, &limits).await?;
    }
    host.records.put(name, &wanted)?;
    Ok(Resized { name: wanted.spec.name, limits })
}

fn wanted(record: &Record, request: &ResizeRequest) -> Record {
    let mut wanted = record.clone();
    let limits = &mut wanted.spec.limits;
    limits.memory = request.memory.or(limits.memory);
    limits.cpu_weight = request.cpu_weight.or(limits.cpu_weight);
    limits.pids = request.pids.or(limits.pids);
    wanted
}
