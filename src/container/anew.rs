//! Making the engine's container anew from another root filesystem, on the same `/opt` or on that of a snapshot. Name, MAC,
//! address, host key, machine-id and settings stay. Once begun it is gone through with, by whichever daemon.

use anyhow::Result;

use super::{Host, Intent, Record, To, build, lifecycle, roots, snapshot};
use crate::api::VerbResult;
use crate::failpoint;
use crate::report::{Fault, Kind, Reporter};

/// Makes `record`'s container anew from `to`.
pub async fn begin(host: &Host, record: &Record, to: To, report: &Reporter) -> Result<VerbResult> {
    let name = record.spec.name.as_str();
    let runs = host.engine.inspect(name).await?.is_some_and(|found| found.id == record.id && found.running);
    let record = Record { intent: Some(Intent::Anew { to, runs }), ..record.clone() };
    host.records.put(name, &record)?;
    failpoint::reach("anew-begun");
    let done = go_on(host, &record, report).await.map_err(|error| {
        Fault::of(&error)
            .remains(format!("{name} is half made anew; its /opt is whole"))
            .next(format!("start-container {name} goes on from there"))
    })?;
    let state = if runs { "running" } else { "stopped" };
    Ok(VerbResult { name: done.spec.name, state: state.to_owned(), changed: true })
}

/// Goes through with it. Each step may have been done before.
pub async fn go_on(host: &Host, record: &Record, report: &Reporter) -> Result<Record> {
    let name = record.spec.name.as_str();
    let Some(Intent::Anew { to, runs }) = record.intent.clone() else { return Ok(record.clone()) };
    let mut new = Record { intent: None, ..record.clone() };
    let mut layers = None;
    match &to {
        To::Image(image) => {
            new.spec.image = image.clone();
            new.root = None;
        }
        To::Snapshot(key) => {
            let snapshot = host.snapshots.get(key)?.ok_or_else(|| snapshot::missing(key))?;
            new.spec.image = snapshot.of.spec.image;
            new.root = Some(snapshot.root);
            layers = Some(snapshot.layers);
        }
    }
    // Before anything goes: what it is made of has to be there, and somebody may have started it meanwhile.
    let origin = build::origin(host, &new, report).await?;
    if let (To::Snapshot(key), false) = (&to, origin.is_root) {
        let what = format!("the root filesystem of {key} is gone from Docker");
        return Err(Fault::new(Kind::Missing, what).next(format!("recreate-container {name}")).into());
    }
    if let Some(found) = host.engine.inspect(name).await?
        && found.id == record.id
    {
        if found.running {
            report.begin("stop", format!("stopping {name}"));
            host.engine.stop(name).await?;
        }
        host.engine.remove(&found.engine_id).await?;
    }
    failpoint::reach("anew-removed");
    if let Some(layers) = layers {
        let (opt, volume) = (host.opt.clone(), record.opt_volume().to_owned());
        build::blocking(move || opt.restack(&volume, layers)).await?;
        failpoint::reach("anew-restacked");
    }
    report.begin("create", format!("making {name} anew"));
    let lease = build::address(host, &new, &Reporter::silent()).await?;
    new.engine_id = build::engine_container(host, &new, &origin, lease.as_ref()).await?;
    failpoint::reach("anew-created");
    host.records.put(name, &new)?;
    report.end("create", format!("{name} is made anew"));
    if runs {
        host.engine.start(name).await?;
        lifecycle::up(host, &new).await?;
    }
    if let Err(error) = roots::collect(host).await {
        tracing::warn!("what {name} had before stays: {error:#}");
    }
    Ok(new)
}
