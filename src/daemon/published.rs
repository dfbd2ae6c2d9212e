//! Snapshots to a registry, and containers of what is there.

use std::sync::Arc;

use anyhow::Context as _;
use axum::extract::{Path, State};
use axum::response::Response;

use super::clones::{self, From};
use super::permit::{Action, permit};
use super::routes::{Answer, body};
use super::{App, events, snapshots};
use crate::api::{FromPublished, PublishRequest, PublishedSnapshot};
use crate::container::published::{self, Description, For};
use crate::container::snapshot::Snapshot;
use crate::container::{Caller, blocking, check};
use crate::engine::root_image;
use crate::image::publish;
use crate::oci::{Access, Login, Registry};
use crate::report::{Fault, Kind, Reporter};
use crate::spec::Reference;

/// The verb in progress on the container of a snapshot that is published.
const PUBLISH: &str = "publish-snapshot";

/// Begins to publish, and answers with the events.
pub async fn publish(
    State(app): State<Arc<App>>,
    caller: Caller,
    Path(typed): Path<String>,
    bytes: bytes::Bytes,
) -> Answer<Response> {
    let request: PublishRequest = body(&bytes)?;
    let to = reference(&request.to)?;
    if to.tag.is_none() || to.digest.is_some() {
        let what = format!("oci://{to} is no name to publish under: it needs a tag and has no digest");
        return Err(Fault::new(Kind::Usage, what)
            .next("oci://registry.corp:5000/snapshots/siem:before")
            .into());
    }
    check::registry_of(&to, &app.host.config)?;
    let (_, snapshot) = snapshots::find(&app, &caller, &typed, &request.snapshot)?;
    // Nobody removes it meanwhile.
    let name = snapshot.of.spec.name.clone();
    let operation = app.operations.begin(name.as_str(), PUBLISH, caller.account.uid).await?;
    // The caller's own login: the host's may be able to write what is not theirs.
    let login = request.login.map(|(user, password)| Login { user, password });
    let access = Access { config: None, login, ..Access::of_docker() };
    Ok(events::stream((operation.id.clone(), operation.cancel.clone()), move |report| async move {
        let sent = tokio::select! {
            sent = send(&app, &snapshot, (&to, &access), &report) => sent,
            () = operation.cancel.cancelled() => {
                let what = format!("publishing the snapshot {} of {name} was interrupted", snapshot.name);
                let next = "the same command again sends what is missing";
                Err(Fault::new(Kind::Interrupted, what).next(next).into())
            }
        };
        drop(operation);
        sent
    }))
}

async fn send(
    app: &App,
    snapshot: &Snapshot,
    (to, access): (&Reference, &Access),
    report: &Reporter,
) -> anyhow::Result<PublishedSnapshot> {
    let engine = &app.host.engine;
    let registry = Registry::open(&to.registry, access).await?;
    let root = publish::snapshot::root_of(to);
    let tag = root.tag.clone().context("the root filesystem has a tag")?;
    let repository = format!("{}/{}", root.registry, root.repository);
    engine.tag(&root_image(&snapshot.root.key), (&repository, &tag)).await?;
    let image = publish::image::publish(engine, &root, access, report).await;
    engine.untag(&root.to_string()).await?;
    let image = image?;
    let (opt, layers) = (app.host.opt.clone(), snapshot.layers.clone());
    let exported = blocking(move || opt.export(&layers)).await?;
    let description = serde_json::to_vec(&Description::of(snapshot, image.digest))?;
    let published = publish::snapshot::publish(&registry, to, (&exported.path(), &description), report).await;
    // Unmounting waits for nobody.
    blocking(move || {
        drop(exported);
        Ok(())
    })
    .await?;
    let (digest, sent_bytes) = published?;
    Ok(PublishedSnapshot {
        container: snapshot.of.spec.name.clone(),
        snapshot: snapshot.name.clone(),
        published: format!("oci://{to}"),
        digest,
        sent_bytes: sent_bytes + image.sent_bytes,
    })
}

/// Begins to make containers of a published snapshot, and answers with the events.
pub async fn clone(State(app): State<Arc<App>>, caller: Caller, bytes: bytes::Bytes) -> Answer<Response> {
    let request: FromPublished = body(&bytes)?;
    let of = reference(&request.from)?;
    permit(&caller, Action::Make, &request.owner)?;
    clones::check_count(&request.clones)?;
    let wanted = For { caller: caller.clone(), owner: request.owner, keys: request.keys };
    let published = published::find(&app.host, &of, wanted).await?;
    Ok(clones::begin(app, caller, (From::Published(Box::new(published)), request.clones))?)
}

fn reference(text: &str) -> Result<Reference, Fault> {
    let next = "for example oci://registry.corp:5000/snapshots/siem:before";
    text.parse()
        .map_err(|e: crate::spec::reference::BadReference| Fault::new(Kind::Usage, e.to_string()).next(next))
}
