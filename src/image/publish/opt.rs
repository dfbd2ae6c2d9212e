//! `publish-opt`: an `/opt` tree to a registry. Pieces that are there are not sent.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::pack::Tree;
use crate::oci::{Artifact, Blob, EMPTY, OPT_DIGEST, Registry};
use crate::report::{Fault, Kind, Reporter, Unit};
use crate::spec::plan::{Plan, Step};
use crate::spec::{ByteSize, Digest, Reference};

/// The key of the progress events.
pub const STEP: &str = "publish";
/// Pieces on their way at the same time.
const AT_ONCE: usize = 8;

/// What was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PublishedOpt {
    /// `oci://…`, as a project's file names it.
    pub archive: String,
    /// Of the manifest: `oci://…@sha256:…` is this tree for ever.
    pub digest: Digest,
    /// Bytes of the tree's files, of the published blobs, and of those that had to be sent.
    pub bytes: u64,
    pub packed_bytes: u64,
    pub sent_bytes: u64,
    pub blobs: usize,
    pub sent_blobs: usize,
    /// `false` when the registry had this very tree under that name.
    pub changed: bool,
}

/// Publishes what is in `directory` as `to`. Run again after an interruption, it sends what is missing.
pub async fn publish(
    registry: &Registry,
    to: &Reference,
    directory: &Path,
    report: &Reporter,
) -> Result<PublishedOpt> {
    let root = directory.to_owned();
    let tree = tokio::task::spawn_blocking(move || Tree::read(&root)).await??;
    let (bytes, files) = (tree.bytes, tree.files);
    report.begin(STEP, format!("{} in {files} files to oci://{to}", ByteSize(bytes)));
    let before = before(registry, to).await?;
    let Sent { pieces: sent, whole } = send(registry, to, tree, (&before, report)).await?;
    let annotations = BTreeMap::from([(OPT_DIGEST.to_owned(), whole.to_string())]);
    let artifact = Artifact::opt_pieces(sent.iter().map(|(blob, _)| *blob).collect(), annotations);
    let digest = name(registry, to, &artifact, &before).await?;
    let new = || sent.iter().filter(|(_, new)| *new);
    let published = PublishedOpt {
        archive: format!("oci://{to}"),
        digest,
        bytes,
        packed_bytes: sent.iter().map(|(blob, _)| blob.size).sum(),
        sent_bytes: new().map(|(blob, _)| blob.size).sum(),
        blobs: sent.len(),
        sent_blobs: new().count(),
        changed: before.is_none_or(|(before, _)| before != digest),
    };
    let (sent, packed) = (ByteSize(published.sent_bytes), ByteSize(published.packed_bytes));
    report.end(STEP, format!("oci://{to}: {packed}, of which {sent} had to be sent"));
    Ok(published)
}

/// The pieces of a tree that are in the registry.
pub struct Sent {
    /// Each, and whether it had to be sent.
    pub pieces: Vec<(Blob, bool)>,
    /// The digest of all of them, one behind another.
    pub whole: Digest,
}

/// What a name stands for in the registry: its digest and its blobs.
pub type Before = Option<(Digest, BTreeSet<Digest>)>;

/// Puts the pieces of a tree into the repository that `to` is in; those of `before` are there.
pub async fn send(
    registry: &Registry,
    to: &Reference,
    tree: Tree,
    (before, report): (&Before, &Reporter),
) -> Result<Sent> {
    let bytes = tree.bytes;
    let known: BTreeSet<Digest> = before.as_ref().map(|(_, blobs)| blobs.clone()).unwrap_or_default();
    // Nobody takes more once the sending has failed, and then the packing ends, too.
    let (send, pieces) = mpsc::channel::<Vec<u8>>(AT_ONCE);
    let progress = report.clone();
    let packing = tokio::task::spawn_blocking(move || {
        let mut whole = Sha256::new();
        tree.pack(|piece, done| {
            whole.update(&piece);
            progress.progress(STEP, done, Some(bytes), Unit::Bytes);
            send.blocking_send(piece).map_err(|_| anyhow::anyhow!("the sending has ended"))
        })?;
        anyhow::Ok(Digest(whole.finalize().into()))
    });
    let known = &known;
    let sent: Result<Vec<(Blob, bool)>> = ReceiverStream::new(pieces)
        .map(|piece| async move {
            let blob = Blob::of(&piece);
            let there = known.contains(&blob.digest) || registry.has(to, &blob.digest).await?;
            if !there {
                registry.push_blob(to, &piece).await?;
            }
            anyhow::Ok((blob, !there))
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await;
    // The sending's own words say more than those of the packing that was ended by it.
    let pieces = sent?;
    let whole = packing.await.context("the packing thread ended")??;
    Ok(Sent { pieces, whole })
}

/// Has `to` stand for the artifact, whose blobs are there; answers its digest.
pub async fn name(
    registry: &Registry,
    to: &Reference,
    artifact: &Artifact,
    before: &Before,
) -> Result<Digest> {
    let manifest = artifact.bytes()?;
    match before {
        // With thousands of pieces it is half a megabyte.
        Some((before, _)) if *before == Blob::of(&manifest).digest => Ok(*before),
        _ => {
            registry.push_blob(to, EMPTY).await?;
            registry.push_manifest(to, artifact.media_type(), manifest).await
        }
    }
}

/// What the name stands for in the registry now: its digest and blobs.
pub async fn before(registry: &Registry, to: &Reference) -> Result<Before> {
    let manifest = match registry.manifest(to).await {
        Ok(manifest) => manifest,
        Err(error) if Fault::of(&error).kind == Kind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    // Something else under that name is replaced.
    let Ok(artifact) = Artifact::read(&manifest) else { return Ok(None) };
    let blobs = artifact.blobs()?.into_iter().map(|(_, blob)| blob.digest).collect();
    Ok(Some((manifest.digest, blobs)))
}

/// What [`publish`] would do; it does not ask the registry.
pub fn plan(directory: &Path, to: &Reference) -> Result<Plan> {
    let tree = Tree::read(directory)?;
    let text = format!("publish {} in {} files as oci://{to}", ByteSize(tree.bytes), tree.files);
    let shell = format!("tar --create --zstd --directory {} . | oras push {to} -", directory.display());
    Ok(Plan {
        steps: vec![Step { stage: 0, step: STEP.into(), text, bytes: Some(tree.bytes), shell: vec![shell] }],
    })
}
