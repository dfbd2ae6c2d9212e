//! One entry of an archive, judged before anything is written: what it is and whether it may be in a layer. Pure.

use std::fmt;
use std::io::Read;

use tar::EntryType;

use crate::opt::beneath::{BadInner, Inner};

/// What to write.
#[derive(Debug, PartialEq, Eq)]
pub struct Planned {
    pub path: Inner,
    pub what: What,
    pub attributes: Attributes,
}

#[derive(Debug, PartialEq, Eq)]
pub enum What {
    Directory,
    /// `holes`: the archive says that it is sparse.
    File {
        size: u64,
        holes: bool,
    },
    /// Its text is stored, and never followed.
    Symlink(Vec<u8>),
    /// To a file of the same archive.
    HardLink(Inner),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds.
    pub modified: (i64, u32),
    pub xattrs: Vec<(String, Vec<u8>)>,
    /// Names of extended attributes that are not kept.
    pub dropped: Vec<String>,
}

/// Why an archive is refused.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    Name(String, BadInner),
    Link(String, BadInner),
    Type(String, &'static str),
    Xattr(String, String),
    Malformed(String, &'static str),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Name(name, why) => {
                write!(f, "the archive has an entry whose name is refused: {name:?}: {why}")
            }
            Refused::Link(name, why) => write!(f, "{name:?} is a hard link out of the archive: {why}"),
            Refused::Type(name, what) => write!(f, "{name:?} is {what}, which an /opt archive may not hold"),
            Refused::Xattr(name, key) => write!(f, "{name:?} has the attribute {key}, which is refused"),
            Refused::Malformed(name, what) => write!(f, "{name:?} has a malformed {what}"),
        }
    }
}

impl std::error::Error for Refused {}

/// The largest sparse file, bytes: its holes cost the archive nothing and us the time to skip them.
const LARGEST_SPARSE: u64 = 1 << 40;

/// Judges the entry; none for one that only describes the archive.
pub fn plan(found: &mut tar::Entry<'_, impl Read>) -> Result<Option<Planned>, Refused> {
    let raw_path = found.path_bytes().into_owned();
    let name = String::from_utf8_lossy(&raw_path).into_owned();
    let kind = found.header().entry_type();
    if matches!(kind, EntryType::XGlobalHeader) || kind.as_byte() == b'V' {
        return Ok(None);
    }
    let mut attributes = attributes(found, &name)?;
    let path = Inner::parse(&raw_path).map_err(|why| Refused::Name(name.clone(), why))?;
    let link = || found.link_name_bytes().filter(|l| !l.is_empty()).map(|l| l.into_owned());
    let what = match kind {
        // A name with a slash at its end is how tar wrote directories before it had a type for them.
        EntryType::Regular | EntryType::Continuous if raw_path.ends_with(b"/") => What::Directory,
        EntryType::Regular | EntryType::Continuous => What::File { size: found.size(), holes: false },
        EntryType::GNUSparse if found.size() > LARGEST_SPARSE => {
            return Err(Refused::Type(name, "a sparse file of more than 1 TiB"));
        }
        EntryType::GNUSparse => What::File { size: found.size(), holes: true },
        EntryType::Directory => What::Directory,
        EntryType::Symlink => match link() {
            Some(target) if !target.contains(&0) => What::Symlink(target),
            _ => return Err(Refused::Malformed(name, "link target")),
        },
        EntryType::Link => {
            let target = link().ok_or_else(|| Refused::Malformed(name.clone(), "link target"))?;
            What::HardLink(Inner::parse(&target).map_err(|why| Refused::Link(name.clone(), why))?)
        }
        EntryType::Char => return Err(Refused::Type(name, "a character device")),
        EntryType::Block => return Err(Refused::Type(name, "a block device")),
        EntryType::Fifo => return Err(Refused::Type(name, "a FIFO")),
        _ => return Err(Refused::Type(name, "of an unknown type")),
    };
    if path.is_root() && what != What::Directory {
        return Err(Refused::Malformed(name, "name"));
    }
    if !attributes.xattrs.is_empty() && matches!(what, What::Symlink(_) | What::HardLink(_)) {
        let keys = attributes.xattrs.drain(..).map(|(key, _)| key);
        attributes.dropped.extend(keys);
    }
    Ok(Some(Planned { path, what, attributes }))
}

