//! The store and the limits, on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::spec::{ContainerName, Limits};

/// A layer of the store that nothing needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnneededLayer {
    pub layer: String,
    /// The archive it came from, or the volume whose files it has.
    pub of: String,
    /// It can be fetched again from there.
    pub archive: bool,
    /// On disk.
    pub bytes: u64,
}

/// What became of collecting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Collected {
    /// Layers that were removed.
    pub layers: u64,
}

/// Give a container other limits; what is absent stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResizeRequest {
    pub limits: Limits,
    /// When they go back to what they were; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The limits that are in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resized {
    pub name: ContainerName,
    pub limits: Limits,
    /// Until when some of them hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}
