//! Which layers nobody needs, and removing them. What is needed is asked of what there is, each time anew.

use std::collections::BTreeSet;

use anyhow::Result;

use super::layer::names;
use super::layer_id::LayerId;
use super::store::{Store, directory};
use super::volume::{Kind, Phase};
use crate::report::{self, Fault};
use crate::spec::Archive;

/// A layer that nothing needs, or what came of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unneeded {
    pub layer: String,
    /// The archive it came from, or the volume whose files it has.
    pub of: String,
    /// It can be had again from there.
    pub is_archive: bool,
    /// On disk.
    pub bytes: u64,
}

/// What needs layers beside the volumes.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Of snapshots.
    pub layers: BTreeSet<LayerId>,
    /// Archives that are to stay although no volume has them now.
    pub archives: Vec<Archive>,
}

impl Store {
    /// The layers that no volume and none of `needs` has, with what they take on disk. Walks them.
    pub fn unneeded(&self, needs: &Needs) -> Result<Vec<Unneeded>> {
        let mut found = Vec::new();
        let held = self.layers.holds.all();
        for (layer, of, is_archive) in self.candidates(needs, &held)? {
            let bytes = self.layers.disk_bytes(&layer)?;
            found.push(Unneeded { layer: layer.to_string(), of, is_archive, bytes });
        }
        for one in self.unfinished()? {
            let layer = one.digest.chars().take(12).collect();
            let of = "an archive that has not come whole".to_owned();
            found.push(Unneeded { layer, of, is_archive: true, bytes: one.bytes });
        }
        Ok(found)
    }

    /// Removes layers that nothing needs; with `archives`, those that could be fetched again too. Answers how many.
    ///
    /// `needs` is asked while nobody can begin to need a layer: what was read before waiting for that may lack a snapshot
    /// that was taken meanwhile.
    pub fn collect(&self, needs: impl FnOnce() -> Result<Needs>, archives: bool) -> Result<usize> {
        let mut gone = Vec::new();
        {
            // Nobody begins to hold a layer, and no volume to have one, under this lock.
            let _layers = self.layers.changing();
            // What is held first: whoever lets go of a layer has written a record that names it.
            let held = self.layers.holds.all();
            for (layer, _, is_archive) in self.candidates(&needs()?, &held)? {
                if is_archive && !archives {
                    continue;
                }
                // The record goes first: a tree without one is removed at the next start.
                match is_archive {
                    true => self.layers.records.remove(layer.as_str())?,
                    false => self.layers.frozen.remove(layer.as_str())?,
                }
                crate::failpoint::reach("collect-forgotten");
                gone.push(self.layers.discard(directory(&self.inside("layers"))?, layer.as_str())?);
            }
        }
        let mut count = gone.len();
        if archives {
            for one in self.unfinished()? {
                self.drop_spool(&one.digest)?;
                count += 1;
            }
        }
        gone.into_iter().try_for_each(super::layer::Discarded::remove)?;
        Ok(count)
    }

    /// Refuses to tell what is needed while a volume is there whose record is not: nobody knows which layers it needs.
    fn check_records(&self) -> Result<()> {
        // The record comes first and goes last. The second look is for one that went meanwhile.
        for name in names(&self.inside("volumes"))? {
            let (home, records) = (self.inside("volumes").join(&name), self.records.directory());
            if self.records.get(&name)?.is_none() && home.exists() {
                return Err(Fault::new(
                    report::Kind::Missing,
                    format!("the volume {name} has no record: which layers it needs is not known"),
                )
                .why("no layer is removed, of no volume")
                .next(format!(
                    "put {}/{name}.json back from a backup; or, to give the volume up, remove {}",
                    records.display(),
                    home.display()
                ))
                .into());
            }
        }
        Ok(())
    }

    /// Each layer that nothing needs, what it is of, and whether it is an archive's.
    pub(super) fn candidates(
        &self,
        needs: &Needs,
        held: &BTreeSet<LayerId>,
    ) -> Result<Vec<(LayerId, String, bool)>> {
        self.check_records()?;
        let mut needed: BTreeSet<LayerId> = needs.layers.union(held).cloned().collect();
        for (_, record) in self.records.all()? {
            if let Kind::Overlay { layers, .. } = record.kind {
                needed.extend(layers);
            }
            if let Phase::Freezing { layer, lowers } = record.phase {
                needed.extend(lowers);
                needed.insert(layer);
            }
        }
        needed.extend(needs.archives.iter().filter_map(|archive| self.find(archive)).map(|layer| layer.id()));
        let mut found = Vec::new();
        for (_, archive) in self.layers.records.all()? {
            found.push((archive.id(), archive.source, true));
        }
        for (key, frozen) in self.layers.frozen.all()? {
            if let Ok(layer) = LayerId::try_from(key) {
                found.push((layer, frozen.of, false));
            }
        }
        found.retain(|(layer, _, _)| !needed.contains(layer));
        Ok(found)
    }
}
