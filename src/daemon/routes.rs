//! What people ask, and who answers (the table is in `api`).

use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::extract::{FromRequestParts, Path, Query, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::permit::{Action, permit};
use super::serve::Counted;
use super::{App, clones, doctor, enter, events, in_use, logs, published, snapshots, store};
use crate::api::{
    API_HEADER, API_VERSION, BODY_LIMIT, ContainerDetail, ContainerView, EnterRequest, LeaseView,
    MakeRequest, Present, PresentRequest, SourceDone, Version, too_large,
};
use crate::container::make::{Make, make};
use crate::container::plan::{self, Places};
use crate::container::runlog::{Reader, RunLog};
use crate::container::{Caller, Record, blocking, check, diff, lifecycle, people, view};
use crate::report::{Fault, Finding, Kind};
use crate::spec::plan::Plan;
use crate::spec::{Archive, ContainerName, Mac};

/// The most images, or archives, one question may be about: all projects of a large site.
const MOST_PRESENT: usize = 1024;

/// A fault as an answer.
pub(super) struct Refusal(Fault);

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Refusal {
        Refusal(fault)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Refusal {
        Refusal(Fault::of(&error))
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = match self.0.kind {
            Kind::Usage => StatusCode::BAD_REQUEST,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Differs => StatusCode::CONFLICT,
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::Missing => StatusCode::SERVICE_UNAVAILABLE,
            Kind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Kind::Failed | Kind::Partly | Kind::Interrupted => StatusCode::INTERNAL_SERVER_ERROR,
        };
        (status, Json(self.0)).into_response()
    }
}

pub(super) type Answer<T> = Result<T, Refusal>;

/// Who asks; put into the request by the connection.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Response> {
        match parts.extensions.get::<Result<Caller, Fault>>() {
            Some(Ok(caller)) => Ok(caller.clone()),
            Some(Err(fault)) => Err(Refusal(fault.clone()).into_response()),
            None => Err(Refusal(Fault::new(Kind::Denied, "it is not known who asks")).into_response()),
        }
    }
}

pub fn router(app: Arc<App>) -> Router {
    let versioned = Router::new()
        .route("/v1/containers", get(list).post(make_container))
        .route("/v1/containers/{typed}", get(show))
        .route("/v1/containers/{typed}/start", post(start))
        .route("/v1/containers/{typed}/stop", post(stop))
        .route("/v1/containers/{typed}/restart", post(restart))
        .route("/v1/containers/{typed}/remove", post(remove))
        .route("/v1/containers/{typed}/clone", post(clones::clone))
        .route("/v1/containers/{typed}/clone/plan", post(clones::plan))
        .route("/v1/containers/{typed}/clones", get(clones::list))
        .route("/v1/containers/{typed}/snapshot", post(snapshots::take))
        .route("/v1/containers/{typed}/snapshot/remove", post(snapshots::remove))
        .route("/v1/containers/{typed}/restore", post(snapshots::restore))
        .route("/v1/containers/{typed}/losses", post(snapshots::losses))
        .route("/v1/containers/{typed}/recreate", post(snapshots::recreate))
        .route("/v1/containers/{typed}/resize", post(store::resize))
        .route("/v1/store/unneeded", get(store::unneeded))
        .route("/v1/store/collect", post(store::collect))
        .route("/v1/snapshots", get(snapshots::list))
        .route("/v1/snapshots/clone", post(snapshots::clone))
        .route("/v1/snapshots/clone-published", post(published::clone))
        .route("/v1/containers/{typed}/snapshot/publish", post(published::publish))
        .route("/v1/containers/{typed}/logs", get(show_logs))
        .route("/v1/containers/{typed}/enter", post(enter_container))
        .route("/v1/operations/{id}/source", post(source))
        .route("/v1/operations/{id}/cancel", post(cancel))
        .route("/v1/plan", post(show_plan))
        .route("/v1/present", post(present))
        .route("/v1/leases", get(leases))
        .route("/v1/in-use", get(in_use::show))
        .route("/v1/doctor", get(look_around))
        .layer(map_response(in_our_words))
        .layer(from_fn(same_wire));
    Router::new()
        .route("/v1/version", get(version))
        .merge(versioned)
        .fallback(|| async { Refusal(Fault::new(Kind::NotFound, "the daemon knows no such request")) })
        .with_state(app)
}

