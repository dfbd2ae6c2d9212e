//! What containers leave when they are gone and others may still need: committed root filesystems, frozen layers.
//! Whether one is needed is asked of the records, each time anew.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;

use super::record::random_hex;
use super::snapshot::Snapshot;
use super::{Host, Record, build};
use crate::opt::Needs;
use crate::state::Records;

/// Keys that are in use although no record names them. A crash lets go of them all, and nobody is left to need them.
#[derive(Debug, Clone, Default)]
pub struct Holds(Arc<Mutex<BTreeSet<String>>>);

/// A key for a root filesystem to be committed under, kept for as long as this is there.
pub struct HeldKey {
    pub key: String,
    holds: Holds,
}

impl Holds {
    fn keys(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A key that an image has which came from elsewhere.
    pub fn hold(&self, key: &str) -> HeldKey {
        self.keys().insert(key.to_owned());
        HeldKey { key: key.to_owned(), holds: self.clone() }
    }

    /// A key that nobody has.
    pub fn unused(&self) -> HeldKey {
        let key = random_hex::<12>();
        self.keys().insert(key.clone());
        HeldKey { key, holds: self.clone() }
    }
}

impl Drop for HeldKey {
    fn drop(&mut self) {
        self.holds.keys().remove(&self.key);
    }
}

/// What snapshots need of the store beside the volumes.
pub fn needs(snapshots: &Records<Snapshot>) -> Result<Needs> {
    let snapshots = snapshots.all()?;
    let layers = snapshots.into_iter().flat_map(|(_, snapshot)| snapshot.layers).collect();
    Ok(Needs { layers, ..Needs::default() })
}

/// Removes the committed root filesystems and the layers frozen from volumes that nothing needs any more.
pub async fn collect(host: &Host) -> Result<()> {
    // The images first, then what is held: whoever lets go of a key has written a record that names it.
    let here = host.engine.roots().await?;
    let held = host.held_roots.keys().clone();
    let of_record = |(_, record): (String, Record)| record.root.map(|root| root.key);
    let mut needed: BTreeSet<String> = host.records.all()?.into_iter().filter_map(of_record).collect();
    needed.extend(host.snapshots.all()?.into_iter().map(|(_, snapshot)| snapshot.root.key));
    needed.extend(held);
    for (key, image) in here {
        if !needed.contains(&key) && host.engine.remove_root(&key).await? {
            host.images.remove(image.trim_start_matches("sha256:"))?;
        }
    }
    let (snapshots, opt, limit) = (host.snapshots.clone(), host.opt.clone(), host.config.cache);
    build::blocking(move || {
        opt.collect(|| needs(&snapshots), false)?;
        opt.evict(|| needs(&snapshots), limit)
    })
    .await?;
    Ok(())
}

/// Makes room among the archives that nothing needs, where there is a limit to them. What fails is logged: nobody's
/// container depends on it.
pub async fn make_room(host: &Host) {
    let Some(limit) = host.config.cache else { return };
    let evicted = async {
        let (snapshots, opt) = (host.snapshots.clone(), host.opt.clone());
        build::blocking(move || opt.evict(|| needs(&snapshots), Some(limit))).await
    };
    if let Err(e) = evicted.await {
        tracing::warn!("make room in the store: {e:#}");
    }
}
