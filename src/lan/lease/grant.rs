//! What a DHCP server granted, and for how long.

use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::lan::clock::Boottime;
use crate::spec::{Fixed, Mac};

/// A lease time that never ends (RFC 2132, 9.2).
const FOR_EVER: u32 = u32::MAX;

/// A classless static route (RFC 3442).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub destination: Ipv4Addr,
    pub prefix: u8,
    /// Unspecified: on the link itself.
    pub router: Ipv4Addr,
}

impl Route {
    /// To everywhere.
    pub fn default_by(router: Ipv4Addr) -> Route {
        Route { destination: Ipv4Addr::UNSPECIFIED, prefix: 0, router }
    }

    pub fn is_default(&self) -> bool {
        self.prefix == 0
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.is_default(), self.router.is_unspecified()) {
            (true, false) => write!(f, "default via {}", self.router),
            (_, false) => write!(f, "{}/{} via {}", self.destination, self.prefix, self.router),
            (_, true) => write!(f, "{}/{} on the link", self.destination, self.prefix),
        }
    }
}

/// The content of an ACK. Times are seconds from the request it answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix in bits.
    pub prefix: u8,
    /// Option 54.
    pub server: Ipv4Addr,
    /// Ethernet address that sent the ACK: the server's or, on a routed LAN, the relay's or router's.
    pub via: Mac,
    #[serde(default)]
    pub routers: Vec<Ipv4Addr>,
    #[serde(default)]
    pub dns: Vec<Ipv4Addr>,
    #[serde(default)]
    pub domain: Option<String>,
    #[serde(default)]
    pub search: Vec<String>,
    #[serde(default)]
    pub mtu: Option<u16>,
    #[serde(default)]
    pub ntp: Vec<Ipv4Addr>,
    /// Option 121: where present it replaces `routers` (RFC 3442).
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Option 51.
    pub duration: u32,
    /// Option 58, or half of the duration.
    pub t1: u32,
    /// Option 59, or seven eighths of the duration.
    pub t2: u32,
}

impl Grant {
    /// What nobody granted.
    pub fn fixed(fixed: &Fixed) -> Grant {
        Grant {
            address: fixed.address,
            prefix: fixed.prefix,
            server: Ipv4Addr::UNSPECIFIED,
            via: Mac([0; 6]),
            routers: fixed.gateway.into_iter().collect(),
            dns: Vec::new(),
            domain: None,
            search: Vec::new(),
            mtu: None,
            ntp: Vec::new(),
            routes: Vec::new(),
            duration: FOR_EVER,
            t1: FOR_EVER,
            t2: FOR_EVER,
        }
    }

    /// The routes that its holder needs beside the one to its own subnet, one for each destination, those on the link
    /// first, as others may lead through them. Where option 121 is there, option 3 does not count (RFC 3442).
    pub fn ways(&self) -> Vec<Route> {
        let by_routers = || self.routers.iter().find(|r| !r.is_unspecified()).map(|r| Route::default_by(*r));
        let mut ways: Vec<Route> = Vec::new();
        for route in self.routes.iter().cloned().chain(by_routers().filter(|_| self.routes.is_empty())) {
            let same = |other: &Route| (other.destination, other.prefix) == (route.destination, route.prefix);
            if !ways.iter().any(same) {
                ways.push(route);
            }
        }
        ways.sort_by_key(|route| !route.router.is_unspecified());
        ways
    }

    /// Where short names are looked up: in the own domain (option 15), then in those of option 119.
    pub fn search_list(&self) -> Vec<String> {
        let mut list: Vec<String> = Vec::new();
        for domain in self.domain.iter().chain(&self.search) {
            let domain = domain.trim_end_matches('.');
            if !domain.is_empty() && !list.iter().any(|known| known.eq_ignore_ascii_case(domain)) {
                list.push(domain.to_owned());
            }
        }
        list
    }

    /// What software in the container is to know of the LAN, in words.
    pub fn handed_on(&self) -> String {
        let some = |what: &str, words: Vec<String>| match words.is_empty() {
            true => format!("no {what}"),
            false => format!("{what} {}", words.join(" ")),
        };
        let addresses = |all: &[Ipv4Addr]| all.iter().map(Ipv4Addr::to_string).collect();
        [
            some("DNS servers", addresses(&self.dns)),
            some("search list", self.search_list()),
            some("NTP servers", addresses(&self.ntp)),
        ]
        .join(", ")
    }

    /// The router of the default route.
    pub fn gateway(&self) -> Option<Ipv4Addr> {
        self.ways().iter().find(|way| way.is_default()).map(|way| way.router).filter(|r| !r.is_unspecified())
    }

    /// Whether `other` can be reached on the link without a router.
    pub fn reaches(&self, other: Ipv4Addr) -> bool {
        same_subnet(self.address, other, self.prefix)
    }
}

/// Whether two addresses share their first `prefix` bits.
pub fn same_subnet(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    let differing = u32::from(one) ^ u32::from(other);
    differing.leading_zeros() >= u32::from(prefix)
}

/// A grant and when its time began: when the request was sent (RFC 2131, 4.4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub grant: Grant,
    pub granted: Boottime,
    /// Seconds of its time that had gone by before this boot's clock began.
    pub spent: Duration,
}

impl Lease {
    fn point(&self, seconds: u32) -> Option<Boottime> {
        let whole = Duration::from_secs(seconds.into());
        (self.grant.duration != FOR_EVER).then(|| self.granted.after(whole.saturating_sub(self.spent)))
    }

    /// When to ask the server to renew it; never for an endless one.
    pub fn t1(&self) -> Option<Boottime> {
        self.point(self.grant.t1)
    }

    /// When to ask any server.
    pub fn t2(&self) -> Option<Boottime> {
        self.point(self.grant.t2)
    }

    /// When the address must no longer be used.
    pub fn expiry(&self) -> Option<Boottime> {
        self.point(self.grant.duration)
    }

    pub fn expired(&self, now: Boottime) -> bool {
        self.expiry().is_some_and(|end| now >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 0, 0, last)
    }

    #[test]
    fn short_names_are_looked_up_in_each_domain_once() {
        let mut grant = super::super::tests::grant(ip(50));
        assert!(grant.search_list().is_empty());
        grant.domain = Some("corp.example".into());
        grant.search = ["lab.example.", "Corp.example", ""].map(str::to_owned).into();
        assert_eq!(grant.search_list(), ["corp.example", "lab.example"]);
    }

    #[test]
    fn classless_routes_replace_the_router() {
        let mut grant = super::super::tests::grant(ip(50));
        assert_eq!((grant.gateway(), grant.ways()), (Some(ip(1)), vec![Route::default_by(ip(1))]));
        let net = |third, router| Route { destination: Ipv4Addr::new(10, 9, third, 0), prefix: 24, router };
        grant.routes = vec![net(1, ip(2)), net(2, Ipv4Addr::UNSPECIFIED), net(1, ip(3))];
        assert_eq!(grant.gateway(), None);
        assert_eq!(grant.ways(), [net(2, Ipv4Addr::UNSPECIFIED), net(1, ip(2))]);
        grant.routes.push(Route::default_by(ip(9)));
        assert_eq!(grant.gateway(), Some(ip(9)));
        assert_eq!(grant.ways()[2].to_string(), "default via 10.0.0.9");
    }
}
