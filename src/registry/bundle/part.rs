//! Reading a part: each is verified alone.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use sha2::Digest as _;
use tar::Archive;

use super::contents::{CONTENTS, Contents, NUMBER, SIGNATURE, Signed};
use super::sign::Trusted;
use crate::report::{Fault, Kind};
use crate::spec::Digest;

/// The most that a bundle's contents may have, bytes: a million blobs.
const LONGEST: u64 = 256 << 20;

/// What a part says of itself, and of the whole.
pub struct Header {
    pub bytes: Vec<u8>,
    pub signature: String,
    /// From 0.
    pub number: usize,
}

/// A part whose contents a trusted key has signed.
pub struct Part {
    pub contents: Contents,
    pub id: String,
    pub number: usize,
}

/// What a reader hands on has this digest at its end.
pub struct Checked<R> {
    inner: R,
    hash: sha2::Sha256,
}

impl<R: Read> Checked<R> {
    pub fn new(inner: R) -> Checked<R> {
        Checked { inner, hash: sha2::Sha256::new() }
    }

    /// Of all that was read.
    pub fn digest(self) -> Digest {
        Digest(self.hash.finalize().into())
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        Ok(read)
    }
}

fn fault(path: &Path, what: &str, why: impl std::fmt::Display) -> Fault {
    Fault::new(Kind::Failed, format!("{} {what}", path.display()))
        .why(why.to_string())
        .remains("nothing of the bundle is visible in the registry")
        .next("copy that part anew from where the bundle was made, then run the same command again")
}

/// Takes the first three entries of a part apart. Nothing is believed yet.
pub fn header(path: &Path) -> Result<Header, Fault> {
    let mut archive = Archive::new(open(path)?);
    let mut entries = archive.entries().map_err(|e| fault(path, "cannot be read", e))?;
    read_header(path, &mut entries)
}

fn open(path: &Path) -> Result<BufReader<File>, Fault> {
    let file = File::open(path).map_err(|e| {
        Fault::new(Kind::NotFound, format!("{} cannot be read", path.display()))
            .why(e.to_string())
            .next("name the parts, or the directory that they are in")
    })?;
    Ok(BufReader::with_capacity(1 << 20, file))
}

fn read_header<R: Read>(path: &Path, entries: &mut tar::Entries<'_, R>) -> Result<Header, Fault> {
    let mut next = |name: &str| -> Result<Vec<u8>, Fault> {
        let none = |why: String| fault(path, "is no part of a bundle", why);
        let entry = entries.next().ok_or_else(|| none(format!("it has no {name}")))?;
        let entry = entry.map_err(|e| none(e.to_string()))?;
        if *entry.path_bytes() != *name.as_bytes() {
            return Err(none(format!(
                "it has {:?} where {name} should be",
                entry.path_bytes().escape_ascii().to_string()
            )));
        }
        if entry.size() > LONGEST {
            return Err(none(format!("{name} is too large")));
        }
        let (size, mut bytes) = (entry.size(), Vec::new());
        entry.take(LONGEST).read_to_end(&mut bytes).map_err(|e| fault(path, "is truncated", e))?;
        match bytes.len() as u64 == size {
            true => Ok(bytes),
            false => Err(fault(path, "is truncated", format!("it ends in {name}"))),
        }
    };
    let bytes = next(CONTENTS)?;
    let signature = String::from_utf8_lossy(&next(SIGNATURE)?).into_owned();
    let number = String::from_utf8_lossy(&next(NUMBER)?).trim().parse::<usize>().unwrap_or_default();
    let number =
        number.checked_sub(1).ok_or_else(|| fault(path, "is no part of a bundle", "it has no number"))?;
    Ok(Header { bytes, signature, number })
}

impl Header {
    /// Believes it, where a trusted key has signed it.
    pub fn trust(self, path: &Path, trusted: &Trusted) -> Result<Part, Fault> {
        if !trusted.signed(&self.bytes, &self.signature) {
            return Err(Fault::new(
                Kind::Denied,
                format!("{} is not signed by a trusted key", path.display()),
            )
            .why("it was changed on its way, or somebody else made it")
            .remains("nothing of the bundle is visible in the registry")
            .next("--key is the public key that create-bundle has printed; else copy that part anew"));
        }
        let contents: Contents = serde_json::from_slice(&self.bytes)
            .map_err(|e| fault(path, "is of a bundle that this version does not know", e))?;
        if !contents.is_sound() || self.number >= contents.parts.len() {
            return Err(fault(
                path,
                "is of a bundle that makes no sense",
                "a name or number in it leads elsewhere",
            ));
        }
        Ok(Part { id: Contents::id(&self.bytes), number: self.number, contents })
    }
}

impl Part {
    pub fn open(path: &Path, trusted: &Trusted) -> Result<Part, Fault> {
        header(path)?.trust(path, trusted)
    }

    /// Gives `take` each piece of the part in turn; what it does not read is skipped unless `all`. Whatever was read to its end
    /// is what was signed, or an error.
    pub fn each(
        &self,
        path: &Path,
        all: bool,
        mut take: impl FnMut(&Signed, &mut dyn Read) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut archive = Archive::new(open(path)?);
        // What is skipped need not be read.
        let mut entries = archive.entries_with_seek().map_err(|e| fault(path, "cannot be read", e))?;
        read_header(path, &mut entries)?;
        for signed in &self.contents.parts[self.number] {
            let name = self.contents.name(signed).unwrap_or_default();
            let entry = match entries.next() {
                Some(Ok(entry)) => entry,
                Some(Err(e)) => return Err(fault(path, "is damaged", e).into()),
                None => return Err(fault(path, "is truncated", format!("{name} is missing")).into()),
            };
            if *entry.path_bytes() != *name.as_bytes() || entry.size() != signed.piece.length {
                let why =
                    format!("{:?} is where {name} should be", entry.path_bytes().escape_ascii().to_string());
                return Err(fault(path, "is damaged", why).into());
            }
            let mut checked = Checked::new(entry);
            let mut counted = Counted { inner: &mut checked, read: 0 };
            take(signed, &mut counted)?;
            if all {
                std::io::copy(&mut counted, &mut std::io::sink())
                    .map_err(|e| fault(path, "cannot be read", e))?;
            }
            let read = counted.read;
            if read == 0 && signed.piece.length > 0 && !all {
                continue;
            }
            if read < signed.piece.length {
                return Err(fault(path, "is truncated", format!("it ends in {name}")).into());
            }
            if checked.digest() != signed.digest {
                let why = format!("{name} is not what was signed");
                return Err(fault(path, "is damaged", why).into());
            }
        }
        match entries.next() {
            None => Ok(()),
            Some(_) => Err(fault(path, "is damaged", "there is more in it than was signed").into()),
        }
    }
}

/// Counts what is read.
struct Counted<'a, R> {
    inner: &'a mut R,
    read: u64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}
