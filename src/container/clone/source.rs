//! Taking the state of a container: it is stopped, its root filesystem is committed, its `/opt` becomes a layer, and it
//! goes on. What a kill leaves in the middle is put right by [`settle`], whoever calls it.

use std::time::Instant;

use anyhow::{Context as _, Result};
use tokio_util::sync::CancellationToken;

use super::interrupted;
use crate::container::{Host, Intent, Record, build, lifecycle};
use crate::failpoint;
use crate::opt::{Held, LayerId, Store, Upper};
use crate::report::{Fault, Kind, Reporter};

/// A state that a container had, for others to start from.
pub struct Taken {
    /// The stack of `/opt`, lowest first.
    pub layers: Vec<LayerId>,
    /// Until others have it.
    pub _held: Vec<Held>,
    /// Milliseconds that the container was stopped for it.
    pub stopped_ms: u64,
}

impl Taken {
    /// What a snapshot has.
    pub async fn of_snapshot(host: &Host, layers: Vec<LayerId>) -> Result<Taken> {
        let (opt, held) = (host.opt.clone(), layers.clone());
        let held = build::blocking(move || opt.hold_layers(&held)).await?;
        Ok(Taken { layers, _held: held, stopped_ms: 0 })
    }
}

/// Takes the state of `source`, its root filesystem under `key`. Whatever comes of it, the source is as it was before.
pub async fn take(
    host: &Host,
    source: &Record,
    key: &str,
    (report, cancel): (&Reporter, &CancellationToken),
) -> Result<Taken> {
    let name = source.spec.name.as_str();
    let runs = lifecycle::engine_container(host, source).await?.running;
    // What takes long is done before it is stopped.
    let (lowers, _held) = lowers(host, source, report).await?;
    if cancel.is_cancelled() {
        return Err(interrupted(name).into());
    }
    let source = &Record { intent: Some(Intent::Clone { runs }), ..source.clone() };
    host.records.put(name, source)?;
    failpoint::reach("clone-begun");
    let begun = Instant::now();
    let taken = state(host, source, (key, lowers), (report, cancel)).await;
    let settled = settle(host, source, runs).await;
    let layers = taken?;
    settled?;
    let stopped_ms = if runs { u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX) } else { 0 };
    if runs {
        report
            .end("stop", format!("{name} was stopped for {:.1} s and starts again", stopped_ms as f64 / 1e3));
    }
    Ok(Taken { stopped_ms, ..Taken::of_snapshot(host, layers).await? })
}

/// The layers below the source's own directory; made fewer where they are many. What is new of them is to be held until
/// the source has it.
async fn lowers(host: &Host, source: &Record, report: &Reporter) -> Result<(Vec<LayerId>, Held)> {
    let (opt, volume, report) = (host.opt.clone(), source.opt_volume().to_owned(), report.clone());
    build::blocking(move || {
        let layers = opt.layers_of(&volume)?;
        if !Store::is_high(&layers) {
            return Ok((layers, Held::default()));
        }
        report.begin("flatten", format!("making one layer of the {} of {volume}", layers.len()));
        let (flat, held) = opt.flatten(&volume, &layers)?;
        report.end("flatten", format!("{volume} has {} layer(s)", flat.len()));
        Ok((flat, held))
    })
    .await
}

async fn state(
    host: &Host,
    source: &Record,
    (key, lowers): (&str, Vec<LayerId>),
    (report, cancel): (&Reporter, &CancellationToken),
) -> Result<Vec<LayerId>> {
    let name = source.spec.name.as_str();
    if matches!(source.intent, Some(Intent::Clone { runs: true })) {
        report.begin("stop", format!("stopping {name} for a moment"));
        host.engine.stop(name).await?;
    }
    failpoint::reach("clone-stopped");
    if cancel.is_cancelled() {
        return Err(interrupted(name).into());
    }
    // Where the engine keeps it otherwise than as an overlay here, the copies have these files, and their own over some.
    if let Some(layers) = host.engine.layers(name).await? {
        build::blocking(move || Upper::put_away(&layers.upper)).await?;
    }
    failpoint::reach("clone-away");
    report.begin("root", format!("committing the root filesystem of {name}"));
    host.engine.commit(name, key, &source.spec.owner.to_string()).await?;
    report.end("root", format!("the root filesystem of {name} is committed"));
    failpoint::reach("clone-committed");
    let (opt, volume) = (host.opt.clone(), source.opt_volume().to_owned());
    let stack = build::blocking(move || opt.freeze(&volume, &LayerId::unused(), lowers)).await?;
    failpoint::reach("clone-frozen");
    Ok(stack)
}

/// Has a container whose state was being taken as it was before: its files where they belong, running if it ran.
pub async fn settle(host: &Host, source: &Record, runs: bool) -> Result<()> {
    let name = source.spec.name.as_str();
    let settled = async {
        let found = host.engine.inspect(name).await?;
        let Some(found) = found.filter(|found| found.engine_id == source.engine_id) else { return Ok(()) };
        if found.running {
            return Ok(());
        }
        if let Some(layers) = host.engine.layers(name).await? {
            build::blocking(move || Upper::put_back(&layers.upper)).await?;
        }
        if runs {
            host.engine.start(name).await?;
        }
        anyhow::Ok(())
    };
    let settled = settled.await;
    failpoint::reach("clone-settled");
    // An engine that is away is waited for; one that does not start it says why, and would again.
    if settled.as_ref().is_ok() || settled.as_ref().is_err_and(|error| Fault::of(error).kind != Kind::Missing)
    {
        host.records.put(name, &Record { intent: None, ..source.clone() })?;
    } else {
        host.leftovers.notify_one();
    }
    settled.with_context(|| format!("{name} cannot be started again after its state was taken"))
}
