//! The labels that say what an image was made from.

use std::collections::HashMap;

use sha2::{Digest as _, Sha256};

use crate::spec::Digest;

/// Digest of the definition, and of the image it was built on.
pub const DEFINITION: &str = "moorage.definition";
/// The definition's own name: labels of a parent are seen in what is built on it, but each has a name of its own.
pub const NAME: &str = "moorage.name";
/// The id of the image it was built on: the same in every engine, published or not.
pub const BASE_ID: &str = "moorage.base.id";
/// The definition that the image was built on: a base's or an image's name.
pub const BASE: &str = "moorage.base";
/// Digest of a base's root filesystem: the same packages make the same.
pub const ROOT: &str = "moorage.root";
/// The OCI image spec's lineage annotations (image-spec, annotations.md).
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// A digest of several things, each told apart from the next.
pub(super) fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    Digest(hash.finalize().into())
}

/// Whether an image with these labels was made from `definition`.
pub(super) fn is_of(labels: &HashMap<String, String>, definition: Digest) -> bool {
    labels.get(DEFINITION).is_some_and(|label| *label == definition.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_told_apart() {
        let digest = |parts: &[&str]| digest(parts.iter().map(|part| part.as_bytes()));
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
    }
}
