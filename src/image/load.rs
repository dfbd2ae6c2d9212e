//! Giving the engine an image of one layer, with a configuration that is ours to the byte: `docker import` would put
//! the time of day into it, and the same packages would make another image each time.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::query_parameters::ImportImageOptions;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::STEP;
use super::layer::Layer;
use crate::report::{Fault, Kind, Reporter, Unit};
use crate::spec::Digest;

/// Bytes of the layer sent to the engine at a time.
const CHUNK: usize = 1 << 20;
/// What the image's archive calls its layer.
const LAYER: &str = "layer.tar";
/// tar's block (POSIX.1-1988, ustar).
const BLOCK: u64 = 512;

/// An image of one layer. The field order is that of the JSON, and so part of the digest.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Configuration {
    architecture: &'static str,
    config: Inner,
    /// RFC 3339; the definition's epoch.
    created: String,
    history: [History; 1],
    os: &'static str,
    rootfs: RootFs,
}

#[derive(Debug, Clone, Serialize)]
struct Inner {
    #[serde(rename = "Cmd")]
    cmd: [&'static str; 1],
    #[serde(rename = "Env")]
    env: [&'static str; 1],
    #[serde(rename = "Labels")]
    labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize)]
struct History {
    created: String,
    created_by: String,
}

#[derive(Debug, Clone, Serialize)]
struct RootFs {
    r#type: &'static str,
    diff_ids: [String; 1],
}

impl Configuration {
    /// `epoch` in seconds, `layer` the digest of the uncompressed tar.
    pub fn new(epoch: u64, made_by: String, labels: BTreeMap<String, String>, layer: Digest) -> Result<Self> {
        let created = jiff::Timestamp::from_second(epoch.try_into()?).context("the epoch is no time")?;
        Ok(Configuration {
            architecture: architecture(),
            config: Inner {
                cmd: ["/bin/bash"],
                env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                labels,
            },
            created: created.to_string(),
            history: [History { created: created.to_string(), created_by: made_by }],
            os: "linux",
            rootfs: RootFs { r#type: "layers", diff_ids: [layer.to_string()] },
        })
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).context("write the image's configuration")
    }

    /// The image's id: the digest of its configuration (Docker image specification v1.2).
    pub fn id(&self) -> Result<Digest> {
        Ok(Digest(Sha256::digest(self.bytes()?).into()))
    }
}

/// Go's name of this architecture, as images have it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Loads the image as `reference`, with `layer` as its one layer.
pub(super) async fn load(
    docker: &Docker,
    report: &Reporter,
    reference: &str,
    configuration: &Configuration,
    layer: &Layer,
) -> Result<()> {
    let mut tar = tar::Builder::new(Vec::new());
    let name = format!("{}.json", configuration.id()?.hex());
    let manifest = serde_json::json!([{ "Config": name, "RepoTags": [reference], "Layers": [LAYER] }]);
    append(&mut tar, "manifest.json", &serde_json::to_vec(&manifest)?)?;
    append(&mut tar, &name, &configuration.bytes()?)?;
    let mut head = tar.into_inner().context("pack the image")?;
    let body = match layer {
        // The engine finds it by its digest.
        Layer::Taken(_) => bollard::body_full(Bytes::from(head)),
        Layer::Written { path, .. } => {
            let length = std::fs::metadata(path).context("look at the root filesystem")?.len();
            // Without the two empty blocks at its end, the archive goes on.
            head.truncate(head.len() - 2 * BLOCK as usize);
            let mut header = tar::Header::new_gnu();
            header.set_path(LAYER)?;
            header.set_mode(0o644);
            header.set_size(length);
            header.set_cksum();
            head.extend_from_slice(header.as_bytes());
            let tail = vec![0; ((BLOCK - length % BLOCK) % BLOCK + 2 * BLOCK) as usize];
            let whole = stream::once(async { Ok(Bytes::from(head)) })
                .chain(file(path.clone(), length, report.clone()))
                .chain(stream::once(async { Ok(Bytes::from(tail)) }));
            bollard::body_try_stream(whole.boxed())
        }
    };
    let options = ImportImageOptions { quiet: true, ..ImportImageOptions::default() };
    let said: Result<Vec<_>, _> = docker.import_image(options, body, None).try_collect().await;
    let said = said.with_context(|| format!("load {reference} into the engine"))?;
    match said.into_iter().find_map(|said| said.error_detail) {
        Some(error) => Err(Fault::new(Kind::Failed, format!("the engine does not take {reference}"))
            .why(error.message.unwrap_or_default())
            .next("see dockerd's log, and whether its disk is full")
            .into()),
        None => Ok(()),
    }
}

pub(super) fn append(tar: &mut tar::Builder<impl std::io::Write>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, name, bytes).with_context(|| format!("pack {name}"))
}

/// The bytes of a file, and what of them is sent.
pub(super) fn file(
    path: PathBuf,
    total: u64,
    report: Reporter,
) -> impl futures_util::Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((None, 0), move |(file, sent): (Option<std::fs::File>, u64)| {
        let (path, report) = (path.clone(), report.clone());
        async move {
            let read = tokio::task::spawn_blocking(move || {
                use std::io::Read as _;
                let mut file = match file {
                    Some(file) => file,
                    None => std::fs::File::open(path)?,
                };
                let mut chunk = vec![0; CHUNK];
                let length = file.read(&mut chunk)?;
                chunk.truncate(length);
                Ok::<_, std::io::Error>((file, chunk))
            });
            let (file, chunk) = read.await.map_err(std::io::Error::other)??;
            let sent = sent + chunk.len() as u64;
            report.progress(STEP, sent, Some(total), Unit::Bytes);
            Ok((!chunk.is_empty()).then(|| (Bytes::from(chunk), (Some(file), sent))))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A change of this digest is a change of every base image that people have: their lineage is built anew.
    #[test]
    fn the_same_layer_makes_the_same_image() {
        let labels = BTreeMap::from([("moorage.definition".into(), "x".into())]);
        let one = Configuration::new(1_686_355_200, "moorage".into(), labels, Digest([7; 32])).unwrap();
        assert_eq!(one.created, "2023-06-10T00:00:00Z");
        assert_eq!(one.bytes().unwrap(), one.clone().bytes().unwrap());
        if architecture() == "amd64" {
            insta::assert_snapshot!(one.id().unwrap());
        }
    }
}
