//! Writing judged entries below a directory: `openat2` for the way, one component at the end, nothing ever followed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fchown, fsetxattr,
    futimens, linkat, mkdirat, openat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::entry::{Attributes, Planned, What};
use crate::opt::beneath::{self, Inner};
use crate::opt::layer::Tree;

/// Bytes written at a time.
const CHUNK: usize = 256 * 1024;

/// A directory is closed to others while it is being filled; its own mode comes at the end.
const FILLING: Mode = Mode::RWXU;

/// Bytes of memory that the directories of one archive may take until the end: some hundred thousand of them.
const REMEMBERED: usize = 128 << 20;

/// What a directory takes there beside its name and extended attributes.
const EACH: usize = 256;

/// Extended attributes that are named when they are left out, and how long such a name is (xattr(7)).
const NAMED: (usize, usize) = (32, 255);

/// The mode of a directory that has no entry of its own.
const IMPLIED: Mode = Mode::from_raw_mode(0o755);

pub struct Writer {
    root: OwnedFd,
    /// The directory of the entry before: archives keep the files of one together.
    last: Option<(Inner, OwnedFd)>,
    /// Every directory, and what it gets at the end; none for one that only its files imply.
    directories: BTreeMap<Inner, Option<Attributes>>,
    /// Bytes that the directories take.
    remembered: usize,
    dropped: BTreeSet<String>,
    tree: Tree,
    buffer: Vec<u8>,
}

impl Writer {
    pub fn new(root: OwnedFd) -> Writer {
        let mut directories = BTreeMap::new();
        if let Ok(top) = Inner::parse(b".") {
            directories.insert(top, None);
        }
        let (dropped, tree) = (BTreeSet::new(), Tree::default());
        Writer { root, last: None, directories, remembered: 0, dropped, tree, buffer: vec![0; CHUNK] }
    }

    /// Writes one entry; `data` is what a file holds.
    pub fn put(&mut self, planned: &Planned, data: &mut impl Read) -> Result<()> {
        let (most, longest) = NAMED;
        for name in planned.attributes.dropped.iter().filter(|name| name.len() <= longest) {
            if self.dropped.len() < most {
                self.dropped.insert(name.clone());
            }
        }
        let Some((parent, name)) = planned.path.split() else {
            return self.remember(&planned.path, Some(&planned.attributes));
        };
        let known = self.directories.contains_key(&planned.path);
        if planned.what == What::Directory {
            if !known {
                let parent = self.enter(&parent)?;
                match mkdirat(parent, name, FILLING) {
                    Err(Errno::EXIST) => bail!("it would replace a file or link by a directory"),
                    result => result?,
                }
            }
            return self.remember(&planned.path, Some(&planned.attributes));
        }
        ensure!(!known, "it would replace a directory by something else");
        self.tree.files += 1;
        match &planned.what {
            What::Directory => Ok(()),
            What::File { size, holes } => {
                let directory = self.enter(&parent)?;
                let mode = Mode::from_raw_mode(planned.attributes.mode & 0o777);
                let flags =
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = replacing(directory, name, || openat(directory, name, flags, mode))?;
                self.fill(&File::from(file), data, *size, *holes)
                    .and_then(|file| apply(file.as_fd(), &planned.attributes, true))
            }
            What::Symlink(target) => {
                let directory = self.enter(&parent)?;
                replacing(directory, name, || symlinkat(target.as_slice(), directory, name))?;
                let (uid, gid) = owner(&planned.attributes);
                chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                utimensat(directory, name, &times(&planned.attributes), AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(())
            }
            What::HardLink(target) => {
                let (target_parent, target_name) = target.split().context("it links to the whole tree")?;
                let source = beneath::handle(&self.root, &target_parent).with_context(|| {
                    format!("it links to {target}, which is not in the archive before it")
                })?;
                let directory = self.enter(&parent)?;
                let link = || linkat(&source, target_name, directory, name, AtFlags::empty());
                match replacing(directory, name, link) {
                    Err(Errno::NOENT) => bail!("it links to {target}, which is not in the archive before it"),
                    Err(Errno::PERM) => bail!("it links to {target}, which is a directory"),
                    result => Ok(result?),
                }
            }
        }
    }

    /// Keeps what a directory gets at the end.
    fn remember(&mut self, path: &Inner, attributes: Option<&Attributes>) -> Result<()> {
        // The names of what is left out have been taken already.
        let attributes =
            attributes.map(|all| Attributes { xattrs: all.xattrs.clone(), dropped: Vec::new(), ..*all });
        let xattrs = attributes.iter().flat_map(|all| &all.xattrs);
        let bytes = xattrs.map(|(key, value)| EACH + key.len() + value.len()).sum::<usize>();
        // One that comes again and again counts each time: no honest archive has it so.
        self.remembered += EACH + path.as_bytes().len() + bytes;
        ensure!(
            self.remembered <= REMEMBERED,
            "the directories of the archive, with their attributes, take more than {} MiB of memory",
            REMEMBERED >> 20
        );
        self.directories.insert(path.clone(), attributes);
        Ok(())
    }

    /// The directory `path`, made where the archive has not said so itself.
    fn enter(&mut self, path: &Inner) -> Result<BorrowedFd<'_>> {
        if self.last.as_ref().is_none_or(|(last, _)| last != path) {
            let handle = match beneath::handle(&self.root, path) {
                Err(Errno::NOENT) => {
                    self.make(path)?;
                    beneath::handle(&self.root, path)
                }
                result => result,
            };
            let handle = match handle {
                Err(Errno::LOOP) => {
                    bail!("its directory {path} is or is behind a symbolic link of the archive")
                }
                Err(Errno::NOTDIR) => bail!("its directory {path} is a file of the archive"),
                result => result?,
            };
            self.last = Some((path.clone(), handle));
        }
        let (_, handle) = self.last.as_ref().context("no directory")?;
        Ok(handle.as_fd())
    }

