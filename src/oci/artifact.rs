//! Manifests as we read and write them. Pure.
//!
//! An `/opt` archive in a registry is an image manifest (image specification 1.1, "guidelines for artifact usage") with an empty
//! configuration and one layer, the compressed tar as it is: its digest is the archive's, whichever way it is fetched.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use oci_client::manifest::{OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageManifest};
use serde::{Deserialize, Serialize};

use crate::report::{Fault, Kind};
use crate::spec::{Digest, Reference};

/// `artifactType` of an `/opt` archive.
pub const OPT_ARTIFACT: &str = "application/vnd.moorage.opt.v1";
/// Media type of its one layer: a tar, compressed or not; its first bytes say how.
pub const OPT_LAYER: &str = "application/vnd.moorage.opt.layer.v1.tar";
/// The empty configuration that an artifact's manifest names (image specification, "guidance for an empty descriptor").
pub const EMPTY: &[u8] = b"{}";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";

/// What a manifest names: content with its digest and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Blob {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
}

impl Blob {
    /// The blob that these bytes are.
    pub fn of(bytes: &[u8]) -> Blob {
        use sha2::Digest as _;
        Blob { digest: Digest(sha2::Sha256::digest(bytes).into()), size: bytes.len() as u64 }
    }
}

/// One piece of an archive that was cut where its content says: a zstd frame. All of them, in order, are the archive.
pub const OPT_PIECE: &str = "application/vnd.moorage.opt.piece.v1.tar+zstd";
/// The annotation with the digest of the pieces' archive.
pub const OPT_DIGEST: &str = "moorage.opt.digest";

/// `artifactType` of a snapshot: what it is of, and the pieces of its `/opt`.
pub const SNAPSHOT_ARTIFACT: &str = "application/vnd.moorage.snapshot.v1";
/// Media type of what a snapshot is of.
const SNAPSHOT_DESCRIPTION: &str = "application/vnd.moorage.snapshot.v1+json";

/// A manifest as the registry keeps it: its digest is that of these very bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What was asked for.
    pub reference: Reference,
    pub digest: Digest,
    pub bytes: Bytes,
}

/// A manifest with one configuration and layers: an image's, or an artifact's.
#[derive(Debug, Clone)]
pub struct Artifact {
    manifest: OciImageManifest,
    name: String,
}

impl Artifact {
    /// An `/opt` archive. The annotations are for people (`org.opencontainers.image.created`, …).
    pub fn opt(archive: Blob, annotations: BTreeMap<String, String>) -> Artifact {
        Artifact::new(OPT_ARTIFACT, vec![(OPT_LAYER, archive)], annotations)
    }

    /// An `/opt` archive in pieces; the annotations have to have [`OPT_DIGEST`].
    pub fn opt_pieces(pieces: Vec<Blob>, annotations: BTreeMap<String, String>) -> Artifact {
        Artifact::new(OPT_ARTIFACT, pieces.into_iter().map(|piece| (OPT_PIECE, piece)).collect(), annotations)
    }

    /// A snapshot: what it is of, and the pieces of its `/opt`; the annotations as for [`Artifact::opt_pieces`].
    pub fn snapshot(description: Blob, pieces: Vec<Blob>, annotations: BTreeMap<String, String>) -> Artifact {
        let pieces = pieces.into_iter().map(|piece| (OPT_PIECE, piece));
        let layers = std::iter::once((SNAPSHOT_DESCRIPTION, description)).chain(pieces).collect();
        Artifact::new(SNAPSHOT_ARTIFACT, layers, annotations)
    }

    /// What a snapshot is of.
    ///
    /// # Errors
    /// [`Kind::Usage`]: it is none.
    pub fn description(&self) -> Result<Blob> {
        let found = self.manifest.layers.iter().find(|layer| layer.media_type == SNAPSHOT_DESCRIPTION);
        match found {
            Some(layer) => blob(layer),
            None => Err(Fault::new(Kind::Usage, format!("{} is not a snapshot", self.name))
                .next("publish one with `moorage publish-snapshot`")
                .into()),
        }
    }

