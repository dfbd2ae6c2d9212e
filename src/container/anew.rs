//! Making the engine's container anew from another root filesystem, on the same `/opt` or on that of a snapshot. Name, MAC,
//! address, host key, machine-id and settings stay. Once begun it is gone through with, by whichever daemon.

use anyhow::Result;

use super::{Host, Intent, Record, To, build, lifecycle, roots, snapshot};
use crate::api::VerbResult;
use crate::failpoint;
use crate::opt::LayerId;
use crate::report::{Fault, Kind, Reporter};

/// Makes `record`'s container anew from `to`. What an earlier one left half made is taken over, whatever that went to.
pub async fn begin(host: &Host, record: &Record, to: To, report: &Reporter) -> Result<VerbResult> {
    let name = record.spec.name.as_str();
    let runs = match &record.intent {
        Some(Intent::Anew { runs, .. }) => *runs,
        _ => host.engine.inspect(name).await?.is_some_and(|found| found.id == record.id && found.running),
    };
    let record = Record { intent: Some(Intent::Anew { to, runs }), ..record.clone() };
    // What cannot be gone through with is not begun: the record would bind every verb to it.
    plan(host, &record, report).await?;
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

/// What it will be.
struct Plan {
    record: Record,
    origin: build::Origin,
    /// The layers that its `/opt` goes back to.
    layers: Option<Vec<LayerId>>,
    runs: bool,
}

/// Looks whether everything is there that it is made of, and touches nothing. `None`: nothing is to be made anew.
async fn plan(host: &Host, record: &Record, report: &Reporter) -> Result<Option<Plan>> {
    let Some(Intent::Anew { to, runs }) = record.intent.clone() else { return Ok(None) };
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
    let origin = build::origin(host, &new, report).await?;
    if let (To::Snapshot(key), false) = (&to, origin.is_root) {
        let what = format!("the root filesystem of {key} is gone from Docker");
        let name = &record.spec.name;
        return Err(Fault::new(Kind::Missing, what)
            .why("somebody has removed its image, or all images that no container uses")
            .remains(format!("{name} as it was, and the /opt of the snapshot"))
            .next(format!("recreate-container {name} makes its root filesystem anew from its image"))
            .into());
    }
    Ok(Some(Plan { record: new, origin, layers, runs }))
}

/// Goes through with it. Each step may have been done before.
pub async fn go_on(host: &Host, record: &Record, report: &Reporter) -> Result<Record> {
    let name = record.spec.name.as_str();
    // Before anything goes: what it is made of has to be there, and somebody may have started it meanwhile.
    let planned = match plan(host, record, report).await {
        Ok(planned) => planned,
        Err(error) => return given_up(host, record, error).await,
    };
    let Some(Plan { record: mut new, origin, layers, runs }) = planned else { return Ok(record.clone()) };
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

/// What it was to be made of is gone since it was begun. A container that nothing was done to yet is what it was before.
async fn given_up(host: &Host, record: &Record, error: anyhow::Error) -> Result<Record> {
    let name = record.spec.name.as_str();
    let untouched = host.engine.inspect(name).await?.is_some_and(|found| found.engine_id == record.engine_id);
    let gone = matches!(Fault::of(&error).kind, Kind::Missing | Kind::NotFound);
    if !(untouched && gone) {
        return Err(error);
    }
    tracing::warn!("{name} is not made anew, and stays as it was: {error:#}");
    let record = Record { intent: None, ..record.clone() };
    host.records.put(name, &record)?;
    Ok(record)
}
