//! What this host remembers of the images it made: their locks, and rebuilds that are not done.

use std::fs::{File, TryLockError};
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use super::base::Lock;
use super::rebuild::{Attempt, Promotion};
use crate::report::{Fault, Kind};
use crate::state::Records;

/// Where root's images are remembered.
const DIRECTORY: &str = "/var/lib/moorage/images";

/// The directory of these records: root's, or in the home of an author who is not root.
#[derive(Debug, Clone)]
pub struct Memory {
    directory: PathBuf,
}

impl Memory {
    pub fn of_this_host() -> Result<Memory> {
        if rustix::process::geteuid().is_root() {
            return Ok(Memory::at(DIRECTORY));
        }
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        let state = state.filter(|path| path.is_absolute()).or_else(home);
        Ok(Memory::at(state.context("neither XDG_STATE_HOME nor HOME is set")?.join("moorage/images")))
    }

    pub fn at(directory: impl Into<PathBuf>) -> Memory {
        Memory { directory: directory.into() }
    }

    /// The lock of each base that was made here, by its name.
    pub fn locks(&self) -> Result<Records<Lock>> {
        Records::open(self.directory.join("locks"))
    }

    /// What was tried of an image and is not promoted, by its name.
    pub fn attempts(&self) -> Result<Records<Attempt>> {
        Records::open(self.directory.join("attempts"))
    }

    /// The tags that are being moved.
    pub fn promotions(&self) -> Result<Records<Promotion>> {
        Records::open(self.directory.join("promotions"))
    }

    /// Where the logs of builds are.
    pub fn logs(&self) -> PathBuf {
        self.directory.join("logs")
    }

    /// Held by the one rebuild at work; the kernel lets it go with the process.
    pub fn turn(&self) -> Result<File> {
        std::fs::create_dir_all(&self.directory)
            .with_context(|| format!("make {}", self.directory.display()))?;
        let path = self.directory.join("turn");
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                Err(Fault::new(Kind::Failed, "another rebuild-images is at work on this host")
                    .next("wait until it is done, then run the same command again")
                    .into())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("lock {}", path.display())),
        }
    }
}
