//! Mounting when Docker asks: before each start of a container, after a reboot too.

use std::path::PathBuf;
use std::sync::PoisonError;
use std::time::Duration;

use anyhow::Result;

use super::{Kind, Phase};
use crate::opt::busy::Changing;
use crate::opt::mounts;
use crate::opt::store::{Store, check_name};
use crate::report::{self, Fault};

/// How long dockerd waits for another's change of the same volume to end. It holds locks of its own meanwhile.
const PATIENCE: Duration = Duration::from_secs(25);

impl Store {
    /// Mounts a volume for the use `id`, unless it is mounted, and says where.
    pub(in crate::opt) fn mount_for_docker(&self, name: &str, id: &str) -> Result<PathBuf> {
        // Opened before the lock: a source on a dead network disk holds nobody else up.
        let source = self.open_bind(&self.record(name)?)?;
        let _changing = self.changing_for_docker(name)?;
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
        check_name(name)?;
        let Some(record) = self.records.get(name)? else { return Ok(()) };
        if let Kind::Bind { .. } = record.kind {
            let _changing = self.changing_for_docker(name)?;
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

    fn changing_for_docker(&self, name: &str) -> Result<Changing<'_>> {
        let busy = || {
            Fault::new(report::Kind::TimedOut, format!("the volume {name} is being changed"))
                .why(format!("that is not over after {} seconds", PATIENCE.as_secs()))
                .next("list-containers shows when it is; then start the container again")
        };
        Ok(self.busy.begin_within(name, PATIENCE).ok_or_else(busy)?)
    }
}
