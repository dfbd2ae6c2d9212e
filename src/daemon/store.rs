//! What people ask about the store and the limits.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::App;
use super::permit::Action;
use super::routes::{Answer, body};
use crate::api::{Collected, ContainerView, ResizeRequest, Resized, UnneededLayer};
use crate::container::{Caller, blocking, resize as limits, roots};
use crate::report::{Fault, Kind};

pub async fn unneeded(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Vec<UnneededLayer>>> {
    let (snapshots, opt) = (app.host.snapshots.clone(), app.host.opt.clone());
    let look = move || opt.unneeded(&roots::needs(&snapshots)?);
    let layers = app.host.walks.walk(caller.account.uid, look).await?;
    let view = |layer: crate::opt::Unneeded| UnneededLayer {
        layer: layer.layer,
        of: layer.of,
        archive: layer.is_archive,
        bytes: layer.bytes,
    };
    Ok(Json(layers.into_iter().map(view).collect()))
}

/// Archives that nobody has now may be what somebody is about to make a container of: only who looks after the host says.
pub async fn collect(State(app): State<Arc<App>>, caller: Caller) -> Answer<Json<Collected>> {
    if !caller.admin {
        let what = format!("{} may not remove layers, which everybody shares", caller.account.name);
        return Err(Fault::new(Kind::Denied, what).next("ask an admin of this host").into());
    }
    roots::collect(&app.host).await?;
    let (snapshots, opt) = (app.host.snapshots.clone(), app.host.opt.clone());
    let layers = blocking(move || opt.collect(|| roots::needs(&snapshots), true)).await?;
    Ok(Json(Collected { layers: layers as u64 }))
}

pub async fn resize(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Json<Resized>> {
    let request: ResizeRequest = body(&bytes)?;
    let (_operation, current) = app.begun(&caller, Action::Operate, (&typed, "resize")).await?;
    Ok(Json(limits::resize(&app.host, &current, &request).await?))
}

/// Says of each container what its own part of `/opt` takes on disk, for the user `uid`. Walks them all.
pub async fn measure(app: &App, views: Vec<ContainerView>, uid: u32) -> anyhow::Result<Vec<ContainerView>> {
    let opt = app.host.opt.clone();
    let measure = move || {
        let measured = |mut view: ContainerView| {
            // One that is being removed has none.
            view.opt_bytes = opt.usage(view.name.as_str()).ok().map(|usage| usage.upper_bytes);
            view
        };
        Ok(views.into_iter().map(measured).collect())
    };
    app.host.walks.walk(uid, measure).await
}