async fn version() -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").to_owned(), api: API_VERSION })
}

/// What the server around our handlers refuses, in the form of every other refusal.
async fn in_our_words(response: Response) -> Response {
    match response.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Refusal(too_large()).into_response(),
        _ => response,
    }
}

/// Refuses a client of another wire before anything is done, and says which side is older.
async fn same_wire(request: Request, next: Next) -> Response {
    let theirs = request.headers().get(API_HEADER).and_then(|value| value.to_str().ok()?.parse::<u32>().ok());
    if theirs == Some(API_VERSION) {
        return next.run(request).await;
    }
    let theirs = theirs.map_or_else(|| "no version".to_owned(), |version| version.to_string());
    let fault = Fault::new(Kind::Missing, "this command and the daemon are of different versions")
        .why(format!("the daemon speaks {API_VERSION}, the command {theirs}"))
        .next("restart the daemon after an upgrade: systemctl restart moorage");
    (StatusCode::UPGRADE_REQUIRED, Json(fault)).into_response()
}

pub(super) fn body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| {
        Fault::new(Kind::Usage, "the daemon does not understand the request")
            .why(error.to_string())
            .next("moorage --version here, and of the daemon: systemctl restart moorage after an upgrade")
    })
}

impl App {
    /// The container that `typed` means to `caller`.
    fn find(&self, caller: &Caller, typed: &str) -> Result<Record> {
        let get = |name: &ContainerName| self.host.records.get(name.as_str());
        if let Some(record) = caller.find(typed, get, |record| &record.spec.owner)? {
            return Ok(record);
        }
        let mut fault =
            Fault::new(Kind::NotFound, format!("there is no container {typed}")).next("list-containers");
        let names = self.host.records.keys()?.into_iter();
        if let Some(near) =
            names.max_by(|a, b| strsim::jaro_winkler(a, typed).total_cmp(&strsim::jaro_winkler(b, typed)))
            && strsim::jaro_winkler(&near, typed) > 0.8
        {
            fault = fault.why(format!("the nearest name is {near}"));
        }
        Err(fault.into())
    }

    pub(super) fn permitted(&self, caller: &Caller, action: Action, typed: &str) -> Result<Record> {
        let record = self.find(caller, typed)?;
        permit(caller, action, &record.spec.owner)?;
        Ok(record)
    }

    /// What has this exact name, if anything has; refused where `caller` may not do `action` to it.
    pub(super) fn permitted_if_there(
        &self,
        caller: &Caller,
        action: Action,
        name: &str,
    ) -> Result<Option<Record>> {
        let record = self.host.records.get(name)?;
        if let Some(record) = &record {
            permit(caller, action, &record.spec.owner)?;
        }
        Ok(record)
    }
}

#[derive(serde::Deserialize)]
struct Listing {
    #[serde(default)]
    long: bool,
}

async fn list(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(wanted): Query<Listing>,
) -> Answer<Json<Vec<ContainerView>>> {
    let views = view::all(&app.host, |name| app.operations.verb(name)).await?;
    Ok(Json(match wanted.long {
        true => store::measure(&app, views, caller.account.uid).await?,
        false => views,
    }))
}

async fn show(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
) -> Answer<Json<ContainerDetail>> {
    let record = app.permitted(&caller, Action::Show, &typed)?;
    let operation = app.operations.verb(record.spec.name.as_str());
    Ok(Json(view::detail(&app.host, &record, (caller.account.uid, operation)).await?))
}

