//! Volumes: what each is made of, and bringing its mounts about.

mod aside;
mod bind;
mod docker;
mod freeze;
mod merged;
mod overlay;
mod upper;

use serde::{Deserialize, Serialize};

use super::layer_id::LayerId;
use super::person::Person;
pub use merged::Merged;
pub use upper::Upper;

/// A volume as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeRecord {
    pub kind: Kind,
    pub phase: Phase,
    /// The daemon made it and only the daemon removes it: `docker volume prune` must not destroy somebody's `/opt`.
    pub managed: bool,
    /// Whose view of it is at `<root>/<name>/opt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub view: Option<ViewOwner>,
    pub made: jiff::Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Layers, lowest first, under the writable directory `upper-<upper>`, mounted with `options`.
    Overlay { layers: Vec<LayerId>, upper: u32, options: String },
    /// A host path of the person's, opened with their rights each time it is mounted.
    Bind { source: String, root: String, person: Person, read_only: bool },
}

/// How far a volume is: the intent, written before its first effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Being filled. Never mounted, so nothing in it is anybody's: removed at the next start.
    Unfinished,
    Ready,
    /// Its upper directory is becoming `layer`, on top of `lowers`. Once that has its name the volume goes on with a fresh
    /// upper directory; until then nothing has happened.
    Freezing {
        layer: LayerId,
        lowers: Vec<LayerId>,
    },
    /// Its removal has begun and goes on at the next start.
    Removing,
}

/// Who may enter `<root>/<name>`: the user alone, or with `group_readable` the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewOwner {
    pub uid: u32,
    pub gid: u32,
    pub group_readable: bool,
}

/// An overlay volume to be made.
#[derive(Debug, Clone)]
pub struct VolumeRequest {
    pub name: String,
    /// Lowest first.
    pub layers: Vec<LayerId>,
    /// None for a volume that belongs to no container of ours.
    pub view: Option<ViewOwner>,
}

/// Disk space in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The volume's own.
    pub upper_bytes: u64,
    /// Of its layers, shared with every volume that has them.
    pub layers_bytes: u64,
}