fn attributes(found: &mut tar::Entry<'_, impl Read>, name: &str) -> Result<Attributes, Refused> {
    let malformed = |what: &'static str| Refused::Malformed(name.to_owned(), what);
    let header = found.header();
    // All ones means "leave it as it is" to chown(2).
    let number = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX);
    let mut attributes = Attributes {
        mode: header.mode().map_err(|_| malformed("mode"))? & 0o7777,
        uid: header.uid().ok().and_then(number).ok_or_else(|| malformed("owner"))?,
        gid: header.gid().ok().and_then(number).ok_or_else(|| malformed("group"))?,
        modified: (header.mtime().map_err(|_| malformed("time"))? as i64, 0),
        ..Attributes::default()
    };
    let Some(extensions) = found.pax_extensions().map_err(|_| malformed("extended header"))? else {
        return Ok(attributes);
    };
    for extension in extensions {
        let extension = extension.map_err(|_| malformed("extended header"))?;
        let key = extension.key().map_err(|_| malformed("extended header"))?;
        if key == "mtime" {
            let text = extension.value().map_err(|_| malformed("time"))?;
            attributes.modified = time(text).ok_or_else(|| malformed("time"))?;
        } else if key.starts_with("GNU.sparse.") {
            return Err(Refused::Type(
                name.to_owned(),
                "a sparse file in the pax form (pack it with `tar --format=gnu`, or without --sparse)",
            ));
        } else if let Some(xattr) = key.strip_prefix("SCHILY.xattr.") {
            match xattr {
                _ if xattr.starts_with("trusted.") => {
                    return Err(Refused::Xattr(name.to_owned(), xattr.to_owned()));
                }
                _ if xattr.contains('\0') => return Err(malformed("extended attribute")),
                "security.capability" => {
                    attributes.xattrs.push((xattr.to_owned(), extension.value_bytes().to_vec()));
                }
                _ if xattr.starts_with("user.") => {
                    attributes.xattrs.push((xattr.to_owned(), extension.value_bytes().to_vec()));
                }
                _ => attributes.dropped.push(xattr.to_owned()),
            }
        } else if key.starts_with("SCHILY.acl.") {
            attributes.dropped.push(key.to_owned());
        }
    }
    Ok(attributes)
}

/// A pax time: decimal seconds since 1970, maybe negative, maybe with a fraction.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let mut nanoseconds: u32 = digits.parse().ok()?;
    if whole.starts_with('-') && nanoseconds > 0 {
        seconds = seconds.checked_sub(1)?;
        nanoseconds = 1_000_000_000 - nanoseconds;
    }
    Some((seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_times_are_read() {
        assert_eq!(time("1700000000.25"), Some((1_700_000_000, 250_000_000)));
        assert_eq!(time("12"), Some((12, 0)));
        assert_eq!(time("-1.5"), Some((-2, 500_000_000)));
        assert_eq!(time("1.0123456789999"), Some((1, 12_345_678)));
        for junk in ["", ".", "x", "1.x", "1.-5", "99999999999999999999"] {
            assert_eq!(time(junk), None, "{junk}");
        }
    }

    #[test]
    fn a_refusal_names_the_entry_and_the_reason() {
        let refused = Refused::Type("dev/null".into(), "a character device");
        assert_eq!(
            refused.to_string(),
            "\"dev/null\" is a character device, which an /opt archive may not hold"
        );
        let refused = Refused::Name("../x".into(), BadInner::Parent);
        assert!(refused.to_string().contains("`..`"), "{refused}");
    }
}
