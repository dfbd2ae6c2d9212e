//! Cloning, on the wire.

use serde::{Deserialize, Serialize};

use super::ContainerView;
use crate::report::Fault;
use crate::spec::ContainerName;
use crate::spec::plan::Plan;

/// The most clones one request may ask for.
pub const MOST_CLONES: u32 = 100;

/// Clone this container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneRequest {
    /// How many, 1 to [`MOST_CLONES`].
    pub count: u32,
    /// What the clones are called instead of their source: one by exactly that name, several with a number behind it.
    #[serde(default)]
    pub name: Option<String>,
    /// `false`: the clones are made and not started.
    #[serde(default = "yes")]
    pub start: bool,
}

fn yes() -> bool {
    true
}

/// What cloning would do and cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClonePlan {
    pub source: ContainerName,
    pub clones: Vec<ContainerName>,
    /// How it is done, in a sentence.
    pub method: String,
    /// Bytes it takes on disk, for all clones together.
    pub disk_bytes: u64,
    /// Whether the source runs and has to be stopped, and what that takes, in a sentence.
    pub stop: String,
    /// Files that a clone's first write to them copies whole, largest first. None where the store's filesystem shares blocks.
    pub large_files: Vec<LargeFile>,
    #[serde(flatten)]
    pub plan: Plan,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LargeFile {
    /// Inside.
    pub path: String,
    pub bytes: u64,
}

/// What became of cloning, where at least one clone was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneResult {
    pub source: ContainerName,
    pub clones: Vec<CloneDone>,
    pub failed: Vec<CloneFailed>,
    /// Of `clones`, those that run and of which the project's own check does not say that they are ready.
    #[serde(default)]
    pub not_ready: Vec<CloneFailed>,
    /// The person to log in as.
    pub user: String,
    /// Milliseconds that the source was stopped; 0 where it did not run.
    pub stopped_ms: u64,
    /// The log of this run on the host.
    pub log: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneDone {
    #[serde(flatten)]
    pub container: ContainerView,
    /// `ssh-ed25519 AAAA…`
    pub host_key: String,
    /// The person's view of its `/opt` on the host.
    pub opt_directory: String,
}

/// One that could not be made, and was undone; or one that is not ready, and stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneFailed {
    pub name: ContainerName,
    pub fault: Fault,
}