    fn make(&mut self, path: &Inner) -> Result<()> {
        for prefix in path.prefixes() {
            if self.directories.contains_key(&prefix) {
                continue;
            }
            let Some((parent, name)) = prefix.split() else { continue };
            let parent = match beneath::handle(&self.root, &parent) {
                Err(Errno::LOOP | Errno::NOTDIR) => return Ok(()),
                result => result?,
            };
            match mkdirat(&parent, name, FILLING) {
                Ok(()) => self.remember(&prefix, None)?,
                // A file or link: opening it as a directory says what it is.
                Err(Errno::EXIST) => return Ok(()),
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    fn fill<'f>(
        &mut self,
        mut file: &'f File,
        data: &mut impl Read,
        size: u64,
        holes: bool,
    ) -> Result<&'f File> {
        let mut done = 0;
        while done < size {
            let want = usize::try_from(size - done).unwrap_or(CHUNK).min(CHUNK);
            let chunk = &mut self.buffer[..want];
            match data.read_exact(chunk) {
                Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                    bail!("the archive is truncated: {done} of {size} bytes of it are there")
                }
                result => result?,
            }
            if !holes {
                file.write_all(chunk)?;
            } else if chunk.iter().any(|b| *b != 0) {
                file.write_all_at(chunk, done)?;
            }
            done += want as u64;
        }
        if holes {
            file.set_len(size)?;
        }
        self.tree.bytes += size;
        Ok(file)
    }

    /// Extended attributes that were left out.
    pub fn dropped(&self) -> Vec<String> {
        self.dropped.iter().cloned().collect()
    }

    /// Gives the directories their owners, modes and times, which filling them would have changed.
    pub fn finish(self) -> Result<Tree> {
        for (path, attributes) in self.directories.iter().rev() {
            let directory = beneath::open(&self.root, path, OFlags::RDONLY | OFlags::DIRECTORY)
                .with_context(|| format!("open the directory {path}"))?;
            match attributes {
                Some(attributes) => apply(directory.as_fd(), attributes, false),
                None => Ok(fchmod(&directory, IMPLIED)?),
            }
            .with_context(|| format!("set owner and mode of the directory {path}"))?;
        }
        Ok(self.tree)
    }
}

/// Makes something at `name`; a file or link of an earlier entry makes way, as with tar(1).
fn replacing<T>(
    directory: BorrowedFd<'_>,
    name: &[u8],
    make: impl Fn() -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    match make() {
        Err(Errno::EXIST) => {
            unlinkat(directory, name, AtFlags::empty())?;
            make()
        }
        result => result,
    }
}

fn owner(attributes: &Attributes) -> (Uid, Gid) {
    (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid))
}

fn times(attributes: &Attributes) -> Timestamps {
    let (seconds, nanoseconds) = attributes.modified;
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// In an order in which no step undoes another: chown clears setuid and capabilities. A file just made has its
/// permission bits and belongs to root already.
fn apply(file: BorrowedFd<'_>, attributes: &Attributes, just_made: bool) -> Result<()> {
    let (uid, gid) = owner(attributes);
    let foreign = attributes.uid != 0 || attributes.gid != 0;
    if foreign || !just_made {
        fchown(file, Some(uid), Some(gid))?;
    }
    if attributes.mode & 0o7000 != 0 || !just_made {
        fchmod(file, Mode::from_raw_mode(attributes.mode))?;
    }
    for (key, value) in &attributes.xattrs {
        fsetxattr(file, key.as_str(), value, XattrFlags::empty())
            .with_context(|| format!("set the extended attribute {key}"))?;
    }
    futimens(file, &times(attributes))?;
    Ok(())
}
