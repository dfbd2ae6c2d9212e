//! What moorage remembers: one JSON file a record, replaced atomically and fsynced. The only code that writes state.

mod batched;

pub use batched::Batched;

use std::fs::File;
use std::io::Write as _;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Puts `bytes` where `path` is, wholly or not at all: temporary file, fsync, rename, fsync of the directory.
/// The file is readable by its owner only.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let directory = path.parent().context("a state file needs a directory")?;
    let write = || -> std::io::Result<()> {
        let mut temporary = tempfile::Builder::new().prefix(".new-").tempfile_in(directory)?;
        temporary.write_all(bytes)?;
        temporary.as_file().sync_all()?;
        temporary.persist(path).map_err(|e| e.error)?;
        File::open(directory)?.sync_all()
    };
    write().with_context(|| format!("write {}", path.display()))
}

/// Removes `path` for good; a missing file is no error.
pub fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e).with_context(|| format!("remove {}", path.display())),
    }
    let directory = path.parent().context("a state file needs a directory")?;
    File::open(directory).and_then(|d| d.sync_all()).with_context(|| format!("sync {}", directory.display()))
}

/// A directory of records of one kind, one `<key>.json` each.
#[derive(Debug, Clone)]
pub struct Records<T> {
    directory: PathBuf,
    kind: PhantomData<fn() -> T>,
}

impl<T: Serialize + DeserializeOwned> Records<T> {
    /// Opens the directory, making it (0700) where it is missing, and clears away half-written files.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        let directory = directory.into();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("make {}", directory.display()))?;
        for entry in std::fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(".new-") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(Records { directory, kind: PhantomData })
    }

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn path(&self, key: &str) -> Result<PathBuf> {
        ensure!(
            !key.is_empty() && !key.starts_with('.') && !key.contains('/'),
            "{key:?} cannot be the key of a record"
        );
        Ok(self.directory.join(format!("{key}.json")))
    }

    pub fn get(&self, key: &str) -> Result<Option<T>> {
        let path = self.path(key)?;
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).with_context(|| {
                let path = path.display();
                format!(
                    "{path} is damaged; put it back from a backup: what no record names is removed in time"
                )
            }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }

    pub fn put(&self, key: &str, record: &T) -> Result<()> {
        replace(&self.path(key)?, &serde_json::to_vec_pretty(record)?)
    }

    pub fn remove(&self, key: &str) -> Result<()> {
        remove(&self.path(key)?)
    }

    /// Gives a record the time of now without writing it; a crash may lose that. One that is not there is no error.
    pub fn touch(&self, key: &str) -> Result<()> {
        let path = self.path(key)?;
        match File::open(&path).and_then(|file| file.set_modified(std::time::SystemTime::now())) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                Err(e).with_context(|| format!("touch {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// When a record was written or touched last.
    pub fn touched(&self, key: &str) -> Result<Option<jiff::Timestamp>> {
        let path = self.path(key)?;
        match std::fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            Ok(time) => Ok(Some(time.try_into()?)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("look at {}", path.display())),
        }
    }

    /// The keys of all records, in their order. Reads none.
    pub fn keys(&self) -> Result<Vec<String>> {
        let mut keys = Vec::new();
        for entry in std::fs::read_dir(&self.directory)
            .with_context(|| format!("list {}", self.directory.display()))?
        {
            let name = entry?.file_name();
            if let Some(key) = name.to_str().and_then(|n| n.strip_suffix(".json"))
                && !key.starts_with('.')
            {
                keys.push(key.to_owned());
            }
        }
        keys.sort();
        Ok(keys)
    }

    /// Every record with its key, in the order of the keys. One that cannot be read is an error, never left out.
    pub fn all(&self) -> Result<Vec<(String, T)>> {
        self.keys()?
            .into_iter()
            .filter_map(|key| self.get(&key).map(|found| found.map(|record| (key, record))).transpose())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_replaced_listed_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let records: Records<u32> = Records::open(directory.path().join("r")).unwrap();
        records.put("b", &1).unwrap();
        records.put("a", &2).unwrap();
        records.put("a", &3).unwrap();
        assert_eq!(records.keys().unwrap(), ["a", "b"]);
        assert_eq!(records.all().unwrap(), [("a".into(), 3), ("b".into(), 1)]);
        records.remove("a").unwrap();
        records.remove("a").unwrap();
        assert_eq!(records.get("a").unwrap(), None);
        records.touch("a").unwrap();
        assert_eq!(records.touched("a").unwrap(), None);
        let before = records.touched("b").unwrap().unwrap();
        records.touch("b").unwrap();
        assert!(records.touched("b").unwrap().unwrap() >= before);
        assert_eq!(records.get("b").unwrap(), Some(1));
    }

    #[test]
    fn a_key_cannot_leave_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let records: Records<u32> = Records::open(directory.path()).unwrap();
        assert!(records.put("../x", &1).is_err());
        assert!(records.put("", &1).is_err());
        assert!(records.put(".hidden", &1).is_err());
    }

    #[test]
    fn a_damaged_record_is_an_error_and_not_an_absence() {
        let directory = tempfile::tempdir().unwrap();
        let records: Records<u32> = Records::open(directory.path()).unwrap();
        std::fs::write(directory.path().join("a.json"), "{").unwrap();
        assert!(records.get("a").is_err());
        assert!(records.all().is_err());
    }
}
