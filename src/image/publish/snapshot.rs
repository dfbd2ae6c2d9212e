//! `publish-snapshot`: the `/opt` of a state that a container had, in pieces, and what else is known of it, as one artifact.
//! The root filesystem is an image beside it (`publish::image`).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;

use super::opt::{STEP, Sent, before, name, send};
use super::pack::Tree;
use crate::oci::{Artifact, OPT_DIGEST, Registry};
use crate::report::Reporter;
use crate::spec::{ByteSize, Digest, Reference};

/// The tag of the image with the root filesystem that belongs to a snapshot called `to`.
pub fn root_of(to: &Reference) -> Reference {
    let tag = to.tag.as_deref().unwrap_or("latest");
    Reference { tag: Some(format!("{tag}.root")), digest: None, ..to.clone() }
}

/// Publishes the tree `opt`, which nobody changes meanwhile, and the description. Run again after an interruption, it sends
/// what is missing. Answers the digest, and the bytes that had to be sent.
pub async fn publish(
    registry: &Registry,
    to: &Reference,
    (opt, description): (&Path, &[u8]),
    report: &Reporter,
) -> Result<(Digest, u64)> {
    let root = opt.to_owned();
    let tree = tokio::task::spawn_blocking(move || Tree::read_all(&root)).await??;
    report.begin(STEP, format!("{} of /opt in {} files to oci://{to}", ByteSize(tree.bytes), tree.files));
    if tree.left_out > 0 {
        report.warning(format!("{} socket(s), FIFO(s) and device(s) of /opt are left out", tree.left_out));
    }
    let before = before(registry, to).await?;
    let Sent { pieces, whole } = send(registry, to, tree, (&before, report)).await?;
    let description = registry.push_blob(to, description).await?;
    let annotations = BTreeMap::from([(OPT_DIGEST.to_owned(), whole.to_string())]);
    let blobs = pieces.iter().map(|(blob, _)| *blob).collect();
    let artifact = Artifact::snapshot(description, blobs, annotations);
    let digest = name(registry, to, &artifact, &before).await?;
    let sent = pieces.iter().filter(|(_, new)| *new).map(|(blob, _)| blob.size).sum();
    report.end(STEP, format!("oci://{to}: {} of /opt had to be sent", ByteSize(sent)));
    Ok((digest, sent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_filesystem_is_beside_it() {
        let to: Reference = "registry.corp:5000/snapshots/siem:before".parse().unwrap();
        assert_eq!(root_of(&to).to_string(), "registry.corp:5000/snapshots/siem:before.root");
    }
}
