//! The store's marker: that its disk is mounted, that one daemon at a time uses it, and which records are its own.
//!
//! Whether anything in the store is needed is asked of the records. With others, or with none because the disk they are on
//! is not mounted, all of it would seem to be left over and would be removed. So the marker and the records each hold the
//! store's id, and a store that holds something is opened with its own records only.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::layer::{names, unused};
use crate::report::{Fault, Kind};

/// Beside the store's directories.
const MARKER: &str = ".moorage-store";
/// Beside the records of volumes.
const ID: &str = "store-id";

/// The marker of a store at `storage`, whose records are at `state`.
pub struct Marker<'a> {
    pub storage: &'a Path,
    pub state: &'a Path,
}

impl Marker<'_> {
    fn path(&self) -> PathBuf {
        self.storage.join(".store").join(MARKER)
    }

    /// Refuses a store that there must be, because there are volumes, and is not.
    pub fn check_mounted(&self, has_volumes: bool) -> Result<()> {
        let path = self.path();
        if has_volumes && !path.exists() {
            let what = format!("the store's disk is not mounted: {} is missing", path.display());
            return Err(Fault::new(Kind::Missing, what)
                .next(format!("mount the disk that holds {} and start again", self.storage.display()))
                .into());
        }
        Ok(())
    }

    /// Locks the store for as long as what is answered is open, and makes sure that the records are its own.
    pub fn take(&self, has_volumes: bool) -> Result<File> {
        let path = self.path();
        let opened = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let mut marker = opened.with_context(|| format!("open {}", path.display()))?;
        match marker.try_lock() {
            Err(TryLockError::WouldBlock) => {
                let what = format!("{} is in use by another daemon", self.storage.display());
                return Err(Fault::new(Kind::Failed, what).into());
            }
            result => result.context("lock the store")?,
        }
        let mut of_store = String::new();
        marker.read_to_string(&mut of_store).with_context(|| format!("read {}", path.display()))?;
        let file = self.state.join(ID);
        let of_records = match std::fs::read_to_string(&file) {
            Ok(id) => id.trim().to_owned(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => return Err(e).with_context(|| format!("read {}", file.display())),
        };
        let of_store = of_store.trim();
        // A store from before there were ids has none: then there have to be volumes.
        let known =
            if of_store.is_empty() { !of_records.is_empty() || has_volumes } else { of_store == of_records };
        if !known && self.holds_something()? {
            return Err(self.foreign(of_store, &of_records).into());
        }
        if of_store.is_empty() {
            let id = if of_records.is_empty() { unused() } else { of_records.clone() };
            // The records' first: a kill in between leaves a store without an id, which takes this one.
            self.put_id(&of_records, &id)?;
            marker
                .write_all(id.as_bytes())
                .and_then(|()| marker.sync_all())
                .with_context(|| format!("write {}", path.display()))?;
        } else {
            self.put_id(&of_records, of_store)?;
        }
        Ok(marker)
    }

    fn put_id(&self, now: &str, id: &str) -> Result<()> {
        if now == id { Ok(()) } else { crate::state::replace(&self.state.join(ID), id.as_bytes()) }
    }

    /// Whether there is anything that could not be fetched again.
    fn holds_something(&self) -> Result<bool> {
        let store = self.storage.join(".store");
        Ok(!names(&store.join("volumes"))?.is_empty() || !names(&store.join("frozen"))?.is_empty())
    }

    fn foreign(&self, of_store: &str, of_records: &str) -> Fault {
        let (storage, state) = (self.storage.display(), self.state.display());
        let whose = match (of_store, of_records) {
            (_, "") => {
                format!("{state} has no records of a store, and {storage} holds what containers have written")
            }
            ("", _) => format!("{storage} is not the store whose records {state} has"),
            (store, records) => format!("the store's id is {store}, that of the records {records}"),
        };
        Fault::new(Kind::Missing, format!("the records in {state} are not those of the store in {storage}"))
            .why(whose)
            .why("what no record names is left over and would be removed")
            .next(format!(
                "mount or restore what belongs at {state}; or, to begin anew without it, move {storage}/.store away"
            ))
    }
}
