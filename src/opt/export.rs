//! What layers make together, to be read by whoever carries it elsewhere.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, mkdirat};

use super::held::Held;
use super::layer::{Layers, unused};
use super::layer_id::LayerId;
use super::mounts;
use super::store::Store;

/// A stack of layers, mounted read-only where only root gets, until this is dropped.
pub struct Exported {
    layers: Arc<Layers>,
    name: String,
    _held: Vec<Held>,
}

impl Store {
    /// Mounts the layers, lowest first. They are not collected meanwhile.
    pub fn export(&self, layers: &[LayerId]) -> Result<Exported> {
        let held = self.hold_layers(layers)?;
        let name = unused();
        mkdirat(&self.layers.place("partial")?, &name, Mode::RWXU).context("make a place to mount at")?;
        let exported = Exported { layers: self.layers.clone(), name, _held: held };
        self.stack(&exported.place(), VIEW, layers).context("mount the layers")?;
        Ok(exported)
    }
}

/// As `flatten` calls it, so that a start after a crash unmounts it.
const VIEW: &str = "full";

impl Exported {
    fn place(&self) -> PathBuf {
        self.layers.directory.join("partial").join(&self.name)
    }

    /// The tree.
    pub fn path(&self) -> PathBuf {
        self.place().join(VIEW)
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        let clear = |view: &Path| -> Result<()> {
            mounts::unmount_from(view, true)?;
            Ok(super::tree::remove(self.layers.place("partial")?, &self.name)?)
        };
        if let Err(e) = clear(&self.path()) {
            tracing::warn!("{} is left until the next start: {e:#}", self.place().display());
        }
    }
}
