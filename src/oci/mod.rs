//! Talking to a registry (OCI distribution specification 1.1): manifests and blobs, both ways.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use moorage::oci::{Access, Artifact, Registry};
//! let to: moorage::spec::Reference = "registry.corp:5000/opt/siem:9.2".parse()?;
//! let registry = Registry::open(&to.registry, &Access::of_docker()).await?;
//! // Blobs first, then the manifest that names them.
//! let blob = registry.push_file(&to, "siem.tar.zst".as_ref(), |_done| {}).await?;
//! let artifact = Artifact::opt(blob, Default::default());
//! registry.push_blob(&to, moorage::oci::EMPTY).await?;
//! let digest = registry.push_manifest(&to, artifact.media_type(), artifact.bytes()?).await?;
//! // And back: what is pulled is what the digest names, or an error.
//! let manifest = registry.manifest(&to.at(digest)).await?;
//! let blob = Artifact::read(&manifest)?.archive()?;
//! let mut bytes = registry.blob(&to, &blob, 0).await?;
//! while let Some(chunk) = bytes.next().await? { /* … */ }
//! # Ok(()) }
//! ```
//!
//! Who asks is who Docker's configuration says ([`Access`]): `docker login` and its credential helpers are all that a
//! person has to know. Certificates are checked against the system's authorities and those in `/etc/docker/certs.d/<host>/`.
//! Plain HTTP is spoken to a registry on the loopback interface only, as Docker does.

mod access;
mod artifact;
mod blob;
mod client;
mod examine;
mod fault;

pub use access::{Access, Login};
pub use artifact::{
    Artifact, Blob, EMPTY, Manifest, OPT_ARTIFACT, OPT_DIGEST, OPT_LAYER, OPT_PIECE, SNAPSHOT_ARTIFACT,
};
pub use blob::Incoming;
pub use client::Registry;
pub use examine::examine;
