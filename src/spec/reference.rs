//! What is named in a registry: `host[:port]/repository[:tag][@sha256:digest]`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Digest;

/// The longest reference that is read, bytes: a repository has at most 255 (distribution specification), then tag and digest.
const LONGEST: usize = 512;
/// The longest tag, bytes (distribution specification, "pulling manifests").
const LONGEST_TAG: usize = 128;

/// A manifest in a registry. The host is always said: there is no registry that is meant when none is named.
/// Written `host/repository:tag`, `host/repository@sha256:…` or both; `oci://` before it is read, too.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// Host and port, as `registries` in the host's configuration names it.
    pub registry: String,
    pub repository: String,
    pub tag: Option<String>,
    /// Of the manifest. It decides where both are there; the tag is then only for people.
    pub digest: Option<Digest>,
}

/// Not a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadReference(pub String);

impl fmt::Display for BadReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadReference {}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Reference, BadReference> {
        let bad = |why: &str| BadReference(format!("{text:?} is not a reference to a registry: {why}"));
        let rest = text.strip_prefix("oci://").unwrap_or(text);
        if rest.len() > LONGEST {
            return Err(bad("it is too long"));
        }
        let (name, digest) = match rest.split_once('@') {
            Some((name, digest)) => match digest.strip_prefix("sha256:").map(|_| digest.parse()) {
                Some(Ok(digest)) => (name, Some(digest)),
                _ => return Err(bad("what follows the @ is not sha256: and 64 hexadecimal digits")),
            },
            None => (rest, None),
        };
        let (registry, path) = name.split_once('/').ok_or_else(|| bad("it is host/repository:tag"))?;
        if !is_host(registry) {
            return Err(bad(&format!("{registry:?} is not a registry's host, as in registry.corp:5000")));
        }
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if !repository.split('/').all(is_part) {
            return Err(bad("a repository is made of a-z 0-9 . _ - and slashes"));
        }
        if !tag.is_none_or(is_tag) {
            return Err(bad("a tag is made of letters, digits and . _ -"));
        }
        if tag.is_none() && digest.is_none() {
            return Err(bad("it has neither a tag nor a digest"));
        }
        Ok(Reference {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl Reference {
    /// The same repository, by digest only.
    pub fn at(&self, digest: Digest) -> Reference {
        Reference { tag: None, digest: Some(digest), ..self.clone() }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        match &self.digest {
            Some(digest) => write!(f, "@{digest}"),
            None => Ok(()),
        }
    }
}

impl TryFrom<String> for Reference {
    type Error = BadReference;

    fn try_from(text: String) -> Result<Reference, BadReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

/// A name with a dot, `localhost`, or anything with a port: what Docker takes for a host, too.
fn is_host(text: &str) -> bool {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (text, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    name.split('.').all(label)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
        && (port.is_some() || name.contains('.') || name == "localhost")
}

/// One component of a repository: the distribution specification's pattern, with separators nowhere at an end.
fn is_part(part: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    edge(part.chars().next())
        && edge(part.chars().last())
        && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        && !part.contains("..")
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= LONGEST_TAG
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written() {
        let digest = "a".repeat(64);
        for text in [
            "registry.corp/opt/siem:9.2".to_owned(),
            "registry.corp:5000/siem:p_3-x".into(),
            "localhost/x:1".into(),
            "127.0.0.1:5000/x:1".into(),
            format!("r.corp/a/b@sha256:{digest}"),
            format!("r.corp/a/b:1@sha256:{digest}"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), text);
            assert_eq!(format!("oci://{text}").parse(), Ok(reference));
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_none() {
        for text in [
            "",
            "siem:9.2",
            "library/siem:9.2",
            "r.corp/siem",
            "r.corp/:1",
            "r.corp/../x:1",
            "r.corp/a//b:1",
            "r.corp/a/./b:1",
            "r.corp/A:1",
            "r.corp/a:b/c",
            "r.corp/a?x=1:1",
            "r.corp/a:",
            "r.corp/a:-1",
            "r.corp:x/a:1",
            "r.corp:0/a:1",
            "user@r.corp/a:1",
            "r..corp/a:1",
            "-r.corp/a:1",
            "r.corp/a@sha256:12",
            "http://r.corp/a:1",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?}");
        }
        assert!(format!("r.corp/{}:1", "a".repeat(600)).parse::<Reference>().is_err());
    }
}
