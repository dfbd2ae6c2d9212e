//! How big images are that are not here yet, as their registry has them: asked as the person.

use std::time::Duration;

use serde::Deserialize;

use super::asked::each_within;
use crate::oci::{Access, Blob, Registry};
use crate::spec::{Digest, Reference};

/// The bytes that a pull of each image would fetch where nothing of it is here, in their order; none for one that names no
/// registry, or whose registry does not say in time.
pub async fn sizes(images: &[&String], patience: Duration) -> Vec<Option<u64>> {
    each_within(patience, images, |image| size(image)).await
}

async fn size(image: &str) -> Option<u64> {
    let of: Reference = image.parse().ok()?;
    let registry = Registry::open(&of.registry, &Access::of_docker()).await.ok()?;
    match Listed::read(&registry.manifest(&of).await.ok()?.bytes)? {
        Listed::Image { bytes } => Some(bytes),
        Listed::Index { this_host } => {
            match Listed::read(&registry.manifest(&of.at(this_host)).await.ok()?.bytes)? {
                Listed::Image { bytes } => Some(bytes),
                Listed::Index { .. } => None,
            }
        }
    }
}

/// What a manifest says of sizes (OCI image specification, manifest and index; Docker's own forms have the same names).
#[derive(Debug, PartialEq, Eq)]
enum Listed {
    Image { bytes: u64 },
    Index { this_host: Digest },
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    config: Option<Blob>,
    #[serde(default)]
    layers: Vec<Blob>,
    #[serde(default)]
    manifests: Vec<RawEntry>,
}

#[derive(Deserialize)]
struct RawEntry {
    digest: Digest,
    #[serde(default)]
    platform: RawPlatform,
}

#[derive(Default, Deserialize)]
struct RawPlatform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
}

impl Listed {
    fn read(bytes: &[u8]) -> Option<Listed> {
        let raw: Raw = serde_json::from_slice(bytes).ok()?;
        if raw.manifests.is_empty() {
            let blobs = raw.config.iter().chain(&raw.layers);
            return Some(Listed::Image { bytes: blobs.map(|blob| blob.size).sum() });
        }
        // Go's name for it, which the specification takes.
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let ours =
            |entry: &&RawEntry| entry.platform.os == "linux" && entry.platform.architecture == architecture;
        raw.manifests.iter().find(ours).map(|entry| Listed::Index { this_host: entry.digest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_the_sum_of_its_blobs_and_an_index_leads_to_this_hosts() {
        let digest = |byte: u8| Digest([byte; 32]);
        let blob = |byte: u8, size: u64| serde_json::json!({ "digest": digest(byte), "size": size });
        let image = serde_json::json!({ "config": blob(1, 7), "layers": [blob(2, 400), blob(3, 20)] });
        assert_eq!(Listed::read(image.to_string().as_bytes()), Some(Listed::Image { bytes: 427 }));
        let entry = |byte: u8, architecture: &str| serde_json::json!({ "digest": digest(byte), "size": 1, "platform": { "os": "linux", "architecture": architecture } });
        let index =
            serde_json::json!({ "manifests": [entry(4, "s390x"), entry(5, "amd64"), entry(6, "arm64")] });
        let ours = if cfg!(target_arch = "x86_64") { 5 } else { 6 };
        assert_eq!(
            Listed::read(index.to_string().as_bytes()),
            Some(Listed::Index { this_host: digest(ours) })
        );
        assert_eq!(Listed::read(b"<html>"), None);
    }

    #[tokio::test]
    async fn an_image_of_no_registry_has_no_size() {
        let images = ["moorage/demo:latest".to_owned()];
        assert_eq!(sizes(&images.each_ref(), Duration::from_secs(3)).await, [None]);
    }
}
