//! How a container comes by its IPv4 address.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The kinds of addresses there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Addressing {
    /// One that the LAN's DHCP server grants.
    #[default]
    Dhcp,
    /// One that a person chose, on the LAN.
    Static(Fixed),
    /// One of Docker's bridge: the container reaches the LAN, and only its host reaches the container.
    Nat,
    /// None: no network at all.
    None,
}

impl Addressing {
    /// Whether it has a MAC on the LAN.
    pub fn is_on_lan(self) -> bool {
        matches!(self, Addressing::Dhcp | Addressing::Static(_))
    }

    pub fn is_default(&self) -> bool {
        *self == Addressing::default()
    }
}

/// An address that no server grants; written `10.0.0.5/24@10.0.0.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fixed {
    pub address: Ipv4Addr,
    /// Length of the subnet's prefix in bits.
    pub prefix: u8,
    /// The router of the default route.
    pub gateway: Option<Ipv4Addr>,
}

/// What an address was expected to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadAddress {
    Unknown(String),
    Malformed(String),
    NotAHost(Ipv4Addr),
}

impl fmt::Display for BadAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadAddress::Unknown(text) => {
                write!(
                    f,
                    "{text:?} is no kind of address: there are dhcp, nat, none, and ADDRESS/PREFIX@GATEWAY"
                )
            }
            BadAddress::Malformed(text) => {
                write!(f, "{text:?} is not ADDRESS/PREFIX@GATEWAY, as in 10.0.0.5/24@10.0.0.1")
            }
            BadAddress::NotAHost(address) => write!(f, "{address} cannot be the address of a machine"),
        }
    }
}

impl std::error::Error for BadAddress {}

impl FromStr for Addressing {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Addressing, BadAddress> {
        match text {
            "dhcp" => Ok(Addressing::Dhcp),
            "nat" => Ok(Addressing::Nat),
            "none" => Ok(Addressing::None),
            fixed if fixed.starts_with(|c: char| c.is_ascii_digit()) => fixed.parse().map(Addressing::Static),
            other => Err(BadAddress::Unknown(other.to_owned())),
        }
    }
}

impl FromStr for Fixed {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Fixed, BadAddress> {
        let malformed = || BadAddress::Malformed(text.to_owned());
        let (own, gateway) = match text.split_once('@') {
            Some((own, gateway)) => (own, Some(gateway.parse().map_err(|_| malformed())?)),
            None => (text, None),
        };
        let (address, prefix) = own.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let prefix: u8 = prefix.parse().ok().filter(|bits| (1..=32).contains(bits)).ok_or_else(malformed)?;
        for host in [Some(address), gateway].into_iter().flatten() {
            if !is_host(host, prefix) {
                return Err(BadAddress::NotAHost(host));
            }
        }
        match gateway == Some(address) {
            true => Err(BadAddress::NotAHost(address)),
            false => Ok(Fixed { address, prefix, gateway }),
        }
    }
}

/// Whether one machine may have the address in a subnet of that size.
fn is_host(address: Ipv4Addr, prefix: u8) -> bool {
    let rest = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    let host = u32::from(address) & rest;
    // A subnet of two has no address for itself (RFC 3021).
    let whole = prefix >= 31 || (host != 0 && host != rest);
    let special = address.is_unspecified() || address.is_loopback() || address.is_multicast();
    whole && !special && !address.is_broadcast()
}

impl fmt::Display for Fixed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)?;
        self.gateway.map_or(Ok(()), |gateway| write!(f, "@{gateway}"))
    }
}

impl fmt::Display for Addressing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Addressing::Dhcp => f.write_str("dhcp"),
            Addressing::Static(fixed) => fixed.fmt(f),
            Addressing::Nat => f.write_str("nat"),
            Addressing::None => f.write_str("none"),
        }
    }
}

impl TryFrom<String> for Addressing {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Addressing, BadAddress> {
        text.parse()
    }
}

impl From<Addressing> for String {
    fn from(kind: Addressing) -> String {
        kind.to_string()
    }
}

impl TryFrom<String> for Fixed {
    type Error = BadAddress;

    fn try_from(text: String) -> Result<Fixed, BadAddress> {
        text.parse()
    }
}

impl From<Fixed> for String {
    fn from(fixed: Fixed) -> String {
        fixed.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_what_is_written() {
        for text in ["dhcp", "nat", "none", "10.0.0.5/24@10.0.0.1", "10.0.0.5/24", "10.0.0.0/31@10.0.0.1"] {
            assert_eq!(text.parse::<Addressing>().unwrap().to_string(), text);
        }
        assert_eq!(serde_json::to_value(Addressing::default()).unwrap(), "dhcp");
    }

    #[test]
    fn what_no_machine_can_have_is_refused() {
        for text in [
            "",
            "DHCP",
            "lan",
            "10.0.0.5",
            "10.0.0.5/33",
            "10.0.0.5/0",
            "10.0.0.5/24@",
            "10.0.0.5/24@x",
            "10.0.0.0/24",
            "10.0.0.255/24",
            "127.0.0.1/8",
            "224.0.0.1/4",
            "255.255.255.255/32",
            "0.0.0.0/24",
            "10.0.0.5/24@10.0.0.5",
            "10.0.0.5/24@10.0.0.255",
            "10.0.0.5/24 ",
        ] {
            assert!(text.parse::<Addressing>().is_err(), "{text:?}");
        }
    }
}
