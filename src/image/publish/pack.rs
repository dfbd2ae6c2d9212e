//! An `/opt` tree as a row of blobs: one tar, cut where its content says, each piece a zstd frame of its own. One behind
//! another they are one `.tar.zst`. The same tree makes the same blobs, and where little changes most of them stay.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use fastcdc::v2020::StreamCDC;
use walkdir::WalkDir;

use crate::report::{Fault, Kind};

/// zstd's own default.
const LEVEL: i32 = 3;
/// How many pieces a tree is cut into, about: each is a line of the manifest, which registries limit to 4 MiB, and what
/// is sent for a changed file grows with the size of a piece.
const PIECES: u64 = 8192;
/// The average size of a piece, bytes of the tar.
const SMALLEST: u32 = 64 << 10;
const LARGEST: u32 = 4 << 20;
/// What is changed when a tree is made anew without a change is the time of its files; so all have one, 1980-01-02 in
/// UTC, which the oldest formats can say. Seconds since 1970.
const TIME: u64 = 315_619_200;

/// What of an entry is packed beside its content and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    /// Nothing that a tree made anew has otherwise: no times, no owners.
    Content,
    /// All that an archive can say: owners, times, attributes, holes.
    Everything,
}

/// What is packed: every entry in the order of the names, and how much it is.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    keep: Keep,
    /// Sockets and FIFOs, which no archive has and whoever listened there makes anew.
    pub left_out: u64,
    entries: Vec<Entry>,
    /// Bytes of all files.
    pub bytes: u64,
    pub files: u64,
}

#[derive(Debug)]
struct Entry {
    /// Relative to the root.
    name: PathBuf,
    metadata: Metadata,
}

impl Tree {
    /// Looks at everything in `root`; blocks.
    ///
    /// A device, FIFO or socket: [`Kind::Usage`], as no container would take the archive.
    pub fn read(root: &Path) -> Result<Tree> {
        Tree::look(root, Keep::Content)
    }

    /// The same of a tree that has a state to be kept, with owners, times and attributes. Sockets, FIFOs and devices are
    /// left out. Nobody may change it meanwhile.
    pub fn read_all(root: &Path) -> Result<Tree> {
        Tree::look(root, Keep::Everything)
    }

    fn look(root: &Path, keep: Keep) -> Result<Tree> {
        if !root.is_dir() {
            return Err(Fault::new(Kind::NotFound, format!("{} is not a directory", root.display()))
                .next("name the directory whose content is to be /opt")
                .into());
        }
        let (root_owned, entries) = (root.to_owned(), Vec::new());
        let mut tree = Tree { root: root_owned, keep, left_out: 0, entries, bytes: 0, files: 0 };
        let from = if keep == Keep::Everything { 0 } else { 1 };
        for found in WalkDir::new(root).min_depth(from).sort_by_file_name() {
            let found = found.with_context(|| format!("list {}", root.display()))?;
            let path = found.path();
            let metadata = path.symlink_metadata().with_context(|| format!("look at {}", path.display()))?;
            let kind = metadata.file_type();
            if kind.is_char_device() || kind.is_block_device() || kind.is_fifo() || kind.is_socket() {
                if keep == Keep::Everything {
                    tree.left_out += 1;
                    continue;
                }
                let what = format!(
                    "{} is a device, FIFO or socket, which an /opt archive may not hold",
                    path.display()
                );
                return Err(Fault::new(Kind::Usage, what)
                    .next("remove it, then run the same command again")
                    .into());
            }
            if kind.is_file() {
                tree.bytes += metadata.len();
                tree.files += 1;
            }
            let name = path.strip_prefix(root).context("a walk stays below its root")?.to_owned();
            tree.entries.push(Entry { name, metadata });
        }
        Ok(tree)
    }

    /// The average size of a piece. It changes only when the tree doubles, because then every piece is another.
    fn average(&self) -> u32 {
        let wanted = (self.bytes / PIECES).next_power_of_two();
        u32::try_from(wanted).unwrap_or(LARGEST).clamp(SMALLEST, LARGEST)
    }

