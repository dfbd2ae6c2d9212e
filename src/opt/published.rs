//! What of the store came out of registries.

use anyhow::Result;

use super::store::Store;
use crate::spec::{Archive, Digest};

impl Store {
    /// The manifests that layers of the store came from, each with where it was.
    pub fn published(&self) -> Result<Vec<(Digest, String)>> {
        let of_layer = |layer: super::layer::Layer| {
            let archive = Archive { url: layer.source, sha256: None };
            let digest = archive.reference().ok()?.digest?;
            Some((digest, archive.url))
        };
        Ok(self.layers.all()?.into_iter().filter_map(of_layer).collect())
    }
}
