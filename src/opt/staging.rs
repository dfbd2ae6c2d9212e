//! Directories in which a person's own git puts a checkout, on the store's filesystem, so that moving it into a volume
//! copies nothing.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::beneath::{self, Inner};
use super::layer::{names, unused};
use super::person::Person;
use super::store::{Store, directory};
use super::tree;

/// A directory of one person, removed when this is dropped.
pub struct Staging {
    path: PathBuf,
    parent: OwnedFd,
    name: String,
    pub(super) handle: OwnedFd,
}

impl Store {
    /// Makes `<root>/staging/<random>/`, which belongs to the person and which nobody else may enter.
    pub fn staging(&self, person: &Person) -> Result<Staging> {
        let place = self.config.storage.join("staging");
        let make = || -> Result<Staging> {
            let parent = directory(&place)?;
            let name = unused();
            rustix::fs::mkdirat(&parent, &name, Mode::RWXU)?;
            let inner = Inner::parse(name.as_bytes())?;
            let handle = beneath::open(&parent, &inner, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let path = place.join(&name);
            let staging = Staging { path, parent, name, handle };
            let (uid, gid) = (Uid::from_raw(person.uid), Gid::from_raw(person.gid));
            rustix::fs::fchown(&staging.handle, Some(uid), Some(gid))?;
            Ok(staging)
        };
        make().context("make a staging directory").map_err(|e| self.explain(e))
    }

    /// Removes what a crash left. Returns what could not be removed.
    pub(super) fn clear_staging(&self) -> Result<Vec<anyhow::Error>> {
        let place = self.config.storage.join("staging");
        let handle = directory(&place)?;
        let failed = names(&place)?.into_iter().filter_map(|name| {
            let removed = tree::remove(&handle, &name);
            removed.with_context(|| format!("remove {}", place.join(name).display())).err()
        });
        Ok(failed.collect())
    }
}

impl Staging {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes it now, with all that is in it, and says whether that worked. Blocks.
    pub fn discard(self) -> Result<()> {
        tree::remove(&self.parent, &self.name).with_context(|| format!("remove {}", self.path.display()))
    }
}

impl Drop for Staging {
    /// Blocks for as long as the removal takes.
    fn drop(&mut self) {
        if let Err(e) = tree::remove(&self.parent, &self.name) {
            tracing::warn!("{} is left until the next start: {e}", self.path.display());
        }
    }
}
