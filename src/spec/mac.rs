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
    /// The address of container `name` on `network` of this host: the prefix and a hash. The same inputs give the same
    /// address for ever, so a remade container keeps its lease and its node-locked licences.
    pub fn pinned(prefix: &MacPrefix, host: &str, network: &str, name: &str) -> Mac {
        prefix.complete(&Sha256::digest(format!("{host}\0{network}\0{name}")))
    }

    /// The one address with which a host tries whether a DHCP server answers: always the same, since switches count
    /// addresses.
    pub fn probe(prefix: &MacPrefix, host: &str) -> Mac {
        // No container's name has a colon.
        Mac::pinned(prefix, host, "", "doctor:")
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

/// What every MAC of a host's containers begins with: one to four bytes, the first even (unicast). Written `02` or
/// `02:5e:10`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacPrefix(Vec<u8>);

impl Default for MacPrefix {
    /// Locally administered, unicast.
    fn default() -> Self {
        MacPrefix(vec![0x02])
    }
}

impl MacPrefix {
    /// An address of this prefix with the first bytes of `rest`, of which six are always enough.
    pub fn complete(&self, rest: &[u8]) -> Mac {
        let mut bytes = [0; 6];
        let all = self.0.iter().chain(rest);
        for (byte, from) in bytes.iter_mut().zip(all) {
            *byte = *from;
        }
        Mac(bytes)
    }
}

impl FromStr for MacPrefix {
    type Err = String;

    fn from_str(text: &str) -> Result<MacPrefix, String> {
        let byte = |part: &str| {
            let good = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            good.then(|| u8::from_str_radix(part, 16).ok()).flatten()
        };
        let bytes: Option<Vec<u8>> = text.split(':').map(byte).collect();
        match bytes {
            Some(bytes)
                if (1..=4).contains(&bytes.len()) && bytes[0] & 1 == 0 && bytes.iter().any(|b| *b != 0) =>
            {
                Ok(MacPrefix(bytes))
            }
            _ => Err(format!(
                "{text:?} is not what MACs can begin with: one to four hexadecimal bytes, the first even (02:5e:10)"
            )),
        }
    }
}

impl TryFrom<String> for MacPrefix {
    type Error = String;

    fn try_from(text: String) -> Result<MacPrefix, String> {
        text.parse()
    }
}

impl From<MacPrefix> for String {
    fn from(prefix: MacPrefix) -> String {
        prefix.0.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
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
        let pinned = |name: &str| Mac::pinned(&MacPrefix::default(), "host", "lan", name);
        let mac = pinned("siem-9-2-ann");
        assert_eq!(mac, pinned("siem-9-2-ann"));
        assert_ne!(mac, pinned("siem-9-2-bob"));
        assert_eq!(mac.0[0], 2);
        assert!(mac.is_usable());
    }

    #[test]
    fn a_prefix_is_kept_and_odd_ones_are_refused() {
        let prefix: MacPrefix = "02:5e:10".parse().unwrap();
        assert_eq!(prefix.complete(&[1, 2, 3, 4, 5, 6]), Mac([2, 0x5e, 0x10, 1, 2, 3]));
        assert!(Mac::pinned(&prefix, "host", "lan", "x").to_string().starts_with("02:5e:10:"));
        assert_eq!(Mac::probe(&prefix, "host"), Mac::probe(&prefix, "host"));
        assert_eq!(String::from(prefix), "02:5e:10");
        for junk in ["", "01", "2", "02:", "02:5e:10:00:01", "00", "zz", "+2"] {
            assert!(junk.parse::<MacPrefix>().is_err(), "{junk}");
        }
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
