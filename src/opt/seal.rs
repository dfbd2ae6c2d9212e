//! What a layer was when it was finished: every entry with size, owner, mode, times and number. A layer never changes, so
//! whatever is otherwise later was done behind our back. Contents are not read: the time of the last change, which the
//! kernel keeps and nobody sets (inode(7), ctime), tells of each write, and a layer may have terabytes.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Dir, FileType, Stat, statat};
use rustix::io::Errno;

use super::layer::{Layers, names};
use super::layer_id::LayerId;
use super::store::{Store, directory};
use super::{beneath, tree};

/// How hard it is compressed: there are hundreds of thousands of lines, much alike.
const LEVEL: i32 = 3;
/// How many differences of one layer are told.
const TOLD: usize = 10;

/// A layer that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    pub layer: LayerId,
    /// The archive it came from, or the volume whose files it has.
    pub of: String,
    /// Paths in it and what is the matter with them; the first few.
    pub what: Vec<String>,
    /// How many there are.
    pub count: usize,
}

/// What became of looking at all layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// Layers that are as they were.
    pub whole: usize,
    pub changed: Vec<Changed>,
    /// Layers that nothing is known of yet.
    pub unknown: usize,
}

impl Layers {
    fn seal_of(&self, layer: &str) -> PathBuf {
        self.directory.join("seals").join(layer)
    }

    /// Writes down what the layers are of which nothing is known yet, and forgets those that are gone. Blocks.
    pub fn seal(&self) -> Result<()> {
        for layer in names(&self.directory.join("seals"))? {
            let gone =
                LayerId::try_from(layer.clone()).map_or(Ok(true), |id| self.has(&id).map(|has| !has))?;
            if gone {
                crate::state::remove(&self.seal_of(&layer))?;
            }
        }
        for (layer, _) in self.known()? {
            if self.seal_of(layer.as_str()).exists() {
                continue;
            }
            // One that is collected meanwhile needs none.
            let Ok(root) = directory(&self.tree(&layer)) else { continue };
            let mut text = zstd::Encoder::new(Vec::new(), LEVEL)?;
            {
                let mut lines = BufWriter::new(&mut text);
                walk(root.as_fd(), &mut PathBuf::new(), &mut |path, line| {
                    Ok(writeln!(lines, "{line} {path}")?)
                })
                .with_context(|| format!("look at the layer {layer}"))?;
                lines.flush()?;
            }
            crate::state::replace(&self.seal_of(layer.as_str()), &text.finish()?)?;
        }
        Ok(())
    }

    /// Every layer, and what it is of.
    fn known(&self) -> Result<Vec<(LayerId, String)>> {
        let mut all: Vec<(LayerId, String)> =
            self.records.all()?.into_iter().map(|(_, archive)| (archive.id(), archive.source)).collect();
        for (key, frozen) in self.frozen.all()? {
            if let Ok(layer) = LayerId::try_from(key) {
                all.push((layer, frozen.of));
            }
        }
        Ok(all)
    }

    /// What is otherwise in a layer than when it was sealed; `None` where that is not known.
    fn differences(&self, layer: &LayerId) -> Result<Option<Vec<String>>> {
        let seal = self.seal_of(layer.as_str());
        let file = match std::fs::File::open(&seal) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("open {}", seal.display())),
        };
        let mut then: BTreeMap<String, String> = BTreeMap::new();
        for line in BufReader::new(zstd::Decoder::new(file)?).lines() {
            let line = line.with_context(|| format!("read {}", seal.display()))?;
            let (of, path) = line.rsplit_once(' ').with_context(|| format!("read {}", seal.display()))?;
            then.insert(path.to_owned(), of.to_owned());
        }
        let mut found = Vec::new();
        let root = directory(&self.tree(layer))?;
        walk(root.as_fd(), &mut PathBuf::new(), &mut |path, now| {
            match then.remove(path) {
                Some(then) if then == now => {}
                Some(then) => found.push(format!("{path}: {}", difference(&then, now))),
                None => found.push(format!("{path}: it is new")),
            }
            Ok(())
        })?;
        found.extend(then.into_keys().map(|path| format!("{path}: it is gone")));
        Ok(Some(found))
    }
}

