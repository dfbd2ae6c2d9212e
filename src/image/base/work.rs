//! The directory one bootstrap works in.

use std::fs::{File, Permissions, TryLockError};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{Mode, OFlags};
use tempfile::TempDir;

use super::lock::Made;
use crate::report::Reporter;
use crate::site::BaseDefinition;

const PREFIX: &str = "moorage-base-";

/// The directory one bootstrap works in, held as long as it does: the kernel lets go of it with the process.
/// mmdebstrap's hooks know it as `$MOORAGE_WORK`.
pub(super) struct Work {
    directory: TempDir,
    _held: File,
}

impl Work {
    pub fn new() -> Result<Work> {
        Work::below(&std::env::temp_dir()).context("make a directory to work in")
    }

    /// Removes what killed bootstraps have left where [`Work::new`] makes its own.
    pub fn clear_abandoned(report: &Reporter) {
        for (left, error) in clear_abandoned(&std::env::temp_dir()) {
            let left = left.display();
            report.warning(format!("what a killed command has left stays: {error}; as root: rm -r '{left}'"));
        }
    }

    fn below(place: &Path) -> Result<Work, Error> {
        loop {
            // Packages are verified as a user of their own, which has to get through.
            let directory = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(Permissions::from_mode(0o755))
                .tempdir_in(place)?;
            // Until it is locked it is nobody's, and somebody else may just be clearing up.
            let held = match File::open(directory.path()) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                opened => opened?,
            };
            held.lock()?;
            if directory.path().exists() {
                return Ok(Work { directory, _held: held });
            }
        }
    }

    /// Whether somebody works in `directory`, which is not so where it is not there.
    pub fn is_held(directory: &Path) -> bool {
        match File::open(directory) {
            Ok(directory) => matches!(directory.try_lock_shared(), Err(TryLockError::WouldBlock)),
            Err(error) => error.kind() != ErrorKind::NotFound,
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

/// Removes the directories of ours below `place` in which nobody works any more; answers what is left of them.
fn clear_abandoned(place: &Path) -> Vec<(PathBuf, Error)> {
    let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    named.filter_map(|entry| clear(&entry.path()).err().map(|error| (entry.path(), error))).collect()
}

fn clear(path: &Path) -> Result<(), Error> {
    // Everybody may write to a directory for temporary files: it has to be a directory, and our own.
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::RDONLY | OFlags::CLOEXEC;
    let Ok(directory) = rustix::fs::open(path, flags, Mode::empty()).map(File::from) else { return Ok(()) };
    let is_ours = directory.metadata()?.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || directory.try_lock().is_err() {
        return Ok(());
    }
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_held_while_somebody_works_in_it() {
        let place = tempfile::tempdir().unwrap();
        let work = Work::below(place.path()).unwrap();
        let path = work.path().to_owned();
        assert!(Work::is_held(&path) && Work::is_held(&path), "looking takes it from nobody");
        drop(work);
        assert!(!Work::is_held(&path), "it is gone");
        assert!(!Work::is_held(place.path()), "nobody works there any more");
    }

    #[test]
    fn what_a_killed_one_has_left_goes_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let work = Work::below(place.path()).unwrap();
        std::fs::create_dir_all(at("moorage-base-left/root/etc")).unwrap();
        std::fs::create_dir(at("theirs")).unwrap();
        std::fs::write(at("moorage-base-file"), "").unwrap();
        std::os::unix::fs::symlink(at("theirs"), at("moorage-base-link")).unwrap();
        assert!(clear_abandoned(place.path()).is_empty());
        assert!(!at("moorage-base-left").exists());
        for stays in [work.path(), &at("theirs"), &at("moorage-base-file"), &at("moorage-base-link")] {
            assert!(stays.exists(), "{}", stays.display());
        }
        let killed = work.directory.keep();
        drop(work._held);
        assert!(clear_abandoned(place.path()).is_empty());
        assert!(!killed.exists());
    }
}
