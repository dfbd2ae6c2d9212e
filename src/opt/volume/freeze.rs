//! A volume's upper directory becomes a layer that others can share, and the volume goes on with a fresh one.
//!
//! An upper or work directory is never used twice: a frozen one is no upper any more, and each volume's directories are
//! numbered on.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Mode, mkdirat};

use super::overlay::{Places, Remains};
use super::{Kind, Phase, VolumeRecord};
use crate::opt::frozen::Frozen;
use crate::opt::held::Held;
use crate::opt::layer_id::LayerId;
use crate::opt::store::{Store, directory};
use crate::opt::{copy, mounts};
use crate::report::{self, Fault};

impl Store {
    /// A volume's layers, lowest first.
    pub fn layers_of(&self, name: &str) -> Result<Vec<LayerId>> {
        match self.record(name)?.kind {
            Kind::Overlay { layers, .. } => Ok(layers),
            Kind::Bind { .. } => bail!("{name} is a mapped directory and has no layers"),
        }
    }

    /// Keeps a volume's layers from being collected for as long as what is answered is there: others are about to have them.
    pub fn hold_layers(&self, layers: &[LayerId]) -> Result<Vec<Held>> {
        let hold = |layer: &LayerId| {
            let missing =
                || Fault::new(report::Kind::NotFound, format!("the opt layer {layer} is not in the store"));
            Ok(self.layers.hold(layer)?.ok_or_else(missing)?)
        };
        layers.iter().map(hold).collect()
    }

    /// Whether a stack of so many layers has to be made shorter before one more comes onto it.
    pub fn is_high(layers: &[LayerId]) -> bool {
        layers.len() + 1 >= crate::opt::flatten::MOST_LAYERS
    }

    /// Makes the volume's upper directory the layer `layer` on top of `lowers`, which show the same as the volume's own
    /// layers. Answers the new stack, lowest first. Done already, it does nothing. Takes no longer for a large volume.
    ///
    /// # Errors
    /// A [`Fault`] while a container has the volume mounted, or somebody on the host has a file of it open for writing; then
    /// all is as before.
    pub fn freeze(&self, name: &str, layer: &LayerId, lowers: Vec<LayerId>) -> Result<Vec<LayerId>> {
        let changing = self.changing(name);
        let record = self.record(name)?;
        let Kind::Overlay { layers, upper, options } = &record.kind else { bail!("{name} is no overlay") };
        if layers.last() == Some(layer) {
            return Ok(layers.clone());
        }
        check_ready(name, &record)?;
        self.lowers(&lowers)?;
        let stack: Vec<LayerId> = lowers.iter().cloned().chain([layer.clone()]).collect();
        let (old, new) = (self.places(name, *upper), self.places(name, upper + 1));
        self.check_options(&new, &stack, options)?;
        let freeze = || -> Result<()> {
            make_fresh(&new)?;
            self.quieten(name, &old)?;
            crate::failpoint::reach("freeze-unmounted");
            copy::imitate(&directory(&old.upper)?, &directory(&new.upper)?)?;
            let phase = Phase::Freezing { layer: layer.clone(), lowers: lowers.clone() };
            self.put_needing(name, &VolumeRecord { phase, ..record.clone() }, &lowers)?;
            crate::failpoint::reach("freeze-begun");
            let frozen = Frozen { of: name.to_owned(), when: jiff::Timestamp::now() };
            let upper = format!("upper-{upper}");
            self.layers.adopt(directory(&old.home)?, &upper, layer, &frozen)
        };
        let frozen = freeze().with_context(|| format!("freeze the volume {name}"));
        let record = self.record(name)?;
        // Whether it went well or not: what is on disk decides how it goes on.
        let brought = self.bring_back_locked(name, record);
        drop(changing);
        let brought = brought.map(|remains| remains.remove_or_leave(name));
        frozen.map_err(|e| self.explain(e))?;
        brought?;
        self.settle_later();
        Ok(stack)
    }