impl Store {
    /// Looks at every entry of every layer. Takes as long as `find` does.
    pub fn check_layers(&self) -> Result<Checked> {
        self.layers.seal()?;
        let mut checked = Checked::default();
        for (layer, of) in self.layers.known()? {
            let _held = self.layers.hold(&layer)?;
            match self.layers.differences(&layer) {
                Ok(Some(found)) if found.is_empty() => checked.whole += 1,
                Ok(Some(found)) => {
                    let (count, what) = (found.len(), found.into_iter().take(TOLD).collect());
                    checked.changed.push(Changed { layer, of, what, count });
                }
                Ok(None) => checked.unknown += 1,
                Err(e) => {
                    let what = vec![format!("{e:#}")];
                    checked.changed.push(Changed { layer, of, what, count: 1 });
                }
            }
        }
        Ok(checked)
    }
}

/// Tells of everything below `directory`: its path, without blanks, and what is known of it.
fn walk(
    directory: BorrowedFd<'_>,
    path: &mut PathBuf,
    tell: &mut impl FnMut(&str, &str) -> Result<()>,
) -> Result<()> {
    if path.as_os_str().is_empty() {
        tell(".", &line(&rustix::fs::fstat(directory)?))?;
    }
    let mut entries = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            entries.push(entry.file_name().to_owned());
        }
    }
    for name in entries {
        let stat = match statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(e) => return Err(e.into()),
        };
        use std::os::unix::ffi::OsStrExt as _;
        path.push(std::ffi::OsStr::from_bytes(name.to_bytes()));
        tell(&escaped(path), &line(&stat))?;
        if beneath::sort(&stat) == FileType::Directory && path.components().count() < tree::DEEPEST {
            walk(beneath::list(directory, &name)?.as_fd(), path, tell)?;
        }
        path.pop();
    }
    Ok(())
}

/// A path as one word.
fn escaped(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt as _;
    path.as_os_str().as_bytes().escape_ascii().to_string().replace(' ', "\\x20")
}

/// What is known of an entry, in words without meaning between blanks; `difference` knows their order.
fn line(stat: &Stat) -> String {
    let directory = beneath::sort(stat) == FileType::Directory;
    // A directory's size is the filesystem's own business.
    let size = if directory { 0 } else { stat.st_size };
    format!(
        "{:o} {}:{} {size} {}.{:09} {}.{:09} {}",
        stat.st_mode,
        stat.st_uid,
        stat.st_gid,
        stat.st_mtime,
        stat.st_mtime_nsec,
        stat.st_ctime,
        stat.st_ctime_nsec,
        stat.st_ino
    )
}

fn difference(then: &str, now: &str) -> String {
    const WHAT: [&str; 6] =
        ["its mode", "its owner", "its size", "its time", "when it was changed last", "its number"];
    let pairs = WHAT.iter().zip(then.split(' ').zip(now.split(' ')));
    let other = |(what, (then, now)): (&&str, (&str, &str))| {
        (then != now).then(|| format!("{what} is {now} and was {then}"))
    };
    pairs.filter_map(other).next().unwrap_or_else(|| "it is another".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_otherwise_is_said() {
        let then = "100644 0:0 5 1.000000000 2.000000000 7";
        assert_eq!(
            difference(then, "100600 0:0 5 1.000000000 3.000000000 7"),
            "its mode is 100600 and was 100644"
        );
        assert_eq!(
            difference(then, "100644 0:0 5 1.000000000 3.000000000 7"),
            "when it was changed last is 3.000000000 and was 2.000000000"
        );
    }

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(escaped(std::path::Path::new("a b/c\nd")), "a\\x20b/c\\nd");
    }
}
