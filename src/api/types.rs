//! What is said on the wire.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::report::Fault;
use crate::spec::{Archive, ContainerName, ContainerSpec, Mac, Owner};

/// Who answers, and which wire it speaks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub version: String,
    pub api: u32,
}

/// Make this container. The daemon checks every field against the host's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MakeRequest {
    pub spec: ContainerSpec,
    /// `false`: only create and start, without waiting until the container is ready.
    #[serde(default = "yes")]
    pub wait: bool,
}

fn yes() -> bool {
    true
}

/// What became of a `make`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeResult {
    pub container: ContainerView,
    /// `true` when it existed already with this specification.
    pub existed: bool,
    /// The person to log in as.
    pub user: String,
    /// `ssh` public host key line, `ssh-ed25519 AAAA…`.
    pub host_key: String,
    /// The person's view of the container's `/opt` on the host.
    pub opt_directory: String,
    /// The log of this run on the host.
    pub log: String,
    /// Bytes of `/opt` layers this container shares with others, and bytes that are new for it.
    pub shared_bytes: u64,
    pub new_bytes: u64,
}

/// What became of start, stop, restart, remove.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerbResult {
    pub name: ContainerName,
    /// What it is now, as a word: `running`, `stopped`, `removed`.
    pub state: String,
    pub changed: bool,
}

/// The client has put the checkouts into the staging directory, one directory a source named by its index
/// (`0`, `1`, …), or could not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceDone {
    Ready,
    Failed(Fault),
}

/// How far a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// An operation works on it right now.
    Busy,
    Running,
    Stopped,
    /// Running, but a `setup` step failed or was interrupted: the same command retries it.
    SetupFailed,
    /// Our record is there, the engine's container is not.
    Missing,
    /// The engine does not answer: what is known comes from our records.
    Unknown,
}

/// A line of `list-containers`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerView {
    pub name: ContainerName,
    pub owner: Owner,
    pub project: String,
    pub branch: String,
    pub patches: Vec<String>,
    pub state: State,
    pub network: String,
    pub mac: Mac,
    pub address: Option<Ipv4Addr>,
    #[serde(default)]
    pub ipv6: Vec<Ipv6Addr>,
    pub image: String,
    /// Its image's name belongs to another image by now; it keeps the one it was made from until it is made anew.
    #[serde(default)]
    pub outdated: bool,
    /// RFC 3339, UTC.
    pub created: jiff::Timestamp,
    /// The verb in progress, where one is.
    pub operation: Option<String>,
    /// What it was cloned from, where it is a clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned_from: Option<ContainerName>,
    /// Bytes on disk of its own part of `/opt`; known where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opt_bytes: Option<u64>,
}

/// All about one container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerDetail {
    pub container: ContainerView,
    pub spec: ContainerSpec,
    pub user: String,
    pub host_key: String,
    pub opt_directory: String,
    pub logs_directory: String,
    pub engine_id: Option<String>,
    /// Bytes below the container's own upper directory.
    pub opt_bytes: u64,
    /// The lease as the LAN driver knows it, with its journal.
    pub lease: Option<serde_json::Value>,
}

/// Are these here already?
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PresentRequest {
    #[serde(default)]
    pub images: Vec<String>,
    #[serde(default)]
    pub archives: Vec<Archive>,
}

/// Sizes in bytes of what is here, in the order asked; `None` is not here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {
    pub images: Vec<Option<u64>>,
    pub archives: Vec<Option<u64>>,
}

/// Run something inside, with a terminal or without.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnterRequest {
    /// Empty: the person's login shell.
    #[serde(default)]
    pub command: Vec<String>,
    /// Who to be inside; the owner's user where absent.
    #[serde(default)]
    pub user: Option<String>,
    /// Columns and rows of the terminal; absent: no terminal.
    #[serde(default)]
    pub terminal: Option<(u16, u16)>,
    /// `TERM` and the like.
    #[serde(default)]
    pub env: Vec<String>,
}

/// A line of `list-leases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// The Docker network's name; its ID where the engine does not say.
    pub network: String,
    pub mac: Mac,
    /// The host interface that leads to the LAN.
    pub parent: String,
    /// The name the DHCP server was told: the container's.
    pub hostname: Option<String>,
    /// How far the lease is, as a word: `bound`, `renewing`, …
    pub state: String,
    pub address: Option<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
    /// What is handed on to the container: DNS servers, search list, time servers.
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    #[serde(default)]
    pub search: Vec<String>,
    #[serde(default)]
    pub ntp: Vec<Ipv4Addr>,
    /// `None`: never, or no address yet.
    pub expires: Option<jiff::Timestamp>,
    /// Whether a running container uses it; otherwise it is kept for one that is stopped.
    pub attached: bool,
    /// What happened to it last.
    pub last_event: Option<String>,
}
