//! Docker's volume driver protocol (docs.docker.com/engine/extend/plugins_volume). Every answer comes in bounded time, a
//! repeated call succeeds, and the data of a managed volume is never removed on Docker's word.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::mounts;
use super::store::Store;
use super::volume::{Phase, VolumeRecord, VolumeRequest};
use crate::apart;
use crate::report::{self, Fault};

/// The process that calls, as a request extension: dockerd, whose mount namespace has to show what is mounted.
#[derive(Debug, Clone, Copy)]
pub struct PeerPid(pub i32);

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Call {
    name: String,
    /// Of one use of a mount.
    #[serde(rename = "ID")]
    id: String,
    opts: Option<std::collections::BTreeMap<String, String>>,
}

type Verb = fn(&Store, &Call, Option<PeerPid>) -> Result<Value>;

/// dockerd gives up after a minute and holds locks meanwhile. A source on a dead network disk never answers.
const LONGEST: Duration = Duration::from_secs(50);

impl Store {
    /// Answers `/VolumeDriver.*`.
    pub fn router(self: &Arc<Self>) -> Router {
        let verbs: [(&str, Verb); 8] = [
            ("Create", create),
            ("Remove", remove),
            ("Mount", mount),
            ("Unmount", unmount),
            ("Path", path),
            ("Get", get),
            ("List", list),
            ("Capabilities", |_, _, _| Ok(json!({"Capabilities": {"Scope": "local"}}))),
        ];
        let mut router = Router::new();
        for (name, verb) in verbs {
            let answer = move |State(store): State<Arc<Store>>,
                               peer: Option<Extension<PeerPid>>,
                               body: Bytes| async move {
                let peer = peer.map(|Extension(peer)| peer);
                respond(answer(store, &body, peer, (name, verb)).await)
            };
            router = router.route(&format!("/VolumeDriver.{name}"), post(answer));
        }
        router.with_state(self.clone())
    }
}

/// dockerd repeats a call whose connection broke with an empty body: that says nothing.
async fn answer(
    store: Arc<Store>,
    body: &[u8],
    peer: Option<PeerPid>,
    (name, verb): (&'static str, Verb),
) -> Result<Value> {
    let call: Call = match serde_json::from_slice(body) {
        Ok(call) => call,
        Err(e) => {
            let why = if body.is_empty() { "its body is empty".to_owned() } else { e.to_string() };
            return Err(Fault::new(report::Kind::Usage, "the call cannot be read").why(why).into());
        }
    };
    let (of_call, answered) = (call.name.clone(), Arc::new(AtomicBool::new(false)));
    let done_first = answered.clone();
    let work = apart::blocking(move || {
        let done = verb(&store, &call, peer);
        // What comes too late is nobody's: dockerd does not end a use that it was told has failed.
        if done_first.swap(true, Ordering::Relaxed) && name == "Mount" && done.is_ok() {
            unmount(&store, &call, peer)?;
        }
        done
    });
    let mut work = pin!(work);
    match tokio::time::timeout(LONGEST, &mut work).await {
        Ok(done) => return done,
        // Done at this very moment.
        Err(_) if answered.swap(true, Ordering::Relaxed) => return work.await,
        Err(_) => {}
    }
    let what = format!("{name} of the volume {of_call} takes longer than {} seconds", LONGEST.as_secs());
    Err(Fault::new(report::Kind::TimedOut, what)
        .why("its source may be on a network disk that does not answer")
        .next("see whether the disk answers, then start the container again")
        .into())
}

fn respond(answer: Result<Value>) -> Response {
    let (status, body) = match answer {
        Ok(body) => (StatusCode::OK, body),
        Err(e) => {
            let fault = Fault::of(&e);
            let status = match fault.kind {
                report::Kind::Usage => StatusCode::BAD_REQUEST,
                report::Kind::NotFound => StatusCode::NOT_FOUND,
                _ => StatusCode::INTERNAL_SERVER_ERROR,
            };
            tracing::warn!("volume driver: {fault}");
            let hint = fault.next.as_ref().map(|next| format!(" ({next})")).unwrap_or_default();
            (status, json!({"Err": format!("{fault}{hint}")}))
        }
    };
    let kind = HeaderValue::from_static("application/vnd.docker.plugins.v1.2+json");
    (status, [(header::CONTENT_TYPE, kind)], body.to_string()).into_response()
}

/// A volume that the daemon made is there already; another is an empty one, for `docker volume create -d moorage`.
fn create(store: &Store, call: &Call, _: Option<PeerPid>) -> Result<Value> {
    if let Some((key, _)) = call.opts.iter().flatten().next() {
        let what = format!("moorage volumes have no option {key:?}");
        let next = "valid options: none; `make-dev-container` makes volumes from archives";
        return Err(Fault::new(report::Kind::Usage, what).next(next).into());
    }
    super::store::check_name(&call.name)?;
    match store.records.get(&call.name)? {
        Some(record) if record.phase == Phase::Ready => return Ok(json!({})),
        Some(record) if record.managed => {
            let what = format!("the volume {} is being made or removed", call.name);
            return Err(Fault::new(report::Kind::Failed, what).into());
        }
        _ => {}
    }
    let request = VolumeRequest { name: call.name.clone(), layers: Vec::new(), view: None };
    store.make_volume(request, false)?;
    store.finish_volume(&call.name)?;
    Ok(json!({}))
}

fn remove(store: &Store, call: &Call, _: Option<PeerPid>) -> Result<Value> {
    super::store::check_name(&call.name)?;
    if store.records.get(&call.name)?.is_some_and(|record| !record.managed) {
        store.remove_volume(&call.name)?;
    }
    Ok(json!({}))
}

fn mount(store: &Store, call: &Call, peer: Option<PeerPid>) -> Result<Value> {
    let place = store.mount_for_docker(&call.name, &call.id)?;
    if let Some(PeerPid(pid)) = peer
        && !mounts::is_seen_by(pid, &place)?
    {
        let what =
            format!("the volume {} is mounted, but dockerd (process {pid}) does not see it", call.name);
        return Err(Fault::new(report::Kind::Missing, what)
            .why("they run in mount namespaces that do not share the store's mounts")
            .next("restart dockerd, and start moorage without PrivateMounts=, PrivateTmp= and ProtectSystem=")
            .into());
    }
    Ok(json!({"Mountpoint": place}))
}

fn unmount(store: &Store, call: &Call, _: Option<PeerPid>) -> Result<Value> {
    store.unmount_for_docker(&call.name, &call.id)?;
    Ok(json!({}))
}

fn path(store: &Store, call: &Call, _: Option<PeerPid>) -> Result<Value> {
    let record = store.record(&call.name)?;
    let place = store.mountpoint(&call.name, &record);
    Ok(match mounts::is_mounted(&place)? {
        true => json!({"Mountpoint": place}),
        false => json!({}),
    })
}

fn get(store: &Store, call: &Call, _: Option<PeerPid>) -> Result<Value> {
    Ok(json!({"Volume": describe(store, &call.name, &store.record(&call.name)?)}))
}

fn list(store: &Store, _: &Call, _: Option<PeerPid>) -> Result<Value> {
    let volumes = store.volumes()?;
    let volumes: Vec<Value> = volumes.iter().map(|(name, record)| describe(store, name, record)).collect();
    Ok(json!({"Volumes": volumes}))
}

fn describe(store: &Store, name: &str, record: &VolumeRecord) -> Value {
    let mountpoint = store.mountpoint(name, record);
    json!({"Name": name, "Mountpoint": mountpoint, "CreatedAt": record.made.to_string()})
}
