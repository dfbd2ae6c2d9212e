//! What a lab is asked to be, and the names and addresses that follow from it. Pure.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::spec::{Mac, MacPrefix};

/// The DNS domain of every lab's leases.
pub const DOMAIN: &str = "lab";
/// The longest name: `mo-` and it make an interface's name of at most 15 bytes (IFNAMSIZ).
const LONGEST: usize = 12;

/// One lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub name: String,
    pub subnet: Subnet,
    pub lease_time: LeaseTime,
    /// Whether the DHCP server pings an address before it offers it (3 s for the first lease).
    pub ping: bool,
}

impl Settings {
    /// Whether `name` can be a lab's.
    pub fn check_name(name: &str) -> Result<String, String> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        match !name.is_empty() && name.len() <= LONGEST && name.bytes().all(good) && !name.starts_with('-') {
            true => Ok(name.to_owned()),
            false => Err(format!("a lab's name is a-z, 0-9 and dashes, at most {LONGEST} characters")),
        }
    }

    /// The end of the veth pair on this host.
    pub fn parent(&self) -> String {
        format!("mo-{}", self.name)
    }

    /// The network namespace, as `ip netns` lists it.
    pub fn namespace(&self) -> String {
        format!("moorage-{}", self.name)
    }

    /// Where its DHCP server keeps its files.
    pub fn directory(&self) -> String {
        format!("{}/{}", super::DIRECTORY, self.name)
    }

    /// The address of an end of the veth pair, always the same.
    pub(super) fn mac(&self, end: &str) -> Mac {
        Mac::pinned(&MacPrefix::default(), "moorage lab", &self.name, end)
    }

    /// A unique local /64 (RFC 4193): a lab keeps its own for ever.
    pub fn prefix6(&self) -> Ipv6Addr {
        let hash = Sha256::digest(format!("moorage lab\0{}\0{}", self.name, self.subnet));
        Ipv6Addr::from([0xfd, hash[0], hash[1], hash[2], hash[3], hash[4], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    }

    /// The lab's own address in [`prefix6`](Settings::prefix6).
    pub fn router6(&self) -> Ipv6Addr {
        Ipv6Addr::from(u128::from(self.prefix6()) | 1)
    }

    /// In what the settings differ from `other`, for people.
    pub(super) fn differences(&self, other: &Settings) -> Vec<String> {
        let pairs = [
            ("subnet", other.subnet.to_string(), self.subnet.to_string()),
            ("lease time", other.lease_time.to_string(), self.lease_time.to_string()),
            ("ping before an offer", other.ping.to_string(), self.ping.to_string()),
        ];
        let different = pairs.into_iter().filter(|(_, there, asked)| there != asked);
        different.map(|(what, there, asked)| format!("{what}: {there} there, {asked} asked for")).collect()
    }
}

/// An IPv4 network, written `10.86.0.0/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Subnet {
    network: Ipv4Addr,
    pub prefix: u8,
}

impl Subnet {
    fn size(self) -> u32 {
        1 << (32 - self.prefix)
    }

    fn at(self, offset: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + offset)
    }

    /// The lab's own address.
    pub fn router(self) -> Ipv4Addr {
        self.at(1)
    }

    /// This host's address.
    pub fn host(self) -> Ipv4Addr {
        self.at(2)
    }

    /// The addresses that are leased; some below them stay free for addresses set by hand.
    pub fn range(self) -> (Ipv4Addr, Ipv4Addr) {
        (self.at((self.size() / 16).max(3)), self.at(self.size() - 2))
    }

    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(!(self.size() - 1))
    }

    /// Whether the two share an address.
    pub fn overlaps(self, other: Subnet) -> bool {
        let widest = Subnet { network: self.network, prefix: self.prefix.min(other.prefix) };
        let mask = u32::from(widest.netmask());
        u32::from(self.network) & mask == u32::from(other.network) & mask
    }

    /// The network an interface's address is in; `None` for a whole-world prefix.
    pub(super) fn of(address: Ipv4Addr, prefix: u8) -> Option<Subnet> {
        (1..=32).contains(&prefix).then(|| {
            let mask = u32::MAX << (32 - u32::from(prefix));
            Subnet { network: Ipv4Addr::from(u32::from(address) & mask), prefix }
        })
    }
}