async fn make_container(
    State(app): State<Arc<App>>,
    caller: Caller,
    bytes: bytes::Bytes,
) -> Answer<Response> {
    let request: MakeRequest = body(&bytes)?;
    let owner = &request.spec.owner;
    permit(&caller, Action::Make, owner)?;
    // Checked here too, before a name from outside makes a log file.
    check::check(&request.spec, &app.host.config)?;
    let (wanted, of) = (request.spec.name.clone(), owner.clone());
    blocking(move || people::nobody_elses(&wanted, &of)).await?;
    let name = request.spec.name.to_string();
    app.permitted_if_there(&caller, Action::Operate, &name)?;
    let mut operation = app.operations.begin(&name, "make", caller.account.uid).await?;
    // Again, now that nobody else works on it.
    let there = app.permitted_if_there(&caller, Action::Operate, &name)?;
    // Whoever makes it once more, its logs are its owner's; those of a new one are given to them once it has one.
    let reader = there.map_or(Reader::Person(caller.account.uid), |record| record.reader());
    let log = RunLog::open(&app.host.config.storage, &name, "make", reader)?;
    Ok(events::stream((operation.id.clone(), operation.cancel.clone()), move |report| {
        let report = log.tee(&report);
        let wanted = Make {
            caller,
            request,
            operation: operation.id.clone(),
            staged: operation.take_staged(),
            log: log.path.to_string_lossy().into_owned(),
            report: report.clone(),
            cancel: operation.cancel.clone(),
        };
        async move {
            let made = make(&app.host, wanted).await;
            log.close(&made);
            drop(operation);
            made
        }
    }))
}

/// start, stop, restart and remove have the same shape: one record, one operation, a stream of events.
macro_rules! verb {
    ($handler:ident, $verb:literal, $action:expr, $act:path) => {
        async fn $handler(
            State(app): State<Arc<App>>,
            caller: Caller,
            Path(typed): Path<String>,
        ) -> Answer<Response> {
            let (operation, current) = app.looked_up(&caller, $action, (&typed, $verb)).await?;
            let log =
                RunLog::open(&app.host.config.storage, current.spec.name.as_str(), $verb, current.reader())?;
            Ok(events::stream((operation.id.clone(), CancellationToken::new()), move |report| {
                let report = log.tee(&report);
                async move {
                    let done = $act(&app.host, &current, &report).await;
                    log.close(&done);
                    drop(operation);
                    done
                }
            }))
        }
    };
}

verb!(start, "start", Action::Operate, lifecycle::start);
verb!(stop, "stop", Action::Operate, lifecycle::stop);
verb!(restart, "restart", Action::Operate, lifecycle::restart);
verb!(remove, "remove", Action::Remove, lifecycle::remove);