    /// An artifact of layers with their media types, lowest first, and an empty configuration ([`EMPTY`], to be pushed too).
    pub fn new(
        artifact_type: &str,
        layers: Vec<(&str, Blob)>,
        annotations: BTreeMap<String, String>,
    ) -> Artifact {
        let manifest = OciImageManifest {
            schema_version: 2,
            media_type: Some(OCI_IMAGE_MEDIA_TYPE.to_owned()),
            artifact_type: Some(artifact_type.to_owned()),
            config: descriptor(EMPTY_TYPE, Blob::of(EMPTY)),
            layers: layers.into_iter().map(|(media_type, blob)| descriptor(media_type, blob)).collect(),
            subject: None,
            annotations: (!annotations.is_empty()).then_some(annotations),
        };
        Artifact { manifest, name: artifact_type.to_owned() }
    }

    /// # Errors
    /// [`Kind::Failed`]: it is a list of manifests, or nothing that can be read.
    pub fn read(manifest: &Manifest) -> Result<Artifact> {
        let name = manifest.reference.to_string();
        let read = serde_json::from_slice(&manifest.bytes).map_err(|e| {
            Fault::new(Kind::Failed, format!("{name} is no image and no artifact"))
                .why(e.to_string())
                .next(format!("docker manifest inspect {name}"))
        })?;
        Ok(Artifact { manifest: read, name })
    }

    pub fn media_type(&self) -> &str {
        OCI_IMAGE_MEDIA_TYPE
    }

    /// As it goes to the registry.
    pub fn bytes(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(&self.manifest).context("write the manifest")
    }

    pub fn artifact_type(&self) -> Option<&str> {
        self.manifest.artifact_type.as_deref()
    }

    pub fn annotations(&self) -> BTreeMap<String, String> {
        self.manifest.annotations.clone().unwrap_or_default()
    }

    /// The configuration and all layers, lowest first, with their media types.
    pub fn blobs(&self) -> Result<Vec<(String, Blob)>> {
        let all = std::iter::once(&self.manifest.config).chain(&self.manifest.layers);
        all.map(|found| Ok((found.media_type.clone(), blob(found)?))).collect()
    }

    /// The blobs that are, one behind another, its archive: one, or the pieces of [`Artifact::opt_pieces`].
    ///
    /// # Errors
    /// As [`Artifact::archive`].
    pub fn pieces(&self) -> Result<Vec<Blob>> {
        match self.is_in_pieces() {
            true => self.piece_layers().map(blob).collect(),
            false => Ok(vec![self.archive()?]),
        }
    }

    fn piece_layers(&self) -> impl Iterator<Item = &OciDescriptor> {
        self.manifest.layers.iter().filter(|layer| layer.media_type == OPT_PIECE)
    }

    /// All of it, but for what a snapshot is of.
    fn is_in_pieces(&self) -> bool {
        let layers = &self.manifest.layers;
        self.piece_layers().next().is_some()
            && layers
                .iter()
                .all(|layer| [OPT_PIECE, SNAPSHOT_DESCRIPTION].contains(&layer.media_type.as_str()))
    }

    /// Digest and size of the archive that the pieces are.
    fn whole(&self) -> Result<Blob> {
        let annotations = self.manifest.annotations.as_ref();
        let digest = annotations.and_then(|annotations| annotations.get(OPT_DIGEST));
        let digest = digest.with_context(|| format!("{} has pieces and no {OPT_DIGEST}", self.name))?;
        let digest = digest.parse().with_context(|| format!("{OPT_DIGEST} of {}", self.name))?;
        Ok(Blob { digest, size: self.pieces()?.iter().map(|piece| piece.size).sum() })
    }

    /// The one archive of it, as [`Artifact::opt`] or [`Artifact::opt_pieces`] made it; what `oras push` makes of a tar is
    /// taken, too.
    ///
    /// # Errors
    /// [`Kind::Usage`]: an image, or an artifact of several layers.
    pub fn archive(&self) -> Result<Blob> {
        let refused = |why: String| {
            Fault::new(Kind::Usage, format!("{} is not an /opt archive", self.name))
                .why(why)
                .next("publish the archive with `moorage publish-opt`")
        };
        let configuration = &self.manifest.config.media_type;
        if configuration.contains("image.config") || configuration.contains("container.image") {
            return Err(refused("it is an image".into()).into());
        }
        match self.manifest.layers.as_slice() {
            _ if self.is_in_pieces() => self.whole(),
            [one] => blob(one),
            layers => Err(refused(format!("it has {} layers, an archive is one", layers.len())).into()),
        }
    }
}

