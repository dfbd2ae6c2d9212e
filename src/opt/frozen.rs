//! Layers that were a volume's upper directory, or were made of several: their records, and giving them their names.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags, RenameFlags, fsync, renameat_with};
use serde::{Deserialize, Serialize};

use super::layer::Layers;
use super::layer_id::LayerId;

/// What is known of a layer that no archive is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frozen {
    /// The volume whose files it has.
    pub of: String,
    pub when: jiff::Timestamp,
}

impl Layers {
    pub fn has(&self, layer: &LayerId) -> Result<bool> {
        Ok(self.is_archive(layer)? || self.frozen.get(layer.as_str())?.is_some())
    }

    pub fn is_archive(&self, layer: &LayerId) -> Result<bool> {
        Ok(self.records.get(layer.as_str())?.is_some())
    }

    pub fn tree(&self, layer: &LayerId) -> PathBuf {
        self.directory.join("layers").join(layer.as_str())
    }

    /// Bytes of a layer's files; of a frozen one, on disk.
    pub fn bytes(&self, layer: &LayerId) -> Result<u64> {
        match self.records.get(layer.as_str())? {
            Some(archive) => Ok(archive.bytes),
            None => self.disk_bytes(layer),
        }
    }

    /// Bytes that a layer takes on disk. Walks it.
    pub fn disk_bytes(&self, layer: &LayerId) -> Result<u64> {
        let tree = super::store::directory(&self.tree(layer))?;
        super::tree::disk_bytes(tree).with_context(|| format!("measure the layer {layer}"))
    }

    /// Makes the directory `name` of `from` the layer, on disk when this returns. The record goes first: a tree without one
    /// would be cleared away as half an extraction at the next start, a record without a tree is just forgotten.
    pub fn adopt(&self, from: impl AsFd, name: &str, layer: &LayerId, frozen: &Frozen) -> Result<()> {
        self.frozen.put(layer.as_str(), frozen)?;
        crate::failpoint::reach("freeze-recorded");
        let layers = self.place("layers")?;
        renameat_with(&from, name, &layers, layer.as_str(), RenameFlags::NOREPLACE)
            .with_context(|| format!("give the layer {layer} its name"))?;
        crate::failpoint::reach("freeze-renamed");
        fsync(&layers).and_then(|()| fsync(from)).context("bring the new layer's name to disk")
    }

    /// Forgets layers that never got their tree.
    pub(super) fn forget_unfrozen(&self) -> Result<()> {
        for (key, _) in self.frozen.all()? {
            if !self.directory.join("layers").join(&key).is_dir() {
                self.frozen.remove(&key)?;
            }
        }
        Ok(())
    }

    /// A directory of the store, open for reading: only such a one can be brought to disk.
    pub(super) fn place(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat(&self.handle, name, flags, Mode::empty())
            .with_context(|| format!("open {}", self.directory.join(name).display()))
    }
}
