//! Mounting when Docker asks: before each start of a container, after a reboot too.

use std::path::PathBuf;
use std::sync::PoisonError;

use anyhow::Result;

use super::{Kind, Phase};
use crate::opt::mounts;
use crate::opt::store::{Store, check_name};
use crate::report::{self, Fault};

impl Store {
    /// Mounts a volume for the use `id`, unless it is mounted, and says where.
    pub(in crate::opt) fn mount_for_docker(&self, name: &str, id: &str) -> Result<PathBuf> {
        // Opened before the lock: a source on a dead network disk holds nobody else up.
        let source = self.open_bind(&self.record(name)?)?;
        let _changing = self.changing();
        let record = self.record(name)?;
        if record.phase != Phase::Ready {
            let what = format!("the volume {name} is not ready: it is being made or removed");
            return Err(Fault::new(report::Kind::Failed, what).into());
        }
        match source {
            None => {
                self.mount_overlay(name, &record)?;
                // The container can do without what its owner sees of it from outside.
                if let Err(e) = self.mount_view(name, &record) {
                    tracing::warn!("the view of {name}: {e:#}");
                }
            }
            Some(source) => {
                self.mount_bind(name, &record, &source)?;
                let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
                let uses = bound.entry(name.to_owned()).or_default();
                if !uses.iter().any(|known| known == id) {
                    uses.push(id.to_owned());
                }
            }
        }
        Ok(self.mountpoint(name, &record))
    }

    /// Ends the use `id`. An overlay stays mounted, because its owner's view must; a bind goes with its last use, since
    /// another container may be between its Mount and its start.
    pub(in crate::opt) fn unmount_for_docker(&self, name: &str, id: &str) -> Result<()> {
        let _changing = self.changing();
        check_name(name)?;
        let Some(record) = self.records.get(name)? else { return Ok(()) };
        if let Kind::Bind { .. } = record.kind {
            let mut bound = self.bound.lock().unwrap_or_else(PoisonError::into_inner);
            let uses = bound.entry(name.to_owned()).or_default();
            uses.retain(|known| known != id);
            if uses.is_empty() {
                bound.remove(name);
                mounts::unmount_from(&self.mountpoint(name, &record), true)?;
            }
        }
        Ok(())
    }
}
