//! Where an `/opt` tree comes from, and the digest that names its content.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Reference;

/// A SHA-256 digest; written `sha256:<64 hex>` (a bare 64-hex text is read too).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The 64 hexadecimal digits.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = BadArchive;

    fn from_str(text: &str) -> Result<Digest, BadArchive> {
        let bad = || BadArchive(format!("{text:?} is not a sha256 digest (64 hexadecimal digits)"));
        let hex = text.strip_prefix("sha256:").unwrap_or(text);
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Digest(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = BadArchive;

    fn try_from(text: String) -> Result<Digest, BadArchive> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// One published `/opt` tree: where it is, and what it must hash to.
/// Without a digest (allowed for `file://` and `oci://` only) the content found when it is fetched names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Archive {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// How an archive's bytes are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    File,
    Http,
    /// An artifact in a registry.
    Oci,
}

/// An archive or digest that cannot be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadArchive(pub String);

impl fmt::Display for BadArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadArchive {}

impl Archive {
    /// Checks the URL's scheme, and that an archive from the network has a digest.
    pub fn scheme(&self) -> Result<Scheme, BadArchive> {
        let url = &self.url;
        if let Some(path) = url.strip_prefix("file://") {
            return match path.starts_with('/') {
                true => Ok(Scheme::File),
                false => {
                    Err(BadArchive(format!("{url}: a file:// archive needs an absolute path: file:///…")))
                }
            };
        }
        if url.starts_with("https://") || url.starts_with("http://") {
            return match self.sha256 {
                Some(_) => Ok(Scheme::Http),
                None => Err(BadArchive(format!("{url}: an archive from the network needs its sha256"))),
            };
        }
        if url.starts_with("oci://") {
            return self.reference().map(|_| Scheme::Oci);
        }
        Err(BadArchive(format!("{url}: an archive is file://, http://, https:// or oci://")))
    }

    /// What an `oci://` archive is called in its registry: `oci://host/repository:tag`, `…@sha256:<of the manifest>` or both.
    pub fn reference(&self) -> Result<Reference, BadArchive> {
        self.url.parse().map_err(|e: super::reference::BadReference| BadArchive(e.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_from_the_network_need_a_digest() {
        let mut archive = Archive { url: "https://h/x.tar.zst".into(), sha256: None };
        assert!(archive.scheme().is_err());
        archive.sha256 = Some(Digest([7; 32]));
        assert_eq!(archive.scheme(), Ok(Scheme::Http));
        archive = Archive { url: "file://relative".into(), sha256: None };
        assert!(archive.scheme().is_err());
        archive.url = "ftp://h/x".into();
        assert!(archive.scheme().is_err());
    }

    #[test]
    fn archives_in_a_registry_have_a_tag_or_a_digest() {
        let of = |url: &str| Archive { url: url.into(), sha256: None }.scheme();
        assert_eq!(of("oci://registry.corp:5000/opt/siem:9.2"), Ok(Scheme::Oci));
        assert_eq!(of(&format!("oci://r.corp/siem@sha256:{}", "a".repeat(64))), Ok(Scheme::Oci));
        assert!(of("oci://r.corp/siem").is_err());
        assert!(of("oci://siem:9.2").is_err());
        // The name alone is that of an image.
        assert!(of("r.corp/siem:9.2").is_err());
    }

    #[test]
    fn digests_round_trip() {
        let digest = Digest([0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.hex().parse(), Ok(digest));
        assert!("sha256:abc".parse::<Digest>().is_err());
        assert!("é".repeat(32).parse::<Digest>().is_err());
    }
}
