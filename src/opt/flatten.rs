//! Making one layer of several, so that a stack does not grow without end: what the layers over the archives make of
//! them, as one layer that says the same. Reads two overlays that nobody else has, `full` of all the layers and `base` of the
//! archives alone, and writes down where they differ.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, linkat, mkdirat, mknodat, openat, statat, syncfs,
};
use rustix::io::Errno;

use super::beneath::{self, Inner};
use super::copy;
use super::frozen::Frozen;
use super::held::Held;
use super::layer::unused;
use super::layer_id::LayerId;
use super::mounts;
use super::store::{Store, directory};

/// A stack of this many layers is made shorter.
pub const MOST_LAYERS: usize = 32;

/// Archives stay layers of their own, because others share them, unless they are so many that nothing would be won.
const MOST_ARCHIVES: usize = 16;

impl Store {
    /// A shorter stack that shows the same as `layers` (lowest first). What is new of it is on disk when this returns. Takes
    /// as long as copying what was ever written into the volume, less where the filesystem shares blocks. No volume has the
    /// new layer yet: it is there for as long as it is held.
    pub fn flatten(&self, name: &str, layers: &[LayerId]) -> Result<(Vec<LayerId>, Held)> {
        let mut kept = 0;
        while kept < layers.len() && self.layers.is_archive(&layers[kept])? {
            kept += 1;
        }
        if kept > MOST_ARCHIVES {
            kept = 0;
        }
        let (base, over) = layers.split_at(kept);
        if over.len() < 2 {
            return Ok((layers.to_owned(), Held::default()));
        }
        let new = LayerId::unused();
        let held = self.layers.hold_new(&new);
        let (work, tree) = (unused(), unused());
        let partial = self.layers.place("partial")?;
        let make = || -> Result<()> {
            mkdirat(&partial, &work, Mode::RWXU)?;
            mkdirat(&partial, &tree, Mode::RWXU)?;
            let views = self.inside("partial").join(&work);
            let full = self.stack(&views, "full", layers)?;
            let base = (kept > 0).then(|| self.stack(&views, "base", base)).transpose()?;
            crate::failpoint::reach("flatten-mounted");
            let open = || directory(&self.inside("partial").join(&tree));
            let real = over.iter().rev().map(|layer| directory(&self.layers.tree(layer)));
            let mut merge =
                Merge { real: real.collect::<Result<_>>()?, out: open()?, copied: HashMap::new() };
            let out = open()?;
            let below = base.as_ref().map(AsFd::as_fd);
            merge.directory(full.as_fd(), below, out.as_fd(), &mut PathBuf::new())?;
            drop((full, base));
            unmount(&views)?;
            // The layers that it stands for may be collected as soon as it is in use.
            syncfs(&out).context("bring the new layer to disk")?;
            crate::failpoint::reach("flatten-copied");
            let frozen = Frozen { of: name.to_owned(), when: jiff::Timestamp::now() };
            self.layers.adopt(&partial, &tree, &new, &frozen)
        };
        let made = make();
        let cleared = unmount(&self.inside("partial").join(&work)).and_then(|()| {
            super::tree::remove(&partial, &work)?;
            Ok(super::tree::remove(&partial, &tree)?)
        });
        if let Err(e) = cleared {
            tracing::warn!("what flattening {name} left stays until the next start: {e:#}");
        }
        made.with_context(|| format!("make one layer of {} of {name}", over.len()))
            .map_err(|e| self.explain(e))?;
        Ok((base.iter().cloned().chain([new]).collect(), held))
    }

    /// Mounts layers, lowest first, as one read-only tree.
    pub(super) fn stack(&self, views: &Path, view: &str, layers: &[LayerId]) -> Result<OwnedFd> {
        let place = views.join(view);
        std::fs::create_dir(&place)?;
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let mut lowers: Vec<String> =
            layers.iter().rev().map(|layer| text(self.layers.tree(layer))).collect();
        // An overlay without a writable directory is of two at least.
        if lowers.len() < 2 {
            lowers.push(text(self.inside("empty")));
        }
        mounts::read_only_stack(&lowers, &place)?;
        directory(&place)
    }
}

fn unmount(views: &Path) -> Result<()> {
    ["full", "base"].iter().try_for_each(|view| mounts::unmount_from(&views.join(view), true))
}

