//! What containers and owners are called.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::text::checked_text;

/// The longest DNS label, in bytes (RFC 1035, 2.3.4).
const LONGEST: usize = 63;
/// The most of it that the owner takes: the longest name useradd(8) makes.
const OWNER_LONGEST: usize = 32;

/// `<project>-<branch>-<owner>`: `[a-z0-9-]`, at most 63 characters, one DNS label, and the hostname.
/// DHCP servers cut a hostname at its first dot, so `9.2` becomes `9-2`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerName(String);

/// Not a name, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadName(pub(crate) String);

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadName {}

impl ContainerName {
    /// Joins what a person typed (`siem`, `9.2`) and their name to one label, which always ends in [`Owner::label`].
    /// What does not fit into a label is replaced by `-`; if that or the length loses something, a hash of the whole
    /// keeps two names apart: `<cut>-<hash>-<owner>`.
    pub fn join(parts: &[&str], owner: &Owner) -> Result<ContainerName, BadName> {
        let typed = parts.join("-");
        let (front, tail) = (label(&typed), owner.label());
        if front.is_empty() {
            return Err(BadName(format!("{typed:?} has no letter or digit to make a container's name of")));
        }
        // A dot for a dash is the usual loss (9.2) and needs no hash: 9-2 is the same branch to people.
        let kept = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let lossless = typed.chars().chain(owner.bare().chars()).all(kept);
        if lossless && front.len() + 1 + tail.len() <= LONGEST {
            return Ok(ContainerName(format!("{front}-{tail}")));
        }
        let tail = format!("-{}-{tail}", hash(&format!("{typed}-{}", owner.bare())));
        let cut = front.len().min(LONGEST - tail.len());
        Ok(ContainerName(format!("{}{tail}", front[..cut].trim_end_matches('-'))))
    }

    /// The name of `owner`'s container that `typed` is short for; it may be the name of somebody else's too.
    pub fn short(typed: &str, owner: &Owner) -> Option<ContainerName> {
        ContainerName::join(&[typed], owner).ok()
    }

    /// Every owner's label, longer than `owner`'s own, that this name ends with as well: `siem-9-2-j-smith` of `smith`
    /// reads as `j-smith`'s.
    pub fn reads_as(&self, owner: &Owner) -> impl Iterator<Item = &str> {
        let own = owner.label().len();
        let ends = self.0.match_indices('-').map(|(dash, _)| &self.0[dash + 1..]);
        ends.filter(move |end| end.len() > own && end.len() <= OWNER_LONGEST)
    }
}

checked_text!(ContainerName, BadName);

/// Six digits that tell two texts apart.
fn hash(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    format!("{:02x}{:02x}{:02x}", hash[0], hash[1], hash[2])
}

/// Lower-case letters, digits and single inner dashes.
fn label(text: &str) -> String {
    let mut label = String::new();
    for c in text.chars() {
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9') => label.push(c),
            _ if !label.is_empty() && !label.ends_with('-') => label.push('-'),
            _ => {}
        }
    }
    label.trim_end_matches('-').to_owned()
}

impl FromStr for ContainerName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<ContainerName, BadName> {
        let good = !text.is_empty()
            && text.len() <= LONGEST
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        match good {
            true => Ok(ContainerName(text.to_owned())),
            false => Err(BadName(format!(
                "{text:?} is not a container's name (a-z, 0-9 and inner dashes, at most {LONGEST} characters)"
            ))),
        }
    }
}

/// Whose a container is: a person, or a group (`@support`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Owner {
    Person(String),
    Group(String),
}

impl Owner {
    /// The name without the `@`.
    pub fn bare(&self) -> &str {
        match self {
            Owner::Person(name) | Owner::Group(name) => name,
        }
    }

    /// What the names of their containers end in: the name as a label of at most [`OWNER_LONGEST`] characters. A hash
    /// stands for what does not fit, or for a name without a letter or digit.
    pub fn label(&self) -> String {
        let label = label(self.bare());
        if (1..=OWNER_LONGEST).contains(&label.len()) {
            return label;
        }
        let hash = hash(self.bare());
        let cut = label[..label.len().min(OWNER_LONGEST - hash.len() - 1)].trim_end_matches('-');
        if cut.is_empty() { hash } else { format!("{cut}-{hash}") }
    }
}