    /// Gives the volume other layers and a fresh upper directory; what it had of its own is removed.
    ///
    /// # Errors
    /// As for [`Store::freeze`].
    pub fn restack(&self, name: &str, layers: Vec<LayerId>) -> Result<()> {
        let changing = self.changing(name);
        let record = self.record(name)?;
        let Kind::Overlay { upper, options, .. } = &record.kind else { bail!("{name} is no overlay") };
        check_ready(name, &record)?;
        let lowers = self.lowers(&layers)?;
        let (old, new) = (self.places(name, *upper), self.places(name, upper + 1));
        self.check_options(&new, &layers, options)?;
        let restack = || -> Result<()> {
            make_fresh(&new)?;
            let fresh = directory(&new.upper)?;
            match lowers.first() {
                Some(top) => copy::imitate(top, &fresh)?,
                None => drop(super::Upper::new(fresh, Vec::new())?),
            }
            self.quieten(name, &old)?;
            let kind = Kind::Overlay { layers: layers.clone(), upper: upper + 1, options: options.clone() };
            self.put_needing(name, &VolumeRecord { kind, ..record.clone() }, &layers).map(drop)
        };
        let restacked = restack().with_context(|| format!("give the volume {name} other layers"));
        let brought = self.bring_back_locked(name, self.record(name)?);
        drop(changing);
        let brought = brought.map(|remains| remains.remove_or_leave(name));
        restacked.map_err(|e| self.explain(e))?;
        brought
    }

    /// Has a volume as its record says: a freeze that was interrupted is completed or undone, the upper directories of before
    /// are moved away, all is mounted.
    pub(super) fn bring_back(&self, name: &str, record: VolumeRecord) -> Result<Remains> {
        let _changing = self.changing(name);
        self.bring_back_locked(name, record)
    }

    fn bring_back_locked(&self, name: &str, mut record: VolumeRecord) -> Result<Remains> {
        if let (Phase::Freezing { layer, lowers }, Kind::Overlay { layers, upper, .. }) =
            (&record.phase, &mut record.kind)
        {
            // The upper directory has its new name, or it has not.
            if self.layers.has(layer)? && self.layers.tree(layer).is_dir() {
                *layers = lowers.iter().cloned().chain([layer.clone()]).collect();
                *upper += 1;
            }
            record.phase = Phase::Ready;
            self.records.put(name, &record)?;
            crate::failpoint::reach("freeze-ended");
        }
        let Kind::Overlay { upper, .. } = &record.kind else { return Ok(Remains::default()) };
        let places = self.places(name, *upper);
        let others = self.discard_others(&places, *upper)?;
        if mounts::is_read_only(&places.merged)? {
            mounts::unmount_from(&places.merged, true)?;
        }
        self.mount_overlay(name, &record)?;
        self.mount_view(name, &record)?;
        Ok(others)
    }

    /// Moves away the upper and work directories that are not the volume's any more, or not yet.
    fn discard_others(&self, places: &Places, upper: u32) -> Result<Remains> {
        let mut others = Remains::default();
        let own = [format!("upper-{upper}"), format!("work-{upper}")];
        for name in crate::opt::layer::names(&places.home)? {
            if (name.starts_with("upper-") || name.starts_with("work-")) && !own.contains(&name) {
                others.add(self.layers.discard(directory(&places.home)?, &name)?);
            }
        }
        Ok(others)
    }

    /// From here on nobody can change anything in the volume: it is made read-only for those on the host who have
    /// something of it open, and unmounted.
    fn quieten(&self, name: &str, places: &Places) -> Result<()> {
        if !mounts::is_mounted(&places.merged)? {
            return Ok(());
        }
        self.check_unused(name, &places.merged)?;
        let view = self.container_directory(name).join("opt");
        mounts::make_read_only(&places.merged).map_err(|e| {
            Fault::new(report::Kind::Failed, format!("somebody on this host writes below {}", view.display()))
                .why(e.to_string())
                .next(format!(
                    "fuser -vm {} shows who; when they are done, run the same command again",
                    view.display()
                ))
        })?;
        mounts::unmount_from(&view, true)?;
        mounts::unmount_from(&places.merged, true)
    }
}

fn check_ready(name: &str, record: &VolumeRecord) -> Result<()> {
    match record.phase {
        Phase::Ready => Ok(()),
        _ => {
            let what = format!("the volume {name} is being made, frozen or removed");
            Err(Fault::new(report::Kind::Failed, what).next("run the same command again").into())
        }
    }
}

/// Makes an upper and a work directory that were never used; what has their names was never mounted.
fn make_fresh(places: &Places) -> Result<()> {
    let home = directory(&places.home)?;
    for path in [&places.upper, &places.work] {
        let name = path.file_name().and_then(|name| name.to_str()).context("a directory needs a name")?;
        crate::opt::tree::remove(&home, name)?;
        mkdirat(&home, name, Mode::RWXU).with_context(|| format!("make {}", Path::display(path)))?;
    }
    Ok(())
}