    /// Hands each compressed piece to `piece`, in order, with the bytes of files packed so far; blocks. Ends when `piece`
    /// says so by an error.
    pub fn pack(&self, mut piece: impl FnMut(Vec<u8>, u64) -> Result<()>) -> Result<()> {
        let average = self.average();
        let (reader, writer) = io::pipe().context("make a pipe")?;
        std::thread::scope(|scope| {
            let tar = scope.spawn(move || self.tar(writer));
            let mut compressor = zstd::bulk::Compressor::new(LEVEL).context("set up the compressor")?;
            let mut done = 0;
            // It is dropped before the tar is waited for, which then cannot write any more and ends.
            let cut = {
                let mut cutter = StreamCDC::new(reader, average / 4, average, average * 4);
                cutter.try_for_each(|found| {
                    let found = found.map_err(|e| anyhow::anyhow!("cut the archive: {e}"))?;
                    done += found.length as u64;
                    let bytes = compressor.compress(&found.data).context("compress a piece")?;
                    piece(bytes, done.min(self.bytes))
                })
            };
            let written = tar.join().map_err(|_| anyhow::anyhow!("the packing thread ended"))?;
            // A reader that went away is not why.
            match cut {
                Ok(()) => written,
                Err(error) => Err(error),
            }
        })
    }

    fn tar(&self, writer: impl Write) -> Result<()> {
        let mut tar = tar::Builder::new(io::BufWriter::with_capacity(256 << 10, writer));
        // The first name of a file with several is the file; the others are links to it.
        let mut names: HashMap<(u64, u64), &Path> = HashMap::new();
        for Entry { name, metadata } in &self.entries {
            let path = self.root.join(name);
            // The root itself has no name.
            let name = if name.as_os_str().is_empty() { Path::new(".") } else { name.as_path() };
            let packed = || -> io::Result<()> {
                let mut header = tar::Header::new_gnu();
                header.set_mode(metadata.mode() & 0o7777);
                header.set_mtime(TIME);
                header.set_uid(0);
                header.set_gid(0);
                header.set_size(0);
                let kind = metadata.file_type();
                if self.keep == Keep::Everything {
                    // Times before 1970 are no number of a header's.
                    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
                    header.set_uid(metadata.uid().into());
                    header.set_gid(metadata.gid().into());
                    if !kind.is_symlink() {
                        extensions(&mut tar, &path, metadata)?;
                    }
                }
                if kind.is_dir() {
                    header.set_entry_type(tar::EntryType::Directory);
                    return tar.append_data(&mut header, name, io::empty());
                }
                if kind.is_symlink() {
                    header.set_entry_type(tar::EntryType::Symlink);
                    return tar.append_link(&mut header, name, std::fs::read_link(&path)?);
                }
                if metadata.nlink() > 1 {
                    let first = *names.entry((metadata.dev(), metadata.ino())).or_insert(name);
                    if first != name {
                        header.set_entry_type(tar::EntryType::Link);
                        return tar.append_link(&mut header, name, first);
                    }
                }
                header.set_size(metadata.len());
                let mut file = std::fs::File::open(&path)?;
                if self.keep == Keep::Everything && metadata.blocks() * 512 < metadata.len() {
                    // It finds the holes itself.
                    return tar.append_file(name, &mut file);
                }
                let mut content = Exactly { inner: file, left: metadata.len() };
                tar.append_data(&mut header, name, &mut content)
            };
            let mut packed = packed;
            packed()
                .with_context(|| format!("pack {}", String::from_utf8_lossy(path.as_os_str().as_bytes())))?;
        }
        let mut writer = tar.into_inner().context("pack the end of the archive")?;
        writer.flush().context("pack the end of the archive")
    }
}

/// What the header of an entry has no place for: its extended attributes, and the fraction of its time.
fn extensions(tar: &mut tar::Builder<impl Write>, path: &Path, metadata: &Metadata) -> io::Result<()> {
    let mut all: Vec<(String, Vec<u8>)> = Vec::new();
    for key in xattr::list(path)? {
        let Some(text) = key.to_str() else { continue };
        // What an archive may have (docs/opt.md).
        if (text.starts_with("user.") || text == "security.capability")
            && let Some(value) = xattr::get(path, &key)?
        {
            all.push((format!("SCHILY.xattr.{text}"), value));
        }
    }
    if metadata.mtime_nsec() != 0 && metadata.mtime() >= 0 {
        let time = format!("{}.{:09}", metadata.mtime(), metadata.mtime_nsec());
        all.push(("mtime".to_owned(), time.into_bytes()));
    }
    match all.is_empty() {
        true => Ok(()),
        false => tar.append_pax_extensions(all.iter().map(|(key, value)| (key.as_str(), value.as_slice()))),
    }
}

