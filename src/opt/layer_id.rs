//! What a layer is called in the store.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::Digest;

/// Hexadecimal digits of a layer's directory: with 64 the mount options, one page, would end at 39 layers.
const SHORT: usize = 12;

/// A layer's name: the first digits of its archive's digest, or, of a layer that never was an archive, digits of no
/// meaning.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct LayerId(String);

impl LayerId {
    pub fn of(digest: &Digest) -> LayerId {
        LayerId(digest.hex()[..SHORT].to_owned())
    }

    /// A name nobody has: 48 random bits.
    pub fn unused() -> LayerId {
        LayerId(format!("{:012x}", rand::random::<u64>() >> 16))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for LayerId {
    type Error = String;

    /// Reads a whole digest as well: records named layers by it once.
    fn try_from(text: String) -> Result<LayerId, String> {
        if let Ok(digest) = text.parse::<Digest>() {
            return Ok(LayerId::of(&digest));
        }
        let good =
            text.len() == SHORT && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match good {
            true => Ok(LayerId(text)),
            false => Err(format!("{text:?} is not a layer's name ({SHORT} hexadecimal digits)")),
        }
    }
}

impl From<LayerId> for String {
    fn from(id: LayerId) -> String {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_old_records_are_read() {
        let digest = Digest([0xab; 32]);
        let read = |text: &str| serde_json::from_value::<LayerId>(text.into());
        assert_eq!(read(&digest.to_string()).unwrap(), LayerId::of(&digest));
        assert_eq!(read("abababababab").unwrap(), LayerId::of(&digest));
        for junk in ["", "../../etc/xyz", "ABABABABABAB", "ababababab", "abababababab/"] {
            assert!(read(junk).is_err(), "{junk}");
        }
        assert_eq!(LayerId::unused().as_str().len(), SHORT);
    }
}
