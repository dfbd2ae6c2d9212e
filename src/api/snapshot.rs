//! Snapshots, on the wire.

use serde::{Deserialize, Serialize};

use super::CloneRequest;
use crate::spec::{ContainerName, Digest, Owner, SnapshotName};

/// Take a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotRequest {
    /// By the time where absent.
    #[serde(default)]
    pub name: Option<SnapshotName>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotResult {
    pub container: ContainerName,
    pub snapshot: SnapshotName,
    /// Milliseconds that the container was stopped; 0 where it did not run.
    pub stopped_ms: u64,
    /// The log of this run on the host.
    pub log: String,
}

/// Which snapshot of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotNamed {
    pub snapshot: SnapshotName,
}

/// Make containers from a snapshot of `container`, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromSnapshot {
    pub container: String,
    pub snapshot: SnapshotName,
    pub clones: CloneRequest,
}

/// Publish a snapshot of a container.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    pub snapshot: SnapshotName,
    /// `oci://host/repository:tag`
    pub to: String,
    /// The name and password that the caller is logged in with there.
    #[serde(default)]
    pub login: Option<(String, String)>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedSnapshot {
    pub container: ContainerName,
    pub snapshot: SnapshotName,
    /// `oci://host/repository:tag`
    pub published: String,
    /// With it that is this very snapshot for ever.
    pub digest: Digest,
    /// Bytes that the registry had not, of the root filesystem before they were compressed.
    pub sent_bytes: u64,
}

/// Make containers of a published snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FromPublished {
    /// `oci://host/repository:tag`
    pub from: String,
    /// Whose they are.
    pub owner: Owner,
    /// The caller's lines of `authorized_keys`.
    pub keys: Vec<String>,
    pub clones: CloneRequest,
}

/// A line of `list-snapshots`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotView {
    pub container: ContainerName,
    pub snapshot: SnapshotName,
    pub owner: Owner,
    pub project: String,
    pub branch: String,
    pub image: String,
    /// RFC 3339, UTC.
    pub made: jiff::Timestamp,
}

/// Make a container anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecreateRequest {
    /// Another image; the container's own where absent, in its newest form.
    #[serde(default)]
    pub image: Option<String>,
}

/// What making a container anew would lose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    pub name: ContainerName,
    /// The image it would be made of, and whether it is another one than now.
    pub image: String,
    pub newer: bool,
    /// Paths in the root filesystem that were written since it was made; those below a new directory are not named each.
    pub lost: Vec<String>,
    pub bytes: u64,
    /// It started as a clone or from a snapshot: what was in that root filesystem is lost as well.
    pub whole_root: bool,
}