async fn source(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Json<serde_json::Value>> {
    let done: SourceDone = body(&bytes)?;
    app.operations.staged(&id, caller.account.uid, done)?;
    Ok(Json(serde_json::json!({})))
}

async fn cancel(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<Json<serde_json::Value>> {
    app.operations.cancel(&id, caller.account.uid)?;
    Ok(Json(serde_json::json!({})))
}

async fn show_plan(State(app): State<Arc<App>>, caller: Caller, bytes: bytes::Bytes) -> Answer<Json<Plan>> {
    let MakeRequest { spec, .. } = body(&bytes)?;
    permit(&caller, Action::Make, &spec.owner)?;
    check::check(&spec, &app.host.config)?;
    let name = spec.name.as_str();
    let mut here = plan::Present::default();
    if let Some(record) = app.permitted_if_there(&caller, Action::Show, name)? {
        let differences = diff::differences(&record.spec, &spec);
        if !differences.is_empty() {
            let mut fault = Fault::new(Kind::Differs, format!("{name} exists with another specification"))
                .next(format!("remove-container {name}, or choose another --name"));
            fault.why = differences;
            return Err(fault.into());
        }
        let found = app.host.engine.inspect(name).await?;
        here.container = found.filter(|found| found.id == record.id).map(|found| found.running);
    }
    here.image = app.host.engine.image(&spec.image).await?.map(|image| image.size);
    here.archives = archives_here(&app, spec.opt.clone(), caller.account.uid).await?;
    let network = app.host.engine.network(&spec.network).await?;
    let owner = spec.owner.clone();
    let inside = move || crate::container::people::inside(&owner, &caller);
    let (people, _) = blocking(inside).await?;
    let places = Places {
        storage: app.host.config.storage.to_string_lossy().into_owned(),
        parent: network.and_then(|network| network.options.get("parent").cloned()).unwrap_or_default(),
        // The record's id, which names the group, is only made with the container.
        cgroups: app.host.engine.cgroups(&app.host.config.cgroup).await?.view("ID").flags(),
        mac: Mac::pinned(&app.host.config.mac_prefix, &app.host.host_id, &spec.network, name),
        people,
        usual: app.host.config.limits.default.clone(),
    };
    Ok(Json(plan::plan(&spec, &here, &places)))
}

async fn present(State(app): State<Arc<App>>, caller: Caller, bytes: bytes::Bytes) -> Answer<Json<Present>> {
    let wanted: PresentRequest = body(&bytes)?;
    let count = wanted.images.len().max(wanted.archives.len());
    if count > MOST_PRESENT {
        return Err(Fault::new(Kind::Usage, format!("{count} at once are more than {MOST_PRESENT}")).into());
    }
    let mut present = Present::default();
    for image in &wanted.images {
        // What no container may be made of is not here for anybody.
        present.images.push(match check::image(image, &app.host.config) {
            Ok(()) => app.host.engine.image(image).await?.map(|image| image.size),
            Err(_) => None,
        });
    }
    present.archives = archives_here(&app, wanted.archives, caller.account.uid).await?;
    Ok(Json(present))
}

/// Bytes of each archive that is in the store.
async fn archives_here(app: &App, archives: Vec<Archive>, uid: u32) -> Result<Vec<Option<u64>>> {
    let opt = app.host.opt.clone();
    let look =
        move || Ok(archives.iter().map(|archive| opt.find(archive).map(|layer| layer.bytes)).collect());
    app.host.walks.walk(uid, look).await
}

async fn leases(State(app): State<Arc<App>>, _: Caller) -> Answer<Json<Vec<LeaseView>>> {
    // The leases are there without the engine; only the networks' names are not.
    let names = app.host.engine.network_names().await.unwrap_or_default();
    Ok(Json(app.host.lan.leases().into_iter().map(|lease| view::lease_line(lease, &names)).collect()))
}

#[derive(Debug, serde::Deserialize)]
struct Look {
    #[serde(default)]
    deep: bool,
}

async fn look_around(
    State(app): State<Arc<App>>,
    caller: Caller,
    Query(Look { deep }): Query<Look>,
) -> Answer<Json<Vec<Finding>>> {
    if deep && !caller.admin {
        let what =
            format!("{} may not have every layer looked at: that keeps the disk busy", caller.account.name);
        return Err(Fault::new(Kind::Denied, what)
            .next("ask an admin of this host, or leave --deep out")
            .into());
    }
    Ok(Json(doctor::findings(&app, deep).await))
}

async fn show_logs(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    Query(wanted): Query<logs::Wanted>,
) -> Answer<Response> {
    let record = app.permitted(&caller, Action::Show, &typed)?;
    Ok(logs::stream(&app, record.spec.name.as_str(), &wanted).await?)
}

async fn enter_container(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    mut request: Request,
) -> Answer<Response> {
    let record = app.permitted(&caller, Action::Enter, &typed)?;
    let upgrade = hyper::upgrade::on(&mut request);
    let counted = request.extensions().get::<Arc<Counted>>().cloned();
    let bytes = axum::body::to_bytes(request.into_body(), BODY_LIMIT).await.context("read the request")?;
    Ok(enter::enter(app.clone(), record, body::<EnterRequest>(&bytes)?, (upgrade, counted)).await?)
}
