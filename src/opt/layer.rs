//! Layers on disk: one immutable tree per archive, made wholly or not at all, and the record that says what it is.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, anyhow, ensure};
use rustix::fs::{Mode, OFlags, Stat, mkdirat, renameat, renameat_with, syncfs};
use serde::{Deserialize, Serialize};

use super::beneath::{self, Inner};
use super::frozen::Frozen;
use super::held::{Held, Holds};
use super::layer_id::LayerId;
use super::{mounts, tree};
use crate::spec::Digest;
use crate::state::Records;

/// What an extraction wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tree {
    /// Everything but directories.
    pub files: u64,
    /// Sum of the files' sizes.
    pub bytes: u64,
}

/// An archive that is in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Of the archive as it was published, compressed.
    pub digest: Digest,
    /// The URL it came from.
    pub source: String,
    pub bytes: u64,
    pub files: u64,
    pub when: jiff::Timestamp,
    /// It came from the network, so whoever knows its digest may have it. Otherwise each person has to show that
    /// they can read the file.
    pub public: bool,
    /// The boot it was made in, until all of it is known to be on disk. After another boot it may have holes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsettled: Option<String>,
    /// As long as this, or a clone of it, is there, the layer is not collected.
    #[serde(skip)]
    pub held: Held,
}

impl Layer {
    pub fn id(&self) -> LayerId {
        LayerId::of(&self.digest)
    }
}

/// What tells, without reading it, that a file is the one whose digest was taken: (stat(2); ctime cannot be set back).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, u64),
    changed: (i64, u64),
}

impl Identity {
    pub fn of(stat: &Stat) -> Identity {
        Identity {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, stat.st_mtime_nsec),
            changed: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }

    /// Whether a change after now would show: file times move in the kernel's ticks, 10 ms at most.
    pub fn is_settled(&self, now: jiff::Timestamp) -> bool {
        let changed = i128::from(self.changed.0) * 1_000_000_000 + i128::from(self.changed.1);
        now.as_nanosecond() - changed > 100_000_000
    }

    fn key(&self) -> String {
        format!("{:x}-{:x}", self.device, self.inode)
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    identity: Identity,
    digest: Digest,
}

pub struct Layers {
    /// `<root>/.store`.
    pub(super) directory: PathBuf,
    pub(super) handle: OwnedFd,
    pub(super) records: Records<Layer>,
    pub(super) frozen: Records<Frozen>,
    /// Held while a record is read and written again, while a volume's record begins to name layers, and while it is found
    /// out which of them nothing names. Short: nothing is mounted, removed or brought to disk under it but records.
    changing: Mutex<()>,
    pub(super) holds: Holds,
    files: Records<Known>,
}

/// A directory that becomes a layer, or is removed when it is dropped.
pub struct Partial<'a> {
    layers: &'a Layers,
    name: String,
    done: bool,
}