impl FromStr for Owner {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Owner, BadName> {
        let (group, name) = match text.strip_prefix('@') {
            Some(name) => (true, name),
            None => (false, text),
        };
        // What useradd(8) takes, and nothing that means something in a path or in passwd(5).
        let good = !name.is_empty()
            && name.len() <= 32
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            && !name.starts_with(['-', '.']);
        match (good, group) {
            (true, true) => Ok(Owner::Group(name.to_owned())),
            (true, false) => Ok(Owner::Person(name.to_owned())),
            (false, _) => Err(BadName(format!("{text:?} is neither a person nor a group (`@name`)"))),
        }
    }
}

impl TryFrom<String> for Owner {
    type Error = BadName;

    fn try_from(text: String) -> Result<Owner, BadName> {
        text.parse()
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> String {
        owner.to_string()
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Person(name) => f.write_str(name),
            Owner::Group(name) => write!(f, "@{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Owner {
        "ann".parse().unwrap()
    }

    #[test]
    fn a_branch_with_a_dot_makes_one_label() {
        let name = ContainerName::join(&["siem", "9.2"], &ann()).unwrap();
        assert_eq!(name.as_str(), "siem-9-2-ann");
        assert_eq!(ContainerName::short("siem-9.2", &ann()), Some(name));
    }

    #[test]
    fn a_name_may_read_as_that_of_another_owner() {
        let reads_as = |name: &str, owner: Owner| {
            let name: ContainerName = name.parse().unwrap();
            name.reads_as(&owner).map(str::to_owned).collect::<Vec<_>>()
        };
        let smith = Owner::Person("smith".into());
        assert_eq!(reads_as("siem-9-j-smith", smith.clone()), ["9-j-smith", "j-smith"]);
        assert!(reads_as("siem-smith", smith).is_empty());
        assert!(reads_as("siem-j-smith", Owner::Person("j-smith".into())).is_empty());
        let long = format!("{}-x-ann", "a".repeat(40));
        assert_eq!(reads_as(&long, ann()), ["x-ann"]);
    }

    #[test]
    fn what_is_cut_or_replaced_is_kept_apart_by_a_hash() {
        let long = "x".repeat(80);
        let one = ContainerName::join(&[&long, "a"], &ann()).unwrap();
        let two = ContainerName::join(&[&long, "b"], &ann()).unwrap();
        assert_eq!(one.as_str().len(), 63);
        assert_ne!(one, two);
        let slash = ContainerName::join(&["siem", "feature/x"], &ann()).unwrap();
        let dash = ContainerName::join(&["siem", "feature-x"], &ann()).unwrap();
        assert_ne!(slash, dash);
        assert!(slash.as_str().parse::<ContainerName>().is_ok());
        assert!(one.as_str().ends_with("-ann") && slash.as_str().ends_with("-ann"), "{one} {slash}");
        assert!(slash.as_str().starts_with("siem-feature-x-"), "{slash}");
    }

    #[test]
    fn an_owner_is_a_label_of_limited_length() {
        let label = |name: &str| Owner::Person(name.to_owned()).label();
        assert_eq!(
            (label("ann.lee"), label("Ann_B"), label("@x")),
            ("ann-lee".into(), "ann-b".into(), "x".into())
        );
        let (one, two) = (label(&format!("{}1", "x".repeat(60))), label(&format!("{}2", "x".repeat(60))));
        assert_eq!(one.len(), 32);
        assert_ne!(one, two);
        assert_eq!(label("__").len(), 6);
        assert!(ContainerName::join(&["***"], &ann()).is_err());
    }

    #[test]
    fn owners_are_people_or_groups() {
        assert_eq!("@support".parse(), Ok(Owner::Group("support".into())));
        for junk in ["", "@", "a:b", "../x", ".x", "-x", "a b"] {
            assert!(junk.parse::<Owner>().is_err(), "{junk}");
        }
    }

    proptest::proptest! {
        #[test]
        fn every_joined_name_is_a_valid_one_and_its_owners(
            project in "\\PC{0,90}", branch in "\\PC{0,90}", owner in "\\PC{0,90}"
        ) {
            let owner = Owner::Person(owner);
            if let Ok(name) = ContainerName::join(&[&project, &branch], &owner) {
                proptest::prop_assert!(name.as_str().parse::<ContainerName>().is_ok());
                let tail = format!("-{}", owner.label());
                proptest::prop_assert!(name.as_str().ends_with(&tail));
            }
        }
    }
}
