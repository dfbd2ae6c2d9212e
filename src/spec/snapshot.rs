//! What snapshots are called.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::text::checked_text;

/// The longest name.
const LONGEST: usize = 40;

/// A snapshot of a container: `[a-z0-9-]`, at most 40 characters. With its container's: `siem-9.2/before`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotName(String);

impl SnapshotName {
    /// One by the time, to the second: `20260102t030405`.
    pub fn of_time(time: jiff::Timestamp) -> SnapshotName {
        SnapshotName(time.strftime("%Y%m%dt%H%M%S").to_string())
    }
}

checked_text!(SnapshotName, String);

impl FromStr for SnapshotName {
    type Err = String;

    fn from_str(text: &str) -> Result<SnapshotName, String> {
        let good = (1..=LONGEST).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !text.starts_with('-')
            && !text.ends_with('-');
        match good {
            true => Ok(SnapshotName(text.to_owned())),
            false => Err(format!(
                "{text:?} is not a snapshot's name (a-z, 0-9 and inner dashes, at most {LONGEST} characters)"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_labels() {
        for good in ["before", "p3-1", "20260102t030405"] {
            assert_eq!(good.parse::<SnapshotName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a/b", "x".repeat(41).as_str()] {
            assert!(bad.parse::<SnapshotName>().is_err(), "{bad}");
        }
        let time = "2026-01-02T03:04:05Z".parse().unwrap();
        assert_eq!(SnapshotName::of_time(time).as_str().parse(), Ok(SnapshotName::of_time(time)));
    }
}
