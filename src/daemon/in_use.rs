//! What this host uses of what is in registries: asked here, and told to a registry, so that its garbage collection knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use axum::Json;
use axum::extract::State;
use tokio_util::sync::CancellationToken;

use super::App;
use super::routes::Answer;
use crate::container::{Caller, blocking};
use crate::oci::{Access, Artifact, EMPTY, Registry};
use crate::spec::in_use::{ARTIFACT, LAYER, REPOSITORY};
use crate::spec::{InUse, Reference};

/// Between two lists. A registry believes one for a day.
const HOURLY: Duration = Duration::from_secs(60 * 60);
/// How long after a list that could not be told the next is tried.
const AGAIN: Duration = Duration::from_secs(60);

pub async fn show(State(app): State<Arc<App>>, _: Caller) -> Answer<Json<InUse>> {
    Ok(Json(in_use(&app).await?))
}

/// All that must not go from a registry while this host is as it is. What cannot be asked is an error, never nothing.
pub async fn in_use(app: &App) -> Result<InUse> {
    let host = &app.host;
    let mut used = host.engine.manifests_in_use().await?;
    let records = host.records.all()?;
    for (name, record) in &records {
        for archive in &record.spec.opt {
            if let Some(digest) = archive.reference().ok().and_then(|reference| reference.digest) {
                used.add(digest, format!("container {name}"));
            }
        }
    }
    // What a container's own root filesystem was written over.
    let roots =
        records.into_iter().filter_map(|(name, record)| Some((format!("container {name}"), record.root?)));
    let snapshots = host.snapshots.all()?.into_iter();
    let roots = roots.chain(snapshots.map(|(name, snapshot)| (format!("snapshot {name}"), snapshot.root)));
    for (user, root) in roots.collect::<Vec<_>>() {
        for digest in host.engine.digests(&root.image_id).await? {
            used.add(digest, user.clone());
        }
    }
    let opt = host.opt.clone();
    for (digest, source) in blocking(move || opt.published()).await? {
        used.add(digest, format!("the /opt store, {source}"));
    }
    Ok(used)
}

/// Tells a registry at once and every hour, until `stop`.
pub async fn tell(app: Arc<App>, stop: CancellationToken) {
    let Some(registry) = app.host.config.in_use_to.clone() else { return };
    loop {
        let pause = match tell_once(&app, &registry).await {
            Ok(()) => HOURLY,
            Err(error) => {
                tracing::warn!(
                    "{registry} is not told what this host uses, and will delete nothing: {error:#}"
                );
                AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn tell_once(app: &App, host: &str) -> Result<()> {
    let used = in_use(app).await?;
    let registry = Registry::open(host, &Access::of_docker()).await?;
    let to = Reference {
        registry: host.to_owned(),
        repository: REPOSITORY.to_owned(),
        tag: Some(tag(&app.host.host_id)),
        digest: None,
    };
    let list = registry.push_blob(&to, &serde_json::to_vec(&used)?).await?;
    registry.push_blob(&to, EMPTY).await?;
    let annotations =
        BTreeMap::from([("org.opencontainers.image.created".to_owned(), jiff::Timestamp::now().to_string())]);
    let artifact = Artifact::new(ARTIFACT, vec![(LAYER, list)], annotations);
    registry.push_manifest(&to, artifact.media_type(), artifact.bytes()?).await?;
    tracing::info!("{host} knows what this host uses: {} digests", used.digests.len());
    Ok(())
}

/// The host's name for people, with enough of its id to tell two of that name apart.
fn tag(host_id: &str) -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let plain: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' }).take(64).collect();
    let id: String = host_id.chars().filter(char::is_ascii_alphanumeric).take(6).collect();
    format!("h-{plain}-{id}")
}
