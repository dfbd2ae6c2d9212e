//! What people ask about snapshots, and about containers that are made anew.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use tokio_util::sync::CancellationToken;

use super::clones::{self, From};
use super::operations::{CLONE, Operation};
use super::permit::{Action, permit};
use super::routes::{Answer, body};
use super::{App, events};
use crate::api::{
    FromSnapshot, Losses, RecreateRequest, SnapshotNamed, SnapshotRequest, SnapshotView, VerbResult,
};
use crate::container::runlog::RunLog;
use crate::container::settle::settle;
use crate::container::snapshot::{self, Snapshot};
use crate::container::{Caller, Intent, Record, To, anew, check, losses as lost};
use crate::report::{Fault, Kind};
use crate::spec::{ContainerName, SnapshotName};

pub async fn list(State(app): State<Arc<App>>, _: Caller) -> Answer<Json<Vec<SnapshotView>>> {
    Ok(Json(snapshot::all(&app.host)?))
}

pub async fn take(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Response> {
    let request: SnapshotRequest = body(&bytes)?;
    let name = request.name.unwrap_or_else(|| SnapshotName::of_time(jiff::Timestamp::now()));
    let (operation, source) = app.begun(&caller, Action::Operate, (&typed, CLONE)).await?;
    let log = RunLog::open(&app.host.config.storage, source.spec.name.as_str(), "snapshot", source.reader())?;
    Ok(events::stream((operation.id.clone(), operation.cancel.clone()), move |report| {
        let report = log.tee(&report);
        async move {
            let path = log.path.to_string_lossy().into_owned();
            let taken = snapshot::take(&app.host, &source, &name, (&path, &report, &operation.cancel)).await;
            log.close(&taken);
            drop(operation);
            taken
        }
    }))
}

/// The snapshot of the container that `typed` means to `caller`; the container may be gone.
pub fn find(
    app: &App,
    caller: &Caller,
    typed: &str,
    name: &SnapshotName,
) -> anyhow::Result<(String, Snapshot)> {
    let get = |container: &ContainerName| {
        let key = snapshot::key(container, name);
        Ok(app.host.snapshots.get(&key)?.map(|found| (key, found)))
    };
    if let Some((key, found)) = caller.find(typed, get, |(_, found)| &found.of.spec.owner)? {
        permit(caller, Action::Operate, &found.of.spec.owner)?;
        return Ok((key, found));
    }
    Err(Fault::new(Kind::NotFound, format!("{typed} has no snapshot {name}")).next("list-snapshots").into())
}

pub async fn remove(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Json<VerbResult>> {
    let SnapshotNamed { snapshot: name } = body(&bytes)?;
    let (key, found) = find(&app, &caller, &typed, &name)?;
    // Whoever is putting the container back to it right now goes first.
    let container = found.of.spec.name;
    let _operation = app.operations.begin(container.as_str(), "remove-snapshot", caller.account.uid).await?;
    snapshot::remove(&app.host, &key).await?;
    Ok(Json(VerbResult { name: container, state: format!("snapshot {name} removed"), changed: true }))
}

pub async fn clone(State(app): State<Arc<App>>, caller: Caller, bytes: bytes::Bytes) -> Answer<Response> {
    let FromSnapshot { container, snapshot: name, clones: request } = body(&bytes)?;
    let (_, found) = find(&app, &caller, &container, &name)?;
    permit(&caller, Action::Make, &found.of.spec.owner)?;
    clones::check_count(&request)?;
    Ok(clones::begin(app, caller, (From::Snapshot(Box::new(found)), request))?)
}

pub async fn restore(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Response> {
    let SnapshotNamed { snapshot: name } = body(&bytes)?;
    let (operation, record) = app.begun(&caller, Action::Operate, (&typed, "restore")).await?;
    let key = snapshot::key(&record.spec.name, &name);
    let found = app.host.snapshots.get(&key)?.ok_or_else(|| snapshot::missing(&key))?;
    permit(&caller, Action::Operate, &found.of.spec.owner)?;
    made_anew(app, operation, (record, To::Snapshot(key)), "restore")
}

pub async fn losses(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Json<Losses>> {
    let request: RecreateRequest = body(&bytes)?;
    let record = app.permitted(&caller, Action::Operate, &typed)?;
    let image = image(&app, &record, request)?;
    Ok(Json(lost::losses(&app.host, &record, image).await?))
}

pub async fn recreate(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Response> {
    let request: RecreateRequest = body(&bytes)?;
    let (operation, record) = app.looked_up(&caller, Action::Operate, (&typed, "recreate")).await?;
    // Half made anew, from something that is no more: this is the way out.
    let record = match record.intent {
        Some(Intent::Anew { .. }) => record,
        _ => settle(&app.host, &record).await?,
    };
    let image = image(&app, &record, request)?;
    made_anew(app, operation, (record, To::Image(image)), "recreate")
}

/// The image to use, which a container of this host may be made of.
fn image(app: &App, record: &Record, request: RecreateRequest) -> anyhow::Result<String> {
    let image = request.image.unwrap_or_else(|| record.spec.image.clone());
    check::image(&image, &app.host.config)?;
    Ok(image)
}

fn made_anew(
    app: Arc<App>,
    operation: Operation,
    (record, to): (Record, To),
    verb: &'static str,
) -> Answer<Response> {
    let log = RunLog::open(&app.host.config.storage, record.spec.name.as_str(), verb, record.reader())?;
    // Once begun it is gone through with: half of it is no container.
    Ok(events::stream((operation.id.clone(), CancellationToken::new()), move |report| {
        let report = log.tee(&report);
        async move {
            let done = anew::begin(&app.host, &record, to, &report).await;
            log.close(&done);
            drop(operation);
            done
        }
    }))
}
