//! The whole specification of a container: what the site resolves to, what the CLI sends, what the record keeps.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Addressing, Archive, ByteSize, ContainerName, Limits, Owner};

/// Everything that decides what a container is. The same input resolves to the same specification, and two
/// specifications are compared field by field when the container already exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerSpec {
    pub name: ContainerName,
    pub owner: Owner,
    /// Empty for `make-os-container`.
    #[serde(default)]
    pub project: String,
    #[serde(default)]
    pub branch: String,
    #[serde(default)]
    pub patches: Vec<String>,
    /// Full image reference, e.g. `moorage/demo:latest` or `registry.corp:5000/siem-el8:latest`.
    pub image: String,
    /// The `/opt` archives, lowest first (patches stack on top).
    #[serde(default)]
    pub opt: Vec<Archive>,
    #[serde(default)]
    pub sources: Vec<SourceSpec>,
    /// Files put into the container before its first start (licences), by content.
    #[serde(default)]
    pub files: Vec<FileSpec>,
    /// Lines for `authorized_keys`, by the person who may log in with them.
    #[serde(default)]
    pub authorized_keys: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Size of /dev/shm, bytes.
    #[serde(default)]
    pub shm: Option<ByteSize>,
    #[serde(default)]
    pub limits: Limits,
    #[serde(default)]
    pub mounts: Vec<MountSpec>,
    /// Capabilities beyond the default ones, without `CAP_`.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// Shell commands, run once inside, in order, as the person.
    #[serde(default)]
    pub setup: Vec<String>,
    /// A shell command that succeeds inside when the container is ready, beyond sshd.
    #[serde(default)]
    pub ready: Option<String>,
    /// The Docker network it hangs on, where it is on the LAN.
    pub network: String,
    #[serde(default, skip_serializing_if = "Addressing::is_default")]
    pub address: Addressing,
}

/// A repository and where its checkout goes, below `/opt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSpec {
    pub repo: String,
    /// Branch or tag; the repository's default branch where absent.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    pub to: String,
}

/// A file by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileSpec {
    /// Absolute path inside the container.
    pub to: String,
    /// Permission bits, e.g. 0o644.
    pub mode: u32,
    /// In JSON as base64: as a list of numbers it would be four times the size.
    #[serde(with = "in_base64")]
    pub content: Vec<u8>,
}

/// Bytes as a JSON string (RFC 4648, section 4).
mod in_base64 {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// Resource limits a person may set (setrlimit(2), lower case, without `RLIMIT_`): not `nice` and `rtprio`, which would
/// let a container push the host's own processes aside.
pub const ULIMITS: [&str; 13] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nofile",
    "nproc",
    "rss",
    "rttime",
    "sigpending",
    "stack",
];

/// Soft and hard value of one resource limit (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ulimit {
    pub soft: u64,
    pub hard: u64,
}

/// A host path mapped into the container; written `/host/path:/inside[:ro]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MountSpec {
    pub source: String,
    pub target: String,
    #[serde(default)]
    pub read_only: bool,
}
