//! A lease as it is shown to others.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lease::State;
use super::record::Entry;
use crate::spec::Mac;

/// What is known of one lease now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Docker's network ID.
    pub network: String,
    /// The host interface that leads to the LAN.
    pub parent: String,
    pub mac: Mac,
    pub hostname: String,
    /// Whether moorage pinned the MAC; otherwise it belongs to a container of somebody else's making.
    pub pinned: bool,
    pub state: State,
    /// Absent while no address may be used.
    pub address: Option<Ipv4Addr>,
    pub prefix: Option<u8>,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    /// Domains in which short names are looked up, the lease's own first.
    #[serde(default)]
    pub search: Vec<String>,
    /// Time servers of the LAN (option 42).
    #[serde(default)]
    pub ntp: Vec<Ipv4Addr>,
    pub server: Option<Ipv4Addr>,
    /// By the wall clock; absent for an endless lease too.
    pub expires: Option<Timestamp>,
    /// Whether a container's interface carries it, taken up by Docker.
    pub attached: bool,
    /// Filled in by `Lan::ipv6` for those who ask.
    #[serde(default)]
    pub ipv6: Vec<Ipv6Addr>,
    /// What happened last.
    pub last: Option<Entry>,
}

impl LeaseView {
    /// Whether the address is good and a container answers by it.
    pub fn is_live(&self) -> bool {
        self.attached && self.state.is_bound() && self.address.is_some()
    }

    /// What software in the container is to know of the LAN: DNS servers, search list, time servers.
    pub fn handed_on(&self) -> (&[Ipv4Addr], &[String], &[Ipv4Addr]) {
        (&self.dns, &self.search, &self.ntp)
    }
}