impl Layers {
    /// Opens the layers of a store and moves away what a crash left half-made.
    pub fn open(directory: &Path) -> Result<(Layers, Leftovers)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let handle = rustix::fs::open(directory, flags, Mode::empty())
            .with_context(|| format!("open {}", directory.display()))?;
        let records: Records<Layer> = Records::open(directory.join("layers"))?;
        let files = Records::open(directory.join("files"))?;
        let frozen = Records::open(directory.join("frozen"))?;
        let changing = Mutex::default();
        let (directory, holds) = (directory.to_owned(), Holds::default());
        let layers = Layers { directory, handle, records, frozen, changing, holds, files };
        let left = layers.clear()?;
        Ok((layers, left))
    }

    fn clear(&self) -> Result<Leftovers> {
        let mut left = Leftovers::default();
        let discard = |name: &str| self.discard(self.place("layers")?, name);
        for name in names(&self.directory.join("partial"))? {
            for view in ["full", "base"] {
                mounts::unmount_from(&self.directory.join("partial").join(&name).join(view), true)?;
            }
            left.take(self.partial().map(|place| Discarded(Some((place, name)))));
        }
        // A record is written after its tree and removed before it: a tree alone is half a layer, a record alone none.
        let known = self.records.all()?;
        for name in names(&self.directory.join("layers"))? {
            let is_known = known.iter().any(|(key, _)| *key == name) || self.frozen.get(&name)?.is_some();
            if !name.contains('.') && !is_known {
                left.take(discard(&name));
            }
        }
        let boot = boot()?;
        for (key, layer) in known {
            let lost = layer.unsettled.is_some_and(|made_in| made_in != boot);
            if lost {
                self.records.remove(&key)?;
                left.take(discard(&key));
                let name = &layer.source;
                left.problems.push(anyhow!(
                    "the host went down before {name} was on disk: it has to be fetched again"
                ));
            } else if !self.directory.join("layers").join(&key).is_dir() {
                self.records.remove(&key)?;
            }
        }
        self.forget_unfrozen()?;
        Ok(left)
    }

    pub(super) fn changing(&self) -> MutexGuard<'_, ()> {
        // It guards no data of its own: what a panic left is what a crash would have left.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings new layers to disk, and notes that they are. Blocks for as long as the disk takes.
    pub fn settle(&self) -> Result<()> {
        let all = self.records.all()?;
        let new: Vec<String> =
            all.into_iter().filter(|(_, layer)| layer.unsettled.is_some()).map(|(key, _)| key).collect();
        if new.is_empty() {
            return Ok(());
        }
        syncfs(&self.handle).context("bring the layers to disk")?;
        for key in new {
            let _changing = self.changing();
            if let Some(layer) = self.records.get(&key)? {
                self.records.put(&key, &Layer { unsettled: None, ..layer })?;
            }
        }
        Ok(())
    }

    /// The layer of exactly this digest.
    pub fn get(&self, digest: &Digest) -> Result<Option<Layer>> {
        let Some(layer) = self.records.get(LayerId::of(digest).as_str())? else { return Ok(None) };
        ensure!(
            layer.digest == *digest,
            "{digest} and {} begin alike; only one of them can be in a store",
            layer.digest
        );
        Ok(Some(layer))
    }

    pub fn all(&self) -> Result<Vec<Layer>> {
        Ok(self.records.all()?.into_iter().map(|(_, layer)| layer).collect())
    }

    /// Keeps the layer from being collected from now on; `None` where it is not there any more.
    pub fn hold(&self, layer: &LayerId) -> Result<Option<Held>> {
        let _changing = self.changing();
        Ok(self.has(layer)?.then(|| self.holds.hold(layer)))
    }

    /// Keeps a layer that is about to be made from being collected, from its first moment on.
    pub fn hold_new(&self, layer: &LayerId) -> Held {
        // Whoever collects has asked what is held before, or sees it.
        let _changing = self.changing();
        self.holds.hold(layer)
    }

    /// The digest of a file that has been read before and has not changed since.
    pub fn digest_of(&self, identity: &Identity) -> Result<Option<Digest>> {
        let known = self.files.get(&identity.key())?;
        Ok(known.filter(|known| known.identity == *identity).map(|known| known.digest))
    }

    pub fn remember(&self, identity: Identity, digest: Digest) -> Result<()> {
        self.files.put(&identity.key(), &Known { identity, digest })
    }

    /// A new empty directory to extract to.
    pub fn begin(&self) -> Result<Partial<'_>> {
        let name = unused();
        mkdirat(&self.handle, format!("partial/{name}"), Mode::RWXU)
            .context("make a directory to extract to")?;
        Ok(Partial { layers: self, name, done: false })
    }

    /// Moves the directory `name` of `from` where the next clearing removes it, and removes it. From the move on it is
    /// gone for everybody; a crash in between costs only the space until the next start.
    pub fn discard(&self, from: impl AsFd, name: &str) -> Result<Discarded> {
        let trash = unused();
        match renameat(from, name, &self.handle, format!("partial/{trash}")) {
            Ok(()) => Ok(Discarded(Some((self.partial()?, trash)))),
            Err(rustix::io::Errno::NOENT) => Ok(Discarded(None)),
            Err(e) => Err(e).with_context(|| format!("move {name} away")),
        }
    }

    fn partial(&self) -> Result<OwnedFd> {
        Ok(beneath::handle(&self.handle, &Inner::parse(b"partial")?)?)
    }
}

/// What a start finds of what the last one left: trees that are moved away and still to be removed, which may take long,
/// and what was not possible.
#[derive(Default)]
pub struct Leftovers {
    pub trees: Vec<Discarded>,
    pub problems: Vec<anyhow::Error>,
}

impl Leftovers {
    pub fn take(&mut self, moved: Result<Discarded>) {
        match moved {
            Ok(tree) => self.trees.push(tree),
            Err(e) => self.problems.push(e),
        }
    }
}

/// Something moved away, to be removed when there is time for it.
#[must_use]
pub struct Discarded(Option<(OwnedFd, String)>);

impl Discarded {
    /// There was nothing to move away.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn remove(self) -> Result<()> {
        match self.0 {
            Some((place, name)) => tree::remove(place, &name).with_context(|| format!("remove {name}")),
            None => Ok(()),
        }
    }
}

