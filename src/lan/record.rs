//! What is remembered of networks and leases, one file each.

use std::net::Ipv4Addr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::clock::Stamp;
use super::lease::{Grant, Lease, Route};
use super::sandbox::Setting;
use super::vlan::Vlan;
use crate::spec::{Fixed, Mac};

/// How many things a lease's journal remembers.
const JOURNAL: usize = 20;

/// The options of a Docker network. dockerd says them once, at CreateNetwork, and never again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Docker's network ID.
    pub id: String,
    /// The host interface that leads to the LAN; with a VLAN its sub-interface.
    pub parent: String,
    #[serde(default)]
    pub vlan: Option<Vlan>,
}

/// How long a MAC keeps its lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tenure {
    /// moorage pinned it: renewed while its container is stopped, until `release`.
    Pinned,
    /// A person gave it to a container of their own (`--mac-address`): kept when that stops, but let run out, as
    /// nobody says when it is removed.
    Given,
    /// Invented for a foreign container: released with its endpoint.
    Invented,
}

/// Who uses a lease now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Docker's endpoint ID, new at every start.
    pub id: String,
    /// The interface's name until dockerd gives it its own.
    pub link: String,
    /// File of the sandbox's network namespace; nothing before Join.
    pub sandbox: Option<String>,
    /// What dockerd, or we since, gave the interface.
    #[serde(default)]
    pub set: Option<Setting>,
}

impl Endpoint {
    /// The interface's address, as far as we know.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.set.as_ref().map(|set| set.address.0)
    }

    /// Whether dockerd, or we since, set a default route.
    pub fn is_routed(&self) -> bool {
        self.set.as_ref().is_some_and(|set| set.routes.iter().any(Route::is_default))
    }

    /// An endpoint whose interface has nothing yet and is in no sandbox.
    pub fn new(id: &str, link: &str) -> Endpoint {
        Endpoint { id: id.to_owned(), link: link.to_owned(), sandbox: None, set: None }
    }
}

/// A grant and when its time began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredLease {
    pub grant: Grant,
    pub granted: Stamp,
}

impl StoredLease {
    pub fn of(lease: &Lease, boot: &str) -> StoredLease {
        StoredLease { grant: lease.grant.clone(), granted: Stamp::of(lease.granted, boot) }
    }

    /// The lease on this boot's clock.
    pub fn locate(&self, boot: &str) -> Lease {
        let (granted, spent) = self.granted.locate(boot);
        Lease { grant: self.grant.clone(), granted, spent }
    }

    /// By the wall clock. None: never.
    pub fn expires(&self) -> Option<Timestamp> {
        let seconds = self.grant.duration;
        (seconds != u32::MAX)
            .then(|| self.granted.wall.checked_add(jiff::SignedDuration::from_secs(seconds.into())).ok())
            .flatten()
    }
}

/// One thing that happened to a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub at: Timestamp,
    pub text: String,
}

/// A lease, by network and MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// Docker's network ID.
    pub network: String,
    pub mac: Mac,
    pub hostname: String,
    pub tenure: Tenure,
    /// An address that a person chose: no server is asked.
    #[serde(default)]
    pub fixed: Option<Fixed>,
    pub lease: Option<StoredLease>,
    /// The address it had last, to ask for again.
    pub wish: Option<Ipv4Addr>,
    pub endpoint: Option<Endpoint>,
    /// Whether a container has had it, or may have.
    #[serde(default = "yes")]
    pub worn: bool,
    /// What happened last, oldest first.
    pub journal: Vec<Entry>,
}

fn yes() -> bool {
    true
}

impl LeaseRecord {
    pub fn new(network: &str, mac: Mac, hostname: &str, tenure: Tenure) -> LeaseRecord {
        LeaseRecord {
            network: network.to_owned(),
            mac,
            hostname: hostname.to_owned(),
            tenure,
            fixed: None,
            lease: None,
            wish: None,
            endpoint: None,
            worn: false,
            journal: Vec::new(),
        }
    }

    pub fn note(&mut self, text: impl Into<String>) {
        if self.journal.len() >= JOURNAL {
            self.journal.drain(..=self.journal.len() - JOURNAL);
        }
        self.journal.push(Entry { at: Timestamp::now(), text: text.into() });
    }
}

/// What a lease is known by: network and MAC, never Docker's endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub network: String,
    pub mac: Mac,
}

impl Key {
    pub fn new(network: &str, mac: Mac) -> Key {
        Key { network: network.to_owned(), mac }
    }

    /// The name of its file. Docker itself tells networks apart by their first twelve characters.
    pub fn file(&self) -> String {
        format!("{}-{}", Key::network_file(&self.network), self.mac.to_string().replace(':', "-"))
    }

    /// The name of a network's file.
    pub fn network_file(network: &str) -> String {
        network.chars().filter(char::is_ascii_alphanumeric).take(12).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_forgets_the_oldest() {
        let mut record = LeaseRecord::new("n", Mac([2; 6]), "h", Tenure::Pinned);
        for n in 0..50 {
            record.note(n.to_string());
        }
        assert_eq!(record.journal.len(), JOURNAL);
        assert_eq!(record.journal.last().unwrap().text, "49");
        assert_eq!(record.journal[0].text, "30");
    }

    #[test]
    fn a_key_is_a_file_name_whatever_dockerd_says() {
        let key = Key::new("../../0123456789abcdef", Mac([2, 0, 0, 0, 0, 1]));
        assert_eq!(key.file(), "0123456789ab-02-00-00-00-00-01");
    }
}
