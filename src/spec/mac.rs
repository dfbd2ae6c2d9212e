//! Ethernet addresses, and the one a container is pinned to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A 48-bit Ethernet address; written `02:42:ac:11:00:02`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// The address of container `name` on `network` of this host: `02` (locally administered, unicast) and a hash.
    /// The same inputs give the same address for ever, so a remade container keeps its lease and its node-locked
    /// licences.
    pub fn pinned(host: &str, network: &str, name: &str) -> Mac {
        let hash = Sha256::digest(format!("{host}\0{network}\0{name}"));
        Mac([0x02, hash[0], hash[1], hash[2], hash[3], hash[4]])
    }

    /// Unicast, and not all zeros: what an interface may carry.
    pub fn is_usable(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not `aa:bb:cc:dd:ee:ff`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadMac(String);

impl fmt::Display for BadMac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a MAC address (six hexadecimal bytes with colons between)", self.0)
    }
}

impl std::error::Error for BadMac {}

impl FromStr for Mac {
    type Err = BadMac;

    fn from_str(text: &str) -> Result<Mac, BadMac> {
        let bad = || BadMac(text.to_owned());
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            if !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(bad());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        parts.next().is_none().then_some(Mac(bytes)).ok_or_else(bad)
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;

    fn try_from(text: String) -> Result<Mac, BadMac> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_is_stable_local_and_unicast() {
        let mac = Mac::pinned("host", "lan", "siem-9-2-ann");
        assert_eq!(mac, Mac::pinned("host", "lan", "siem-9-2-ann"));
        assert_ne!(mac, Mac::pinned("host", "lan", "siem-9-2-bob"));
        assert_eq!(mac.0[0], 2);
        assert!(mac.is_usable());
    }

    #[test]
    fn text_round_trips_and_junk_is_refused() {
        let mac: Mac = "02:00:5e:10:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "02:00:5e:10:00:ff");
        for junk in [
            "",
            "02:00:5e:10:00",
            "02:00:5e:10:00:ff:00",
            "2:0:5e:10:0:ff",
            "zz:00:5e:10:00:ff",
            "+2:00:5e:10:00:ff",
        ] {
            assert!(junk.parse::<Mac>().is_err(), "{junk}");
        }
    }
}
