//! Directories in which a person's own git puts a checkout, on the store's filesystem, so that moving it into a volume
//! copies nothing.
//!
//! ```text
//! <root>/.store/staging/<random>/tree   the directory itself: the person's, but only root gets there
//! <root>/.store/staging/<random>/view   where the mount of it is made
//! <root>/staging/<random>/              where the person sees it
//! ```
//!
//! The person only ever holds the directory through a nosuid mount. A descriptor of it goes with the checkout into the
//! volume, where root in a container may make a setuid program; through that mount it is none.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Gid, Mode, Uid, fchown, mkdirat, unlinkat};
use rustix::io::Errno;

use super::beneath::{self, Inner};
use super::layer::{Discarded, Layers, Leftovers, names, unused};
use super::mounts;
use super::person::Person;
use super::store::{Store, directory};

/// A directory of one person, removed when this is dropped.
pub struct Staging {
    layers: Arc<Layers>,
    name: String,
    /// Where the person sees it, and the directory above.
    path: PathBuf,
    shown: OwnedFd,
    /// `<root>/.store/staging`.
    kept: OwnedFd,
    /// The directory itself, not through the person's mount.
    pub(super) handle: OwnedFd,
}

impl Store {
    /// Makes `<root>/staging/<random>/`, which belongs to the person and which nobody else may enter.
    pub fn staging(&self, person: &Person) -> Result<Staging> {
        let (shown, kept) = (self.config.storage.join("staging"), self.inside("staging"));
        let make = || -> Result<Staging> {
            let name = unused();
            let (path, own) = (shown.join(&name), kept.join(&name));
            let (shown, kept) = (directory(&shown)?, directory(&kept)?);
            mkdirat(&kept, &name, Mode::RWXU)?;
            for part in ["tree", "view"] {
                mkdirat(&kept, format!("{name}/{part}"), Mode::RWXU)?;
            }
            let handle = directory(&own.join("tree"))?;
            mkdirat(&shown, &name, Mode::RWXU)?;
            let target = beneath::handle(&shown, &Inner::parse(name.as_bytes())?)?;
            let staging = Staging { layers: self.layers.clone(), name, path, shown, kept, handle };
            let (uid, gid) = (Uid::from_raw(person.uid), Gid::from_raw(person.gid));
            fchown(&staging.handle, Some(uid), Some(gid))?;
            mounts::view(&own.join("tree"), &own.join("view"), target.as_fd())?;
            Ok(staging)
        };
        make().context("make a staging directory").map_err(|e| self.explain(e))
    }

    /// Moves away what a crash left.
    pub(super) fn clear_staging(&self, left: &mut Leftovers) -> Result<()> {
        let (shown, kept) = (self.config.storage.join("staging"), self.inside("staging"));
        let (shown_handle, kept_handle) = (directory(&shown)?, directory(&kept)?);
        let hide = |name: &str| -> Result<Discarded> {
            mounts::unmount_from(&shown.join(name), true)?;
            self.layers.discard(&shown_handle, name)
        };
        let discard = |name: &str| -> Result<Discarded> {
            mounts::unmount_from(&kept.join(name).join("view"), true)?;
            self.layers.discard(&kept_handle, name)
        };
        let doing = |place: &Path, name: &str| format!("remove {}", place.join(name).display());
        for name in names(&shown)? {
            left.take(hide(&name).with_context(|| doing(&shown, &name)));
        }
        for name in names(&kept)? {
            left.take(discard(&name).with_context(|| doing(&kept, &name)));
        }
        Ok(())
    }
}

impl Staging {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes it out of the person's sight. What they have open in it stays open, through a mount that is nowhere.
    pub(super) fn detach(&self) -> Result<()> {
        mounts::unmount_from(&self.path, true)
    }

    /// Removes it now, with all that is in it, and says whether that worked. Blocks.
    pub fn discard(self) -> Result<()> {
        let remove = || self.move_away()?.remove();
        remove().with_context(|| format!("remove {}", self.path.display()))
    }

    /// Takes little time, however much is in it.
    fn move_away(&self) -> Result<Discarded> {
        self.detach()?;
        match unlinkat(&self.shown, &self.name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(e).with_context(|| format!("remove {}", self.path.display())),
        }
        self.layers.discard(&self.kept, &self.name)
    }
}

impl Drop for Staging {
    /// A thread of its own removes what is in it: that may take long.
    fn drop(&mut self) {
        let path = self.path.clone();
        let left =
            move |e: anyhow::Error| tracing::warn!("{} is left until the next start: {e:#}", path.display());
        match self.move_away() {
            Ok(discarded) if discarded.is_empty() => {}
            Ok(discarded) => {
                let remove = move || discarded.remove().unwrap_or_else(left);
                if let Err(e) = std::thread::Builder::new().name("discard".into()).spawn(remove) {
                    tracing::warn!("what was in {} is left until the next start: {e}", self.path.display());
                }
            }
            Err(e) => left(e),
        }
    }
}
