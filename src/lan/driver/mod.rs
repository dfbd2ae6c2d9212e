//! What dockerd calls: `POST /NetworkDriver.*` (libnetwork, docs/remote.md).
//!
//! dockerd waits for an answer without a limit of its own and holds locks while it does, and calls again, with an empty
//! body, when a connection breaks. So every handler is bounded in time, idempotent, goes on to its end when the
//! connection breaks, and never calls Docker.

mod endpoint;
mod network;
mod protocol;

pub use network::is_wireless;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, post};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Lan;
use crate::report::Fault;
use protocol::{Anything, Capabilities, Nothing, OfEndpoint, OperInfo};

/// The longest a handler may take: well below what makes dockerd's users think that it hangs.
const LONGEST: Duration = Duration::from_secs(25);

pub fn router(lan: &Arc<Lan>) -> Router {
    let nothing = || method(lan, |_, _: Anything| async { Ok(Nothing {}) });
    let calls = [
        (
            "GetCapabilities",
            method_of_nothing(|| Capabilities { scope: "local", connectivity_scope: "global" }),
        ),
        ("CreateNetwork", method(lan, network::create)),
        ("DeleteNetwork", method(lan, network::delete)),
        ("CreateEndpoint", method(lan, endpoint::create)),
        ("DeleteEndpoint", method(lan, endpoint::delete)),
        ("EndpointOperInfo", method(lan, |_, _: OfEndpoint| async { Ok(OperInfo::default()) })),
        ("Join", method(lan, endpoint::join)),
        ("Leave", method(lan, endpoint::leave)),
        ("ProgramExternalConnectivity", nothing()),
        ("RevokeExternalConnectivity", nothing()),
        ("DiscoverNew", nothing()),
        ("DiscoverDelete", nothing()),
        ("AllocateNetwork", nothing()),
        ("FreeNetwork", nothing()),
    ];
    calls
        .into_iter()
        .fold(Router::new(), |router, (name, call)| router.route(&format!("/NetworkDriver.{name}"), call))
}

/// Does what dockerd's DeleteEndpoint would.
pub async fn end(lan: Arc<Lan>, endpoint: &str) -> Result<()> {
    endpoint::delete(lan, OfEndpoint { endpoint: endpoint.to_owned() }).await.map(drop)
}

/// A call with a JSON body. Its content type is not looked at: dockerd sends none, or odd ones.
fn method<Q, A, W>(lan: &Arc<Lan>, work: fn(Arc<Lan>, Q) -> W) -> MethodRouter
where
    Q: DeserializeOwned + Send + 'static,
    A: Serialize + Send + 'static,
    W: Future<Output = Result<A>> + Send + 'static,
{
    let lan = lan.clone();
    post(move |body: Result<Bytes, BytesRejection>| async move {
        let question = match body {
            Ok(body) if body.is_empty() => Err("an empty body".to_owned()),
            Ok(body) => serde_json::from_slice::<Q>(&body).map_err(|error| error.to_string()),
            Err(rejection) => Err(rejection.to_string()),
        };
        let question = match question {
            Ok(question) => question,
            Err(why) => return failure(StatusCode::BAD_REQUEST, &format!("not a request of dockerd: {why}")),
        };
        // A task of its own: it must not stop half-way because dockerd went away.
        let working = tokio::spawn(tokio::time::timeout(LONGEST, work(lan, question)));
        answer(match working.await {
            Ok(Ok(result)) => result,
            Ok(Err(_elapsed)) => Err(anyhow!("not done within {} s", LONGEST.as_secs())),
            Err(broken) => Err(anyhow!(broken)),
        })
    })
}

fn method_of_nothing<A: Serialize + Send + 'static>(answer: fn() -> A) -> MethodRouter {
    post(move || async move { axum::Json(answer()).into_response() })
}

/// dockerd shows `Err` of a 200 to its user as it is.
fn answer<A: Serialize>(result: Result<A>) -> Response {
    match result {
        Ok(answer) => axum::Json(answer).into_response(),
        Err(error) => {
            let fault = Fault::of(&error);
            let next = fault.next.as_ref().map(|next| format!(" (next: {next})")).unwrap_or_default();
            tracing::warn!("network driver: {fault}");
            failure(StatusCode::OK, &format!("{fault}{next}"))
        }
    }
}

fn failure(status: StatusCode, text: &str) -> Response {
    (status, axum::Json(serde_json::json!({ "Err": text }))).into_response()
}
