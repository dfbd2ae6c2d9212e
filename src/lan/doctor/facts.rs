//! What can be seen of one parent interface and of the LAN behind it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::platform::{self, Platform};
use super::probe;
use crate::lan::Lan;
use crate::lan::driver::is_wireless;
use crate::lan::link::{self, Link};
use crate::lan::view::LeaseView;
use crate::spec::Mac;

/// One server's offer to the probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub server: Ipv4Addr,
    pub address: Ipv4Addr,
    /// Ethernet address that it came from.
    pub via: Mac,
}

/// Somebody who says to have the address of a container of this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub address: Ipv4Addr,
    pub user: Mac,
    pub by: Mac,
}

/// Everything the verdict depends on.
#[derive(Debug, Clone)]
pub struct Facts {
    pub parent: String,
    /// None: the host has no such interface.
    pub link: Option<Link>,
    /// Whether a cable (or its like) is plugged in.
    pub carrier: bool,
    pub promiscuous: bool,
    pub wireless: bool,
    pub platform: Platform,
    /// The host's own addresses there, with their prefix lengths.
    pub host: Vec<(Ipv4Addr, u8)>,
    /// The MAC that asked.
    pub probe: Mac,
    pub waited: Duration,
    /// What the DISCOVER brought; the error where it could not be sent.
    pub offers: Result<Vec<Offer>, String>,
    pub claims: Vec<Claim>,
    /// The leases of this parent's networks.
    pub leases: Vec<LeaseView>,
}

/// Looks, and asks for an offer where that can work.
pub async fn look(lan: &Lan, sys: &Path, parent: &str, (mac, wait): (Mac, Duration)) -> Result<Facts> {
    let netlink = &lan.host.netlink;
    let link = link::by_name(netlink, parent).await?;
    let wireless = is_wireless(sys, parent);
    let host = match &link {
        Some(link) => link::ipv4(netlink, link.index).await?,
        None => Vec::new(),
    };
    let usable = link.as_ref().is_some_and(|link| link::unfit_as_parent(link).is_none());
    let offers = match usable && !wireless {
        true => probe::discover(&lan.leases.port(parent), mac, wait).await.map_err(|e| format!("{e:#}")),
        false => Ok(Vec::new()),
    };
    let leases: Vec<LeaseView> = lan.leases().into_iter().filter(|lease| lease.parent == parent).collect();
    let live = leases.iter().filter(|lease| lease.is_live());
    let users: Vec<_> = live.filter_map(|lease| Some((lease.address?, lease.mac))).collect();
    let claims = match usable && !wireless {
        true => probe::claims(&lan.leases.port(parent), &users).await?,
        false => Vec::new(),
    };
    let flags = text(sys, parent, "flags");
    Ok(Facts {
        parent: parent.to_owned(),
        carrier: text(sys, parent, "carrier") != "0",
        // IFF_PROMISC of linux/if.h: set by hand, or by the kernel where the card cannot filter that many addresses.
        promiscuous: u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|f| f & 0x100 != 0),
        link,
        wireless,
        platform: platform::here(sys),
        host,
        probe: mac,
        waited: wait,
        offers,
        claims,
        leases,
    })
}

/// One of the interface's files in sysfs. What cannot be read is empty: an interface that is down has no carrier file.
fn text(sys: &Path, parent: &str, name: &str) -> String {
    let path = sys.join("class/net").join(parent).join(name);
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}
