//! The directory one bootstrap works in.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use tempfile::TempDir;

use super::lock::Made;
use crate::site::BaseDefinition;

/// The directory one bootstrap works in, held as long as it does: the kernel lets go of it with the process.
/// mmdebstrap's hooks know it as `$MOORAGE_WORK`.
pub(super) struct Work {
    directory: TempDir,
    _held: File,
}

impl Work {
    pub fn new() -> Result<Work> {
        let new = || {
            // Packages are verified as a user of their own, which has to get through.
            let directory = tempfile::Builder::new()
                .prefix("moorage-base-")
                .permissions(Permissions::from_mode(0o755))
                .tempdir()?;
            let held = File::open(directory.path())?;
            rustix::fs::flock(&held, FlockOperation::LockExclusive)?;
            Ok::<_, std::io::Error>(Work { directory, _held: held })
        };
        new().context("make a directory to work in")
    }

    /// Whether somebody works in `directory`, which is not so where it is not there.
    pub fn is_held(directory: &Path) -> bool {
        match File::open(directory) {
            Ok(directory) => {
                let free = rustix::fs::flock(&directory, FlockOperation::NonBlockingLockShared);
                matches!(free, Err(Errno::WOULDBLOCK))
            }
            Err(error) => error.kind() != std::io::ErrorKind::NotFound,
        }
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Where the tar of the root filesystem is written, unless it goes to the engine at once.
    pub fn root(&self) -> PathBuf {
        self.path().join("root.tar")
    }
    /// Writes the files of the definition's repos, verbatim; answers their directory.
    pub fn repos(&self, definition: &BaseDefinition) -> Result<PathBuf> {
        let directory = self.path().join("repos");
        for (name, file) in &definition.repos {
            let path = directory.join(name);
            if let Some(above) = path.parent() {
                std::fs::create_dir_all(above).with_context(|| format!("make {}", above.display()))?;
            }
            std::fs::write(&path, &file.content).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(directory)
    }

    pub fn made(&self) -> Result<Made> {
        let text = |name: &str| {
            let path = self.path().join(name);
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Made::read(&text("metadata")?, &text("packages")?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_while_somebody_works_in_it() {
        let work = Work::new().unwrap();
        let path = work.path().to_owned();
        assert!(Work::is_held(&path) && Work::is_held(&path), "looking takes it from nobody");
        drop(work);
        assert!(!Work::is_held(&path), "it is gone");
        let left = tempfile::tempdir().unwrap();
        assert!(!Work::is_held(left.path()), "nobody works there any more");
    }
}
