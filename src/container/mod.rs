//! Dev machines: what they are, and the operations that make, start, stop and remove them.
//!
//! An operation decides on data first (`check`, `diff`, `plan`, `identity` are pure), then acts. Its record holds the
//! intent before the first effect, so that a daemon that was killed finishes or undoes it when it starts again.

pub mod anew;
pub mod check;
pub mod clone;
pub mod diff;
pub mod handed_on;
pub mod identity;
mod last_words;
pub mod lifecycle;
pub mod losses;
pub mod make;
pub mod people;
pub mod plan;
pub mod ready;
pub mod record;
pub mod resize;
pub mod roots;
pub mod runlog;
pub mod settle;
mod slice;
pub mod snapshot;
pub mod undo;
pub mod view;
pub mod walks;

mod build;
pub mod published;
#[cfg(test)]
mod sample;
pub mod throttle;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result};

use crate::engine::{Engine, Image, ImageFacts};
use crate::lan::Lan;
use crate::opt::Store;
use crate::site::host::HostConfig;
use crate::state::Records;

pub use crate::apart::blocking;
pub use people::{Account, Caller};
pub use record::{Cloned, Intent, Lent, Record, Root, Setup, To};

/// The parts an operation works with.
pub struct Host {
    pub config: HostConfig,
    pub engine: Engine,
    pub lan: Arc<Lan>,
    pub opt: Arc<Store>,
    pub records: Records<Record>,
    pub images: Records<ImageFacts>,
    pub snapshots: Records<snapshot::Snapshot>,
    /// Root filesystems that are being committed, and no record names yet.
    pub held_roots: roots::Holds,
    /// Whose turn it is to have trees walked.
    pub walks: walks::Walks,
    /// What makes a MAC of this host differ from another's.
    pub host_id: String,
    /// Rung when something could not be undone now and has to be tried again.
    pub leftovers: tokio::sync::Notify,
    /// Told when a container got other limits.
    pub limits_changed: tokio::sync::watch::Sender<()>,
}

impl Host {
    /// Where the files of container `name` are on the host, for its owner.
    pub fn directory(&self, name: &str) -> PathBuf {
        self.config.storage.join(name)
    }

    /// What is inside an image, read once.
    pub async fn facts(&self, image: &Image) -> Result<ImageFacts> {
        let key = image.id.trim_start_matches("sha256:").to_owned();
        // Only a cache: what cannot be read is looked at again.
        if let Ok(Some(facts)) = self.images.get(&key) {
            return Ok(facts);
        }
        let facts = self.engine.look_into(image).await?;
        self.images.put(&key, &facts)?;
        Ok(facts)
    }
}

/// The id of this host: systemd's machine-id where there is one, else one that we keep.
pub fn host_id(state: &std::path::Path) -> Result<String> {
    let of_system = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if !of_system.trim().is_empty() {
        return Ok(of_system.trim().to_owned());
    }
    let own = state.join("host-id");
    match std::fs::read_to_string(&own) {
        Ok(id) => Ok(id.trim().to_owned()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let id = record::random_hex::<16>();
            crate::state::replace(&own, id.as_bytes())?;
            Ok(id)
        }
        Err(e) => Err(e).with_context(|| format!("read {}", own.display())),
    }
}
