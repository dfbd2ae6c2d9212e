//! What people ask about clones.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;

use super::operations::{CLONE, Operation};
use super::permit::{Action, permit};
use super::routes::{Answer, body};
use super::{App, events};
use crate::api::{ClonePlan, CloneRequest, CloneResult, MOST_CLONES};
use crate::container::clone::{self, Cloning, Group, Origin, names};
use crate::container::published::Published;
use crate::container::runlog::RunLog;
use crate::container::snapshot::Snapshot;
use crate::container::{Caller, Record, blocking, people};
use crate::report::{Fault, Kind};
use crate::spec::ContainerName;

/// The verb in progress on a clone that is being made. Its source's is [`CLONE`], and short.
const MAKE: &str = "make";

fn asked(app: &App, caller: &Caller, typed: &str, bytes: &[u8]) -> anyhow::Result<(Record, CloneRequest)> {
    let request: CloneRequest = body(bytes)?;
    let source = app.permitted(caller, Action::Operate, typed)?;
    permit(caller, Action::Make, &source.spec.owner)?;
    check_count(&request)?;
    Ok((source, request))
}

pub fn check_count(request: &CloneRequest) -> Result<(), Fault> {
    if !(1..=MOST_CLONES).contains(&request.count) {
        let what = format!("{} clones are not between 1 and {MOST_CLONES}", request.count);
        return Err(Fault::new(Kind::Usage, what).next("another --count"));
    }
    Ok(())
}

pub async fn plan(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Json<ClonePlan>> {
    let (source, request) = asked(&app, &caller, &typed, &bytes)?;
    let wanted = (request.count, request.name.as_deref());
    let free = |name: &ContainerName| {
        Ok(app.host.records.get(name.as_str())?.is_none() && app.operations.verb(name.as_str()).is_none())
    };
    let names = names::choose(&source.spec.name, &source.spec.owner, wanted, free)?;
    Ok(Json(clone::plan::plan(&app.host, (&source, caller.account.uid), names, request.start).await?))
}

pub async fn clone(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Response> {
    let (source, request) = asked(&app, &caller, &typed, &bytes)?;
    Ok(begin(app, caller, (From::Container(Box::new(source)), request))?)
}

/// What clones are made from.
pub enum From {
    Container(Box<Record>),
    Snapshot(Box<Snapshot>),
    /// One of a registry.
    Published(Box<Published>),
}

/// Begins to make clones, and answers with the events.
pub fn begin(
    app: Arc<App>,
    caller: Caller,
    (from, request): (From, CloneRequest),
) -> anyhow::Result<Response> {
    let source = source_of(&from);
    let mut operations: Vec<Operation> = Vec::new();
    let wanted = (request.count, request.name.as_deref());
    let names = names::choose(&source.spec.name, &source.spec.owner, wanted, |name| {
        // Busy: somebody else is making it.
        let Ok(operation) = app.operations.begin_now(name.as_str(), MAKE, caller.account.uid) else {
            return Ok(false);
        };
        let free = app.host.records.get(name.as_str())?.is_none();
        if free {
            operations.push(operation);
        }
        Ok(free)
    })?;
    let log = RunLog::open(&app.host.config.storage, source.spec.name.as_str(), "clone", source.reader())?;
    let first = operations.first().map(|operation| (operation.id.clone(), operation.cancel.clone()));
    let (id, cancel) =
        first.ok_or_else(|| Fault::new(Kind::Usage, "no clone was asked for").next("another --count"))?;
    Ok(events::stream((id, cancel.clone()), move |report| {
        let report = log.tee(&report);
        let log_path = log.path.to_string_lossy().into_owned();
        let cloning = Cloning { caller, start: request.start, log: log_path, report, cancel };
        async move {
            let made = make(&app, &from, &names, &cloning).await;
            log.close(&made);
            drop(operations);
            made
        }
    }))
}

async fn make(
    app: &App,
    from: &From,
    names: &[ContainerName],
    cloning: &Cloning,
) -> anyhow::Result<CloneResult> {
    let (wanted, owner) = (names.to_vec(), source_of(from).spec.owner.clone());
    blocking(move || wanted.iter().try_for_each(|name| people::nobody_elses(name, &owner))).await?;
    match from {
        From::Container(source) => all(app, source, names, cloning).await,
        From::Snapshot(snapshot) => clone::from_snapshot(&app.host, snapshot, names, cloning).await,
        From::Published(published) => published.containers(&app.host, names, cloning).await,
    }
}

fn source_of(from: &From) -> &Record {
    match from {
        From::Container(source) => source,
        From::Snapshot(snapshot) => &snapshot.of,
        From::Published(published) => &published.source,
    }
}

async fn all(
    app: &App,
    source: &Record,
    names: &[ContainerName],
    cloning: &Cloning,
) -> anyhow::Result<CloneResult> {
    let origin = Origin::of(&app.host, source).await?;
    let group = clone::prepare(&app.host, origin, names, cloning).await?;
    let (source, group, taken) = take(app, source, group, cloning).await?;
    clone::make_all(&app.host, &source, (group, taken), cloning).await
}

/// Takes the state while nobody else works on the source. Another that clones it meanwhile waits for that and no longer.
async fn take(
    app: &App,
    source: &Record,
    group: Group,
    cloning: &Cloning,
) -> anyhow::Result<(Record, Group, clone::source::Taken)> {
    let name = source.spec.name.as_str();
    let begun = app.operations.begin(name, CLONE, cloning.caller.account.uid).await;
    let current = match begun {
        // It may have been removed, or made anew, while the LAN was asked.
        Ok(operation) => app.host.records.get(name).map(|current| {
            let current = current.filter(|current| current.id == source.id && current.intent.is_none());
            let gone =
                || Fault::new(Kind::NotFound, format!("{name} was removed just now")).next("list-containers");
            current.map(|current| (operation, current)).ok_or_else(gone)
        }),
        Err(fault) => Ok(Err(fault)),
    };
    let failed: anyhow::Error = match current {
        Ok(Ok((_operation, current))) => {
            let taken = clone::take(&app.host, &current, &group, cloning).await?;
            return Ok((current, group, taken));
        }
        Ok(Err(fault)) => fault.into(),
        Err(error) => error,
    };
    clone::give_up(&app.host, &group).await;
    Err(failed)
}

/// The clones of a container, which may itself be gone.
pub async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
) -> Answer<Json<Vec<ContainerName>>> {
    let records = app.host.records.clone();
    let clones: Vec<Record> = blocking(move || records.all())
        .await?
        .into_iter()
        .map(|(_, record)| record)
        .filter(|r| r.cloned.is_some())
        .collect();
    let of = |source: &ContainerName| {
        let of_it = clones.iter().filter(|clone| clone.cloned.as_ref().is_some_and(|c| c.from == *source));
        let of_it: Vec<&Record> = of_it.collect();
        Ok((!of_it.is_empty()).then_some(of_it))
    };
    if let Some(found) = caller.find(&typed, of, |of_it| &of_it[0].spec.owner)? {
        return Ok(Json(found.iter().map(|clone| clone.spec.name.clone()).collect()));
    }
    // It has none, or there is no such container.
    app.permitted(&caller, Action::Show, &typed)?;
    Ok(Json(Vec::new()))
}
