//! What a host uses of what is in registries, as it tells them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Digest;

/// The repository where hosts put their lists; the tag is the host's name.
pub const REPOSITORY: &str = "moorage/in-use";
/// `artifactType` of a list, and the media type of its one layer: [`InUse`] in JSON.
pub const ARTIFACT: &str = "application/vnd.moorage.in-use.v1";
pub const LAYER: &str = "application/vnd.moorage.in-use.v1+json";

/// All that one host uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InUse {
    /// Digests of manifests, or of images' configurations, each with what uses it: `container siem-9-2-ann`.
    pub digests: BTreeMap<Digest, Vec<String>>,
}

impl InUse {
    pub fn add(&mut self, digest: Digest, by: String) {
        let users = self.digests.entry(digest).or_default();
        if !users.contains(&by) {
            users.push(by);
        }
    }
}
