//! By what name a registry is reached.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::spec::{BadName, checked_text};

/// A DNS name or an IPv4 address: the certificate is for it, and images are named after it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// The address, where it is one.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.0.parse().ok()
    }

    /// With a port, as Docker names a registry.
    pub fn at(&self, port: u16) -> String {
        format!("{}:{port}", self.0)
    }
}

checked_text!(Name, BadName);

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Name, BadName> {
        let bad = |why: &str| Err(BadName(why.to_owned()));
        match text.parse() {
            Ok(IpAddr::V4(address)) if address.is_unspecified() => {
                return bad("nobody can be reached at that address");
            }
            Ok(IpAddr::V4(address)) => return Ok(Name(address.to_string())),
            Ok(IpAddr::V6(_)) => {
                return bad(
                    "images are named after it, and Docker takes no IPv6 address there: use a DNS name",
                );
            }
            Err(_) => {}
        }
        if text.contains([':', '/']) {
            return bad("a DNS name or an IPv4 address without scheme, port and path (the port: --port)");
        }
        let name = text.to_ascii_lowercase();
        // RFC 1123, 2.1.
        let fits = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let last = name.rsplit('.').next().unwrap_or_default();
        if name.len() > 253 || !name.split('.').all(fits) || last.bytes().all(|b| b.is_ascii_digit()) {
            return bad("a DNS name has letters, digits and hyphens between dots");
        }
        Ok(Name(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses() {
        for (text, name) in
            [("Registry.Corp", "registry.corp"), ("r2", "r2"), ("10.0.0.5", "10.0.0.5"), ("a-b.c", "a-b.c")]
        {
            assert_eq!(text.parse::<Name>().unwrap().as_str(), name);
        }
        assert_eq!("10.0.0.5".parse::<Name>().unwrap().at(5000), "10.0.0.5:5000");
        assert_eq!("r2".parse::<Name>().unwrap().address(), None);
    }

    #[test]
    fn what_is_no_name_says_why() {
        for text in ["", ".", "a..b", "-a", "a-", "a_b", "1.2.3", "300.1.1.1", "ä", "a b", &"x".repeat(64)] {
            assert!(text.parse::<Name>().is_err(), "{text}");
        }
        let why = |text: &str| text.parse::<Name>().unwrap_err().to_string();
        assert!(why("registry.corp:5000").contains("--port"));
        assert!(why("https://registry.corp").contains("scheme"));
        assert!(why("fd00::5").contains("DNS name"));
        assert!(why("0.0.0.0").contains("nobody"));
    }
}
