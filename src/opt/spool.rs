//! What has come of an archive from the network, as it was sent: a transfer that broke off, or whose daemon was killed,
//! goes on behind it.
//!
//! A spool is never believed: the archive's digest is looked at before a layer is made of it. So nobody waits for its bytes
//! to be safe on disk, and what a power cut makes of them costs another transfer at the worst.
//!
//! It is written past the page cache: hardly ever is it read, and memory is for what containers read.

mod block;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::spec::Digest;
use block::Block;

/// Where the server's word for this state of the archive is kept: a strong ETag, or a date (RFC 9110, 13.1.5).
const VALIDATOR: &str = "trusted.moorage.validator";
/// The length of the whole archive, bytes, as the server has said it: decimal digits.
const LENGTH: &str = "trusted.moorage.length";

/// What has come and is not in the file yet.
struct Coming {
    block: Block,
    /// Where in the file the block begins.
    at: u64,
}

/// The file of one archive. One fetch at a time has it.
pub struct Spool {
    path: PathBuf,
    file: File,
    /// The same past the page cache, where the filesystem can do that.
    direct: Option<File>,
    /// Bytes in the file.
    have: AtomicU64,
    coming: Mutex<Coming>,
    stale: AtomicBool,
}

impl Spool {
    /// Opens what is there of an archive in `directory`, or begins with nothing.
    pub fn open(directory: &Path, digest: &Digest) -> Result<Spool> {
        let path = directory.join(digest.hex());
        let open = || -> io::Result<(File, u64)> {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            let file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&path)?;
            // Its time is when somebody last wanted it.
            file.set_modified(std::time::SystemTime::now())?;
            let have = file.metadata()?.len();
            Ok((file, have))
        };
        let (file, have) = open().with_context(|| format!("open {}", path.display()))?;
        let past_the_cache = (OFlags::NOFOLLOW | OFlags::DIRECT).bits().cast_signed();
        let direct = File::options().write(true).custom_flags(past_the_cache).open(&path).ok();
        let coming = Mutex::new(Coming { block: Block::new(), at: have });
        Ok(Spool { path, file, direct, have: have.into(), coming, stale: false.into() })
    }

    /// Bytes that are here.
    pub fn have(&self) -> u64 {
        self.have.load(Ordering::Acquire)
    }

    /// Adds what came next. It is here for sure only after [`Spool::flush`].
    pub fn append(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut coming = self.coming();
        if coming.block.bytes().is_empty() {
            // What is behind the last place that a block may begin at is written once more with what comes.
            coming.at = Block::aligned(self.have());
            let mut rest = vec![0; usize::try_from(self.have() - coming.at).unwrap_or_default()];
            self.file.read_exact_at(&mut rest, coming.at)?;
            coming.block.fill(&rest);
        }
        while !bytes.is_empty() {
            let taken = coming.block.fill(bytes);
            bytes = &bytes[taken..];
            if coming.block.is_full() {
                self.write(&coming)?;
                coming.at = self.have();
                coming.block.clear();
            }
        }
        Ok(())
    }

    /// Writes what has come.
    pub fn flush(&self) -> io::Result<()> {
        let mut coming = self.coming();
        if !coming.block.bytes().is_empty() {
            self.write(&coming)?;
            coming.block.clear();
        }
        Ok(())
    }

    fn coming(&self) -> MutexGuard<'_, Coming> {
        self.coming.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, coming: &Coming) -> io::Result<()> {
        let (bytes, at) = (coming.block.bytes(), coming.at);
        let direct = self.direct.as_ref().filter(|_| coming.block.is_full());
        match direct.map(|direct| direct.write_all_at(bytes, at)) {
            Some(Ok(())) => {}
            // A disk that asks for more than blocks have.
            Some(Err(e)) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                self.file.write_all_at(bytes, at)?;
            }
            Some(Err(e)) => return Err(e),
            None => self.file.write_all_at(bytes, at)?,
        }
        self.have.store(at + bytes.len() as u64, Ordering::Release);
        Ok(())
    }

    pub fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        self.file.read_at(into, at)
    }

    /// Begins with nothing again.
    pub fn clear(&self) -> Result<()> {
        self.stale.store(false, Ordering::Relaxed);
        self.coming().block.clear();
        self.have.store(0, Ordering::Release);
        self.file.set_len(0).with_context(|| format!("empty {}", self.path.display()))?;
        self.describe(None, None);
        Ok(())
    }

    /// What is here is no part of what the server has now.
    pub fn mark_stale(&self) {
        self.stale.store(true, Ordering::Relaxed);
    }

    pub fn is_stale(&self) -> bool {
        self.stale.load(Ordering::Relaxed)
    }

    pub fn validator(&self) -> Option<String> {
        self.word(VALIDATOR)
    }

    /// Whether all of the archive is here, by what the server has said of it.
    pub fn is_whole(&self) -> bool {
        let length = self.word(LENGTH).and_then(|length| length.parse::<u64>().ok());
        length.is_some_and(|length| length > 0 && length == self.have())
    }

    /// Keeps what the server says of the archive. Where it cannot be kept, the digest alone says whether the bytes belong
    /// together.
    pub fn describe(&self, validator: Option<&str>, length: Option<u64>) {
        self.keep(VALIDATOR, validator);
        self.keep(LENGTH, length.map(|length| length.to_string()).as_deref());
    }

    fn word(&self, name: &str) -> Option<String> {
        let value = xattr::FileExt::get_xattr(&self.file, name).ok()??;
        String::from_utf8(value).ok()
    }

    fn keep(&self, name: &str, word: Option<&str>) {
        let kept = match word {
            Some(word) => xattr::FileExt::set_xattr(&self.file, name, word.as_bytes()),
            None => match xattr::FileExt::get_xattr(&self.file, name) {
                Ok(Some(_)) => xattr::FileExt::remove_xattr(&self.file, name),
                _ => Ok(()),
            },
        };
        if let Err(e) = kept {
            tracing::debug!("{}: {e}", self.path.display());
        }
    }

    /// It is not needed any more.
    pub fn remove(&self) -> Result<()> {
        remove(&self.path)
    }
}