/// Writes what `full` has and `base` has not.
struct Merge {
    /// The layers that are put together, topmost first: files are shared with them where the filesystem can.
    real: Vec<OwnedFd>,
    /// The new layer's root.
    out: OwnedFd,
    /// Where the first name of a file with several is, by its inode.
    copied: HashMap<u64, PathBuf>,
}

impl Merge {
    fn directory(
        &mut self,
        full: BorrowedFd<'_>,
        base: Option<BorrowedFd<'_>>,
        out: BorrowedFd<'_>,
        path: &mut PathBuf,
    ) -> Result<()> {
        let names = names(full)?;
        for name in &names {
            path.push(to_path(name));
            self.entry(full, base, out, (name, path)).with_context(|| format!("copy {}", path.display()))?;
            path.pop();
        }
        for name in base.map(self::names).transpose()?.unwrap_or_default() {
            if names.binary_search(&name).is_err() {
                // A whiteout: what is below is gone.
                mknodat(out, &name, FileType::CharacterDevice, Mode::empty(), 0)?;
            }
        }
        let stat = rustix::fs::fstat(full)?;
        Ok(copy::attributes(full, out, &stat)?)
    }

    fn entry(
        &mut self,
        full: BorrowedFd<'_>,
        base: Option<BorrowedFd<'_>>,
        out: BorrowedFd<'_>,
        (name, path): (&CStr, &mut PathBuf),
    ) -> Result<()> {
        let stat = statat(full, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let below = match base {
            Some(base) => match statat(base, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => Some(stat),
                Err(Errno::NOENT) => None,
                Err(e) => return Err(e.into()),
            },
            None => None,
        };
        let kind = beneath::sort(&stat);
        if !kind.is_dir() {
            // Without a writable layer each inode number is the one on disk, so the same number is the same file.
            let same = |below: &Stat| below.st_ino == stat.st_ino && beneath::sort(below) == kind;
            return match below.as_ref().is_some_and(same) {
                true => Ok(()),
                false => self.file(full, out, (name, path), &stat),
            };
        }
        mkdirat(out, name, Mode::RWXU)?;
        let (full, out) = (beneath::list(full, name)?, beneath::list(out, name)?);
        let below = match (base, below) {
            (Some(base), Some(below)) if beneath::sort(&below).is_dir() => Some(beneath::list(base, name)?),
            _ => None,
        };
        self.directory(full.as_fd(), below.as_ref().map(AsFd::as_fd), out.as_fd(), path)
    }

    fn file(
        &mut self,
        full: BorrowedFd<'_>,
        out: BorrowedFd<'_>,
        (name, path): (&CStr, &mut PathBuf),
        stat: &Stat,
    ) -> Result<()> {
        if stat.st_nlink > 1 {
            if let Some(first) = self.copied.get(&stat.st_ino) {
                return Ok(linkat(&self.out, first, out, name, AtFlags::empty())?);
            }
            self.copied.insert(stat.st_ino, path.clone());
        }
        if !beneath::sort(stat).is_file() {
            return Ok(copy::special(full, name, out, stat)?);
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(openat(full, name, flags, Mode::empty())?);
        match self.real(path, stat) {
            Some(real) => copy::regular(&real, &file, out, name, stat),
            None => copy::regular(&file, &file, out, name, stat),
        }
    }

    /// The file itself, in the layer that it is in, unless a directory above was renamed since.
    fn real(&self, path: &Path, stat: &Stat) -> Option<File> {
        use std::os::unix::ffi::OsStrExt as _;
        let inner = Inner::parse(path.as_os_str().as_bytes()).ok()?;
        self.real.iter().find_map(|layer| {
            let file = beneath::open(layer, &inner, OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
            let found = rustix::fs::fstat(&file).ok()?;
            (found.st_ino == stat.st_ino && beneath::sort(&found).is_file()).then(|| File::from(file))
        })
    }
}

/// The names in a directory, sorted.
fn names(directory: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        if entry.file_name() != c"." && entry.file_name() != c".." {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn to_path(name: &CStr) -> &Path {
    use std::os::unix::ffi::OsStrExt as _;
    Path::new(std::ffi::OsStr::from_bytes(name.to_bytes()))
}
