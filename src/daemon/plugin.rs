//! What dockerd talks to: both drivers on one socket.

use std::sync::Arc;

use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::json;

use crate::lan::Lan;
use crate::opt::Store;
use crate::opt::driver::PeerPid;

/// Docker's plugin protocol: activation, then the calls of both drivers; anything else is unknown (404).
pub fn router(lan: &Arc<Lan>, opt: &Arc<Store>) -> Router {
    let dockerd = lan.clone();
    let who = move |request: Request, next: Next| {
        if let Some(PeerPid(pid)) = request.extensions().get() {
            dockerd.called_by(*pid);
        }
        next.run(request)
    };
    let activate = || async { Json(json!({ "Implements": ["NetworkDriver", "VolumeDriver"] })) };
    Router::new()
        .route("/Plugin.Activate", post(activate))
        .merge(lan.router())
        .merge(opt.router())
        .layer(from_fn(who))
}
