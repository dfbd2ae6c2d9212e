//! What moorage remembers of a container.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Account;
use super::runlog::Reader;
use crate::spec::{ContainerName, ContainerSpec, Limits, Mac, Owner};

/// The version of [`Record`]'s layout.
pub const SCHEMA: u32 = 1;

/// One container, under its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    /// Twelve hexadecimal digits; the value of the label on what is ours in Docker.
    pub id: String,
    pub spec: ContainerSpec,
    /// Who has a user inside; the first is whom `ssh` and `enter-container` use.
    pub people: Vec<Account>,
    /// The group that may look at the files on the host: the person's own, or the owning group.
    pub gid: u32,
    pub mac: Mac,
    /// Docker's ID of the LAN's network; empty where the container is not on the LAN.
    pub network_id: String,
    pub machine_id: String,
    pub host_key: HostKey,
    pub created: Timestamp,
    /// The engine's container that was made from this record, wholly; another of that name is not it.
    pub engine_id: String,
    pub setup: Setup,
    /// The operation in progress, written before its first effect.
    pub intent: Option<Intent>,
    /// The root filesystem it was started from, where that is not its image's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// What its limits go back to, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lent: Option<Lent>,
    /// The limits it was made with, where others were set since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_with: Option<Limits>,
    /// What it was cloned from, where it is a clone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cloned: Option<Cloned>,
}

impl Record {
    /// What was asked for when it was made: whoever asks for the same again has it already.
    pub fn as_made(&self) -> ContainerSpec {
        let limits = self.made_with.as_ref().unwrap_or(&self.spec.limits).clone();
        ContainerSpec { limits, ..self.spec.clone() }
    }
}

/// Limits that hold for a time only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    pub until: Timestamp,
    /// What holds again then.
    pub before: Limits,
}

/// A root filesystem that was committed, of this container or of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// What the engine knows it by (`engine::root_image`).
    pub key: String,
    /// The image that it was written over, by its id: a newer one of that name makes the container outdated.
    pub image_id: String,
}

/// What a clone has of its source and its group beside what every container has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cloned {
    pub from: ContainerName,
    /// All that were made with it, and the source first.
    pub group: Vec<Peer>,
    /// The group's own SSH key: each member lets whoever has it in.
    pub key: HostKey,
}

/// A member of a group of clones, as the others know it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    pub name: ContainerName,
    pub address: Ipv4Addr,
    /// `ssh-ed25519 AAAA…`
    pub host_key: String,
}

/// The container's SSH identity, made by us so that it is known before the first login.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostKey {
    /// OpenSSH private key.
    pub private: String,
    /// `ssh-ed25519 AAAA…`
    pub public: String,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HostKey({})", self.public)
    }
}

/// How far the project's set-up steps are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Setup {
    Pending,
    Failed,
    Done,
}

/// What a container is made anew from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum To {
    /// The image that this name stands for.
    Image(String),
    /// The snapshot with this key, `/opt` too.
    Snapshot(String),
}

/// What a daemon that starts finds it was doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Intent {
    /// Undone at start: the person runs the same command again.
    Make,
    /// Finished at start.
    Remove,
    /// It is being cloned, and is stopped for that. At start it is as it was before, and runs again where it did.
    Clone { runs: bool },
    /// It is made anew on its `/opt`, of another root filesystem. At start that goes on.
    Anew { to: To, runs: bool },
}

impl Record {
    /// Whom `ssh` and `enter-container` use.
    pub fn user(&self) -> &str {
        self.people.first().map_or("root", |account| &account.name)
    }

    /// Who reads what was logged about it, and what it logged.
    pub fn reader(&self) -> Reader {
        match (&self.spec.owner, self.people.first()) {
            (Owner::Person(_), Some(person)) => Reader::Person(person.uid),
            _ => Reader::Group(self.gid),
        }
    }

    /// The volume that holds `/opt`.
    pub fn opt_volume(&self) -> &str {
        self.spec.name.as_str()
    }

    /// All volumes, `/opt` last.
    pub fn volumes(&self) -> Vec<String> {
        let mounts = (0..self.spec.mounts.len()).map(|index| self.mount_volume(index));
        mounts.chain([self.opt_volume().to_owned()]).collect()
    }

    /// The volume of the `index`th mapped host directory.
    pub fn mount_volume(&self, index: usize) -> String {
        format!("{}.mount{index}", self.spec.name)
    }
}

/// `N` random bytes in hexadecimal.
pub fn random_hex<const N: usize>() -> String {
    rand::random::<[u8; N]>().iter().map(|b| format!("{b:02x}")).collect()
}