fn blob(descriptor: &OciDescriptor) -> Result<Blob> {
    let digest = descriptor.digest.parse().with_context(|| format!("the digest {}", descriptor.digest))?;
    let size = u64::try_from(descriptor.size).with_context(|| format!("the size {}", descriptor.size))?;
    Ok(Blob { digest, size })
}

fn descriptor(media_type: &str, blob: Blob) -> OciDescriptor {
    OciDescriptor {
        media_type: media_type.to_owned(),
        digest: blob.digest.to_string(),
        size: i64::try_from(blob.size).unwrap_or(i64::MAX),
        ..OciDescriptor::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(bytes: Vec<u8>) -> Manifest {
        Manifest {
            reference: "r.corp/opt/siem:1".parse().unwrap(),
            digest: Blob::of(&bytes).digest,
            bytes: bytes.into(),
        }
    }

    #[test]
    fn an_archive_goes_in_and_comes_out() {
        let archive = Blob::of(b"an archive");
        let written = Artifact::opt(archive, [("a".to_owned(), "b".to_owned())].into());
        let read = Artifact::read(&manifest(written.bytes().unwrap())).unwrap();
        assert_eq!(read.archive().unwrap(), archive);
        assert_eq!(read.artifact_type(), Some(OPT_ARTIFACT));
        assert_eq!(read.annotations()["a"], "b");
        assert_eq!(read.blobs().unwrap()[0], (EMPTY_TYPE.to_owned(), Blob::of(EMPTY)));
        insta::assert_snapshot!(String::from_utf8(written.bytes().unwrap()).unwrap());
    }

    #[test]
    fn a_snapshot_has_what_it_is_of_and_its_opt() {
        let (of, piece) = (Blob::of(b"of"), Blob::of(b"piece"));
        let annotations = BTreeMap::from([(OPT_DIGEST.to_owned(), piece.digest.to_string())]);
        let written = Artifact::snapshot(of, vec![piece], annotations);
        let read = Artifact::read(&manifest(written.bytes().unwrap())).unwrap();
        assert_eq!(read.description().unwrap(), of);
        assert_eq!((read.pieces().unwrap(), read.archive().unwrap()), (vec![piece], piece));
        assert_eq!(read.artifact_type(), Some(SNAPSHOT_ARTIFACT));
        let other = Artifact::opt(piece, BTreeMap::new());
        assert_eq!(Fault::of(&other.description().unwrap_err()).kind, Kind::Usage);
    }

    #[test]
    fn what_is_no_archive_says_what_it_is() {
        let says = |text: &str, words: &str| {
            let error = Artifact::read(&manifest(text.into())).and_then(|read| read.archive()).unwrap_err();
            let fault = Fault::of(&error);
            assert!(fault.to_string().contains(words), "{fault}");
            assert!(fault.next.is_some());
        };
        let some = r#"{"mediaType":"m","digest":"sha256:00","size":1}"#;
        let image =
            r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:00","size":1}"#;
        says("<html>", "no image and no artifact");
        says(r#"{"schemaVersion":2,"manifests":[]}"#, "no image and no artifact");
        says(&format!(r#"{{"schemaVersion":2,"config":{image},"layers":[{some}]}}"#), "it is an image");
        says(&format!(r#"{{"schemaVersion":2,"config":{some},"layers":[{some},{some}]}}"#), "2 layers");
    }

    #[test]
    fn a_digest_that_is_none_and_a_size_below_nothing_are_errors() {
        for layer in [
            r#"{"mediaType":"m","digest":"sha256:00","size":1}"#.to_owned(),
            format!(r#"{{"mediaType":"m","digest":"sha256:{}","size":-1}}"#, "a".repeat(64)),
        ] {
            let text = format!(r#"{{"schemaVersion":2,"config":{layer},"layers":[{layer}]}}"#);
            assert!(Artifact::read(&manifest(text.into_bytes())).unwrap().archive().is_err());
        }
    }
}