/// What is kept of one archive that is not a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spooled {
    /// Hexadecimal.
    pub digest: String,
    /// On disk.
    pub bytes: u64,
    /// When somebody last wanted it.
    pub when: jiff::Timestamp,
}

/// All spools of `directory`.
pub fn all(directory: &Path) -> Result<Vec<Spooled>> {
    let mut found = Vec::new();
    for name in super::layer::names(directory)? {
        let metadata = match directory.join(&name).symlink_metadata() {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e).with_context(|| format!("look at {}", directory.join(name).display())),
        };
        let when = jiff::Timestamp::new(metadata.mtime(), 0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        found.push(Spooled { digest: name, bytes: metadata.blocks() * 512, when });
    }
    Ok(found)
}

pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_is_there_again() {
        let place = tempfile::tempdir().unwrap();
        let digest = Digest([7; 32]);
        let spool = Spool::open(place.path(), &digest).unwrap();
        assert_eq!((spool.have(), spool.validator()), (0, None));
        spool.describe(Some("\"v1\""), Some(6));
        spool.append(b"one").unwrap();
        spool.flush().unwrap();
        assert_eq!(spool.have(), 3);
        assert!(!spool.is_whole());
        spool.append(b"two").unwrap();
        spool.flush().unwrap();
        drop(spool);
        let spool = Spool::open(place.path(), &digest).unwrap();
        assert_eq!((spool.have(), spool.validator().as_deref()), (6, Some("\"v1\"")));
        assert!(spool.is_whole());
        let mut bytes = [0; 3];
        assert_eq!(spool.read_at(&mut bytes, 3).unwrap(), 3);
        assert_eq!(&bytes, b"two");
        assert_eq!(all(place.path()).unwrap()[0].digest, digest.hex());
        spool.mark_stale();
        spool.clear().unwrap();
        assert!(!spool.is_stale() && !spool.is_whole());
        assert_eq!((spool.have(), spool.validator()), (0, None));
        spool.remove().unwrap();
        spool.remove().unwrap();
        assert!(all(place.path()).unwrap().is_empty());
    }

    #[test]
    fn however_it_comes_it_is_the_same_behind_what_is_there() {
        let place = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..5_000_000u32).map(|n| (n % 251) as u8).collect();
        let mut from = 0;
        for until in [0, 1, 4095, 4096, 5000, 1 << 20, (1 << 20) + 1, 3_500_000, 5_000_000] {
            // Each time another daemon, which goes on where the one before was.
            let spool = Spool::open(place.path(), &Digest([8; 32])).unwrap();
            assert_eq!(spool.have(), from as u64);
            for piece in bytes[from..until].chunks(70_001) {
                spool.append(piece).unwrap();
            }
            spool.flush().unwrap();
            assert_eq!(spool.have(), until as u64);
            let mut found = vec![0; until];
            spool.file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == bytes[..until], "up to {until}");
            from = until;
        }
    }
}