/// As many bytes as the header promises: a file that is written to meanwhile is an error, not a broken archive.
struct Exactly<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Exactly<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Ok(0);
        }
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        match self.inner.read(&mut buffer[..wanted])? {
            0 if wanted > 0 => Err(io::Error::other("it became shorter while it was read")),
            count => {
                self.left -= count as u64;
                Ok(count)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Noise that is the same each time, so that pieces cannot be alike by chance.
    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.extend_from_slice(&state.to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }

    fn tree(directory: &Path, files: u64) {
        for number in 0..files {
            let directory = directory.join(format!("product/{}", number % 10));
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(directory.join(format!("file-{number}")), noise(number + 1, 60_000)).unwrap();
        }
    }

    fn packed(directory: &Path) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        Tree::read(directory)
            .unwrap()
            .pack(|piece, _| {
                pieces.push(piece);
                Ok(())
            })
            .unwrap();
        pieces
    }

    #[test]
    fn the_pieces_together_are_the_tree() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        tree(root, 20);
        std::fs::write(root.join("run"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(root.join("run"), std::fs::Permissions::from_mode(0o4755)).unwrap();
        std::fs::hard_link(root.join("run"), root.join("run-too")).unwrap();
        symlink("/nowhere", root.join("link")).unwrap();
        let whole = packed(root).concat();
        let tar = zstd::decode_all(whole.as_slice()).unwrap();
        let mut archive = tar::Archive::new(tar.as_slice());
        let mut all = Vec::new();
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            let link = entry.link_name().unwrap().map(|link| link.display().to_string());
            all.push(format!(
                "{} {:?} {:o} {} {:?}",
                entry.path().unwrap().display(),
                header.entry_type(),
                header.mode().unwrap(),
                header.mtime().unwrap(),
                link
            ));
        }
        assert_eq!(all.len(), 1 + 10 + 20 + 3);
        assert!(all.contains(&r#"run Regular 4755 315619200 None"#.to_owned()), "{all:#?}");
        assert!(all.contains(&r#"run-too Link 4755 315619200 Some("run")"#.to_owned()), "{all:#?}");
        assert!(all.contains(&r#"link Symlink 777 315619200 Some("/nowhere")"#.to_owned()), "{all:#?}");
    }

    #[test]
    fn the_same_tree_makes_the_same_blobs_and_a_changed_file_few_others() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        tree(one.path(), 200);
        tree(two.path(), 200);
        let digests = |pieces: &[Vec<u8>]| -> BTreeSet<Vec<u8>> {
            pieces.iter().map(|piece| Sha256::digest(piece).to_vec()).collect()
        };
        let before = packed(one.path());
        assert!(before.len() > 20, "{}", before.len());
        assert_eq!(digests(&before), digests(&packed(two.path())));
        std::fs::write(two.path().join("product/5/file-105"), noise(9999, 61_000)).unwrap();
        let after = packed(two.path());
        let known = digests(&before);
        let new = after.iter().filter(|piece| !known.contains(&Sha256::digest(piece).to_vec()));
        let new: usize = new.map(Vec::len).sum();
        let whole: usize = after.iter().map(Vec::len).sum();
        assert!(new > 0 && new * 20 < whole, "{new} of {whole}");
    }

    #[test]
    fn what_no_container_would_take_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Fault::of(&Tree::read(&directory.path().join("x")).unwrap_err()).kind, Kind::NotFound);
        std::os::unix::net::UnixListener::bind(directory.path().join("socket")).unwrap();
        assert_eq!(Fault::of(&Tree::read(directory.path()).unwrap_err()).kind, Kind::Usage);
    }

    #[test]
    fn who_takes_the_pieces_may_stop() {
        let directory = tempfile::tempdir().unwrap();
        tree(directory.path(), 50);
        let tree = Tree::read(directory.path()).unwrap();
        assert_eq!(tree.pack(|_, _| anyhow::bail!("enough")).unwrap_err().to_string(), "enough");
    }
}