impl Default for Subnet {
    fn default() -> Self {
        Subnet { network: Ipv4Addr::new(10, 86, 0, 0), prefix: 24 }
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Subnet, String> {
        let bad = || format!("{text:?} is not a subnet: 10.86.0.0/24, prefix 8 to 28");
        let (network, prefix) = text.split_once('/').ok_or_else(bad)?;
        let subnet = Subnet {
            network: network.parse().map_err(|_| bad())?,
            prefix: prefix.parse().ok().filter(|prefix| (8..=28).contains(prefix)).ok_or_else(bad)?,
        };
        match u32::from(subnet.network) & !u32::from(subnet.netmask()) {
            0 => Ok(subnet),
            _ => Err(format!("{text:?} has host bits set; the subnet's own address comes before the /")),
        }
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Subnet, String> {
        text.parse()
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> String {
        subnet.to_string()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// How long a lease lasts, seconds; written `12h`, `30m`, `120s` or a number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseTime(pub u32);

impl FromStr for LeaseTime {
    type Err = String;

    fn from_str(text: &str) -> Result<LeaseTime, String> {
        let (number, factor) = match text.char_indices().last() {
            Some((at, 's')) => (&text[..at], 1),
            Some((at, 'm')) => (&text[..at], 60),
            Some((at, 'h')) => (&text[..at], 3600),
            Some((at, 'd')) => (&text[..at], 86_400),
            _ => (text, 1),
        };
        let seconds = number.parse().ok().and_then(|number: u32| number.checked_mul(factor));
        // dnsmasq(8): the minimum lease time is two minutes.
        seconds
            .filter(|seconds| *seconds >= 120)
            .map(LeaseTime)
            .ok_or_else(|| format!("{text:?} is not a lease time: 12h, 30m, 120s; at least two minutes"))
    }
}

impl fmt::Display for LeaseTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}s", self.0)
    }
}

/// Whether this kernel has IPv6 at all.
pub(super) fn kernel_has_ipv6() -> bool {
    std::path::Path::new("/proc/sys/net/ipv6").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_follow_from_the_subnet() {
        let subnet = Subnet::default();
        assert_eq!(subnet.to_string(), "10.86.0.0/24");
        assert_eq!(subnet.router().to_string(), "10.86.0.1");
        assert_eq!(subnet.host().to_string(), "10.86.0.2");
        assert_eq!(subnet.range().0.to_string(), "10.86.0.16");
        assert_eq!(subnet.range().1.to_string(), "10.86.0.254");
        let small: Subnet = "192.168.7.16/28".parse().unwrap();
        assert_eq!(small.range(), (Ipv4Addr::new(192, 168, 7, 19), Ipv4Addr::new(192, 168, 7, 30)));
        assert_eq!(small.netmask().to_string(), "255.255.255.240");
        for junk in ["10.0.0.0", "10.0.0.1/24", "10.0.0.0/30", "10.0.0.0/7", "x/24", ""] {
            assert!(junk.parse::<Subnet>().is_err(), "{junk}");
        }
    }

    #[test]
    fn overlaps_are_seen_in_both_directions() {
        let one: Subnet = "10.86.0.0/24".parse().unwrap();
        let wide: Subnet = "10.0.0.0/8".parse().unwrap();
        let other: Subnet = "10.86.1.0/24".parse().unwrap();
        assert!(one.overlaps(wide) && wide.overlaps(one) && !one.overlaps(other));
        assert_eq!(Subnet::of(Ipv4Addr::new(10, 86, 0, 7), 24), Some(one));
    }

    #[test]
    fn names_fit_an_interface() {
        assert!(Settings::check_name("lab").is_ok());
        for junk in ["", "a234567890123", "Lab", "-x", "a.b", "a/b"] {
            assert!(Settings::check_name(junk).is_err(), "{junk}");
        }
    }

    #[test]
    fn lease_times_are_read() {
        assert_eq!("12h".parse(), Ok(LeaseTime(43_200)));
        assert_eq!("120".parse(), Ok(LeaseTime(120)));
        for junk in ["", "1s", "h", "-1h", "4294967295d", "2w", "1é"] {
            assert!(junk.parse::<LeaseTime>().is_err(), "{junk}");
        }
    }
}
