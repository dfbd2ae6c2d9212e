//! What a bundle has in it: the one thing that is signed.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::split::Piece;
use crate::spec::Digest;

/// The version of this form.
pub const SCHEMA: u32 = 1;
/// What a part begins with, and what it says of itself.
pub const CONTENTS: &str = "bundle.json";
pub const SIGNATURE: &str = "bundle.json.sig";
pub const NUMBER: &str = "part";

/// All of a bundle. Every part begins with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    pub schema: u32,
    /// When the newest of its tags was pushed, seconds since 1970.
    pub newest: i64,
    pub images: Vec<Image>,
    /// Repositories, each with its manifests and their blobs.
    pub repositories: BTreeMap<String, Repository>,
    pub entries: Vec<Entry>,
    /// What of the entries is in which part.
    pub parts: Vec<Vec<Signed>>,
}

/// A tag: an image, an index or an `/opt` archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    pub repository: String,
    pub tag: String,
    pub digest: Digest,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repository {
    pub manifests: Vec<Digest>,
    pub blobs: Vec<Digest>,
}

/// A file of the bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is in the layout: `blobs/sha256/…`, `programs/…`.
    pub path: String,
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

/// A piece of an entry, with the digest of just that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    #[serde(flatten)]
    pub piece: Piece,
    pub digest: Digest,
}

impl Contents {
    /// The bytes that are signed.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).context("write the bundle's contents")
    }

    /// What a piece is called in its part.
    pub fn name(&self, signed: &Signed) -> Option<String> {
        let entry = self.entries.get(signed.piece.item)?;
        Some(match signed.piece.length == entry.size {
            true => entry.path.clone(),
            false => format!("{}.{:012}", entry.path, signed.piece.offset),
        })
    }

    /// The name that people tell bundles apart by.
    pub fn id(bytes: &[u8]) -> String {
        use sha2::Digest as _;
        Digest(sha2::Sha256::digest(bytes).into()).hex()[..12].to_owned()
    }

    /// Whether paths and numbers lead nowhere else. A signature says who wrote it, not that it is right.
    pub fn is_sound(&self) -> bool {
        let plain = |path: &str| {
            let good = |c: char| c.is_ascii_alphanumeric() || "._-/:".contains(c);
            !path.is_empty()
                && path.chars().all(good)
                && path.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
        };
        let repository = |name: &str| {
            let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-/".contains(c);
            plain(name) && name.chars().all(good) && name.split('/').all(|part| !part.starts_with('_'))
        };
        let tag = |tag: &str| plain(tag) && !tag.contains('/');
        self.schema == SCHEMA
            && self.entries.iter().all(|entry| plain(&entry.path))
            && self.repositories.keys().all(|name| repository(name))
            && self
                .images
                .iter()
                .all(|image| self.repositories.contains_key(&image.repository) && tag(&image.tag))
            && self.parts.iter().flatten().all(|signed| {
                let Piece { item, offset, length } = signed.piece;
                self.entries
                    .get(item)
                    .is_some_and(|entry| offset.checked_add(length).is_some_and(|end| end <= entry.size))
            })
    }
}

/// Where a blob is in an OCI image layout (image specification, image-layout.md).
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_lead_elsewhere_is_not_sound() {
        let digest = Digest([1; 32]);
        let good = Contents {
            schema: SCHEMA,
            newest: 0,
            images: vec![Image { repository: "a/b".into(), tag: "1.0".into(), digest }],
            repositories: [("a/b".to_owned(), Repository::default())].into(),
            entries: vec![Entry { path: blob_path(&digest), digest, size: 10 }],
            parts: vec![vec![Signed { piece: Piece { item: 0, offset: 4, length: 6 }, digest }]],
        };
        assert!(good.is_sound());
        assert_eq!(good.name(&good.parts[0][0]).unwrap(), format!("{}.000000000004", blob_path(&digest)));
        let bad = |change: fn(&mut Contents)| {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(!bad.is_sound(), "{bad:?}");
        };
        bad(|bad| bad.schema = 2);
        bad(|bad| bad.entries[0].path = "../etc/passwd".into());
        bad(|bad| bad.entries[0].path = "/etc/passwd".into());
        bad(|bad| bad.images[0].tag = "..".into());
        bad(|bad| bad.images[0].tag = "a/b".into());
        bad(|bad| bad.images[0].repository = "other".into());
        bad(|bad| drop(bad.repositories.insert("../x".into(), Repository::default())));
        bad(|bad| drop(bad.repositories.insert("a/_manifests".into(), Repository::default())));
        bad(|bad| bad.parts[0][0].piece.item = 1);
        bad(|bad| bad.parts[0][0].piece.offset = u64::MAX);
    }
}