impl Partial<'_> {
    pub fn handle(&self) -> Result<OwnedFd> {
        let path = Inner::parse(format!("partial/{}", self.name).as_bytes())?;
        Ok(beneath::open(&self.layers.handle, &path, OFlags::RDONLY | OFlags::DIRECTORY)?)
    }

    /// Makes it the layer: the name first, then the record. A crash of ours leaves nothing half-made by that. For a crash
    /// of the host the record says that the layer is not settled: waiting here for a gigabyte to be on disk would take
    /// longer than all the rest.
    pub fn commit(mut self, layer: Layer) -> Result<Layer> {
        let short = layer.id().to_string();
        let layer = Layer { unsettled: Some(boot()?), ..layer };
        let _changing = self.layers.changing();
        if let Some(mut existing) = self.layers.get(&layer.digest)? {
            existing.public |= layer.public;
            self.layers.records.put(&short, &existing)?;
            return Ok(existing);
        }
        let (from, to) = (format!("partial/{}", self.name), format!("layers/{short}"));
        let handle = &self.layers.handle;
        renameat_with(handle, from, handle, to, rustix::fs::RenameFlags::NOREPLACE)
            .context("give the layer its name")?;
        self.done = true;
        self.layers.records.put(&short, &layer)?;
        Ok(layer)
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let removed = self.layers.partial().and_then(|place| Ok(tree::remove(place, &self.name)?));
        if let Err(e) = removed {
            tracing::warn!("partial/{} is left until the next start: {e:#}", self.name);
        }
    }
}

/// What tells this boot of the host from every other (random(4)).
fn boot() -> Result<String> {
    let file = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(file).with_context(|| format!("read {file}"))?.trim().to_owned())
}

/// A name nobody guesses.
pub fn unused() -> String {
    format!("{:016x}", rand::random::<u64>())
}

pub fn names(directory: &Path) -> Result<Vec<String>> {
    let list = || -> std::io::Result<Vec<String>> {
        std::fs::read_dir(directory)?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    };
    list().with_context(|| format!("list {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(place: &Path) -> (Layers, Leftovers) {
        for name in ["layers", "partial", "files", "frozen", "seals"] {
            std::fs::create_dir_all(place.join(name)).unwrap();
        }
        Layers::open(place).unwrap()
    }

    fn layer() -> Layer {
        Layer {
            digest: Digest([7; 32]),
            source: "file:///a.tar".into(),
            bytes: 1,
            files: 1,
            when: jiff::Timestamp::UNIX_EPOCH,
            public: false,
            unsettled: None,
            held: Held::default(),
        }
    }

    #[test]
    fn a_layer_is_settled_once_it_is_on_disk() {
        let place = tempfile::tempdir().unwrap();
        let (open, _) = layers(place.path());
        let made = open.begin().unwrap().commit(layer()).unwrap();
        assert_eq!(made.unsettled, Some(boot().unwrap()));
        // A restart of the daemon loses nothing.
        drop(open);
        let (open, left) = layers(place.path());
        assert!(left.problems.is_empty() && left.trees.is_empty());
        assert_eq!(open.get(&made.digest).unwrap(), Some(made));
        open.settle().unwrap();
        assert_eq!(open.get(&layer().digest).unwrap(), Some(layer()));
    }

    #[test]
    fn a_layer_that_was_not_on_disk_when_the_host_went_down_is_gone() {
        let place = tempfile::tempdir().unwrap();
        let (open, _) = layers(place.path());
        let made = open.begin().unwrap().commit(layer()).unwrap();
        open.records.put(made.id().as_str(), &Layer { unsettled: Some("before".into()), ..layer() }).unwrap();
        drop(open);
        let (open, left) = layers(place.path());
        assert!(left.problems[0].to_string().contains("file:///a.tar"));
        assert_eq!(open.get(&made.digest).unwrap(), None);
        assert!(!open.tree(&made.id()).exists());
        open.begin().unwrap().commit(layer()).unwrap();
    }

    #[test]
    fn two_digests_that_begin_alike_are_told_apart() {
        let place = tempfile::tempdir().unwrap();
        let (open, _) = layers(place.path());
        open.begin().unwrap().commit(layer()).unwrap();
        let mut other = [7; 32];
        other[31] = 8;
        assert!(open.get(&Digest(other)).is_err());
        assert!(open.begin().unwrap().commit(Layer { digest: Digest(other), ..layer() }).is_err());
        assert!(names(&place.path().join("partial")).unwrap().is_empty());
    }
}
