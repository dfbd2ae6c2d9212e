//! Taking a bundle in: all blobs first, then the names, tags last. Until then nobody sees anything of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::contents::{Contents, Signed, blob_path};
use super::part::{Checked, Part};
use super::sign::Trusted;
use crate::registry::collect::{Inventory, Storage, read};
use crate::report::{Fault, Kind, Reporter, Unit};
use crate::spec::{ByteSize, Digest};

const STEP: &str = "bundle";
/// Where blobs are until all of them are there: on the disk of the registry, outside of what its server looks at.
const INCOMING: &str = "incoming";

/// The parts of a bundle, on their way into a registry. Blocks.
pub struct Apply<'a> {
    pub parts: &'a [PathBuf],
    pub trusted: &'a Trusted,
    pub reporter: &'a Reporter,
}

/// A part that is as it was signed.
#[derive(Debug, Clone, Serialize)]
pub struct Verified {
    pub part: PathBuf,
    pub bundle: String,
    /// From 1.
    pub number: usize,
    pub of: usize,
    pub entries: usize,
    pub bytes: u64,
}

/// What is in the registry now, looked at again on its disk.
#[derive(Debug, Clone, Serialize)]
pub struct Applied {
    pub bundle: String,
    pub images: Vec<AppliedImage>,
    /// Blobs that came with it, and those that the registry had.
    pub new_blobs: usize,
    pub new_bytes: u64,
    pub known_blobs: usize,
}

#[derive(Debug, Clone, Serialize)]
pub struct AppliedImage {
    pub image: String,
    pub digest: Digest,
    pub blobs: usize,
    /// What the tag named before, where that is something else.
    pub before: Option<Digest>,
}

impl Apply<'_> {
    /// Verifies each part alone; the others need not be there.
    pub fn verify(&self) -> Result<Vec<Verified>> {
        let mut verified = Vec::new();
        for path in self.parts {
            let part = Part::open(path, self.trusted)?;
            self.reporter.begin(STEP, format!("verify {}", path.display()));
            let mut bytes = 0;
            part.each(path, true, |signed, _| {
                bytes += signed.piece.length;
                Ok(())
            })?;
            let of = part.contents.parts.len();
            self.reporter.end(STEP, format!("part {} of {of}: as it was signed", part.number + 1));
            verified.push(Verified {
                part: path.clone(),
                bundle: part.id,
                number: part.number + 1,
                of,
                entries: part.contents.parts[part.number].len(),
                bytes,
            });
        }
        Ok(verified)
    }

    /// All parts of one bundle, by their numbers.
    fn open(&self) -> Result<BTreeMap<usize, (PathBuf, Part)>> {
        let mut parts: BTreeMap<usize, (PathBuf, Part)> = BTreeMap::new();
        for path in self.parts {
            let part = Part::open(path, self.trusted)?;
            if let Some((first, one)) = parts.values().next().filter(|(_, one)| one.id != part.id) {
                return Err(Fault::new(Kind::Usage, "these are parts of different bundles")
                    .why(format!("{} is of bundle {}", first.display(), one.id))
                    .why(format!("{} is of bundle {}", path.display(), part.id))
                    .remains("nothing was changed")
                    .next("name the parts of one bundle")
                    .into());
            }
            parts.insert(part.number, (path.clone(), part));
        }
        let Some((_, first)) = parts.values().next() else {
            return Err(Fault::new(Kind::Usage, "no part was named").next("moorage apply-bundle DIR").into());
        };
        let of = first.contents.parts.len();
        let missing: Vec<String> = (0..of)
            .filter(|number| !parts.contains_key(number))
            .map(|number| (number + 1).to_string())
            .collect();
        if !missing.is_empty() {
            return Err(Fault::new(
                Kind::NotFound,
                format!("parts of the bundle are missing: {} of {of}", missing.join(", ")),
            )
            .remains("nothing was changed")
            .next("bring them too, and name all parts; one alone is verified by --dry-run")
            .into());
        }
        Ok(parts)
    }

    /// Puts all into the registry in `directory`.
    pub fn run(&self, directory: &Path) -> Result<Applied> {
        let parts = self.open()?;
        let contents =
            parts.values().next().map(|(_, part)| part.contents.clone()).context("there is a part")?;
        let id = parts.values().next().map(|(_, part)| part.id.clone()).unwrap_or_default();
        let storage = Storage::at(directory);
        let mut incoming = Incoming::new(directory, &storage, &contents)?;
        incoming.check_room()?;
        let total: u64 = contents.entries.iter().map(|entry| entry.size).sum();
        let mut done = 0;
        self.reporter.begin(STEP, format!("{} in {} parts", ByteSize(total), parts.len()));
        for (path, part) in parts.values() {
            part.each(path, false, |signed, source| {
                incoming.take(signed, source)?;
                done += signed.piece.length;
                self.reporter.progress(STEP, done, Some(total), Unit::Bytes);
                Ok(())
            })?;
            crate::failpoint::reach("bundle-part");
        }
        let (new_blobs, new_bytes) = incoming.store()?;
        crate::failpoint::reach("bundle-stored");
        let before = read(directory)?;
        name(&storage, &contents)?;
        self.reporter.end(STEP, "all of it is in the registry");
        let images = report(&contents, &before, &read(directory)?)?;
        let blobs = contents.entries.iter().filter(|entry| entry.path.starts_with("blobs/")).count();
        Ok(Applied { bundle: id, images, new_blobs, new_bytes, known_blobs: blobs - new_blobs })
    }

    /// Writes the files that are no images into a directory: programs, the authority. Every part that has one is verified.
    pub fn programs(&self, to: &Path) -> Result<Vec<PathBuf>> {
        let mut written = Vec::new();
        std::fs::create_dir_all(to).with_context(|| format!("make {}", to.display()))?;
        // One that is larger than a part comes in pieces.
        let mut coming: BTreeMap<usize, tempfile::NamedTempFile> = BTreeMap::new();
        for (path, part) in self.open()?.values() {
            part.each(path, false, |signed, source| {
                let entry = &part.contents.entries[signed.piece.item];
                if !entry.path.starts_with("programs/") {
                    return Ok(());
                }
                if signed.piece.offset == 0 {
                    coming.insert(signed.piece.item, tempfile::NamedTempFile::new_in(to)?);
                }
                let file =
                    coming.get_mut(&signed.piece.item).context("a file begins with its first piece")?;
                std::io::copy(source, file)?;
                Ok(())
            })?;
            // What is here now is as it was signed.
            for signed in &part.contents.parts[part.number] {
                let entry = &part.contents.entries[signed.piece.item];
                let Some(name) = entry.path.strip_prefix("programs/") else { continue };
                if signed.piece.offset + signed.piece.length < entry.size {
                    continue;
                }
                let Some(file) = coming.remove(&signed.piece.item) else { continue };
                use std::os::unix::fs::PermissionsExt as _;
                let mode = if name.ends_with(".crt") { 0o644 } else { 0o755 };
                file.as_file().set_permissions(std::fs::Permissions::from_mode(mode))?;
                let target = to.join(name.replace('/', "-"));
                file.persist(&target).with_context(|| format!("write {}", target.display()))?;
                written.push(target);
            }
        }
        Ok(written)
    }
}

/// Blobs that are not all there yet.
struct Incoming<'a> {
    directory: PathBuf,
    storage: &'a Storage,
    contents: &'a Contents,
    /// Items of the contents that the registry has, as it should be.
    known: BTreeSet<usize>,
    arrived: BTreeSet<usize>,
}

impl<'a> Incoming<'a> {
    fn new(directory: &Path, storage: &'a Storage, contents: &'a Contents) -> Result<Incoming<'a>> {
        let incoming = directory.join(INCOMING);
        std::fs::create_dir_all(&incoming).with_context(|| format!("make {}", incoming.display()))?;
        let known = contents.entries.iter().enumerate().filter(|(_, entry)| {
            entry.path == blob_path(&entry.digest) && is_whole(&storage.blob(&entry.digest), &entry.digest)
        });
        let known = known.map(|(item, _)| item).collect();
        Ok(Incoming { directory: incoming, storage, contents, known, arrived: BTreeSet::new() })
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.directory.join(digest.hex())
    }

    fn is_blob(&self, item: usize) -> bool {
        let entry = &self.contents.entries[item];
        entry.path == blob_path(&entry.digest)
    }

    fn check_room(&self) -> Result<()> {
        let needed = self
            .contents
            .entries
            .iter()
            .enumerate()
            .filter(|(item, _)| self.is_blob(*item) && !self.known.contains(item));
        let needed: u64 = needed.map(|(_, entry)| entry.size).sum();
        let here = std::fs::read_dir(&self.directory)?.filter_map(|entry| entry.ok()?.metadata().ok());
        let here: u64 = here.map(|found| found.len()).sum();
        let disk = rustix::fs::statvfs(&self.directory).context("ask how full the disk is")?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match needed > free.saturating_add(here) {
            true => Err(Fault::new(Kind::Failed, "the registry's disk has no room for the bundle")
                .why(format!("{} are needed, {} are free", ByteSize(needed), ByteSize(free)))
                .remains("nothing was changed")
                .next("make room (moorage collect-garbage), then run the same command again")
                .into()),
            false => Ok(()),
        }
    }

    /// Takes a piece, unless it is here; then it is not read.
    fn take(&mut self, signed: &Signed, source: &mut dyn Read) -> Result<()> {
        let item = signed.piece.item;
        if !self.is_blob(item) || self.known.contains(&item) || self.arrived.contains(&item) {
            return Ok(());
        }
        let entry = &self.contents.entries[item];
        let path = self.path(&entry.digest);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.with_context(|| format!("write {}", path.display()))?;
        // A run before this one may have got so far.
        if !has(&mut file, signed)? {
            file.seek(SeekFrom::Start(signed.piece.offset))?;
            // Whoever gave the source says so where it is not what was signed.
            let copied =
                std::io::copy(source, &mut file).with_context(|| format!("write {}", path.display()))?;
            if copied < signed.piece.length {
                return Ok(());
            }
        }
        if signed.piece.offset + signed.piece.length == entry.size {
            file.flush()?;
            file.set_len(entry.size)?;
            self.arrived.insert(item);
        }
        Ok(())
    }

    /// Gives the server all blobs, which nothing names yet; answers how many, and their bytes.
    fn store(&self) -> Result<(usize, u64)> {
        // A blob that is there after a power cut has to be whole: the server believes its name.
        let directory = File::open(&self.directory)?;
        rustix::fs::syncfs(&directory).context("sync the registry's disk")?;
        let cut: BTreeSet<usize> = self
            .contents
            .parts
            .iter()
            .flatten()
            .filter_map(|signed| {
                (signed.piece.length != self.contents.entries.get(signed.piece.item)?.size)
                    .then_some(signed.piece.item)
            })
            .collect();
        // Each piece is as it was signed; that they belong together only the whole says.
        if let Some(item) = self.arrived.intersection(&cut).find(|item| {
            let digest = &self.contents.entries[**item].digest;
            !is_whole(&self.path(digest), digest)
        }) {
            let path = &self.contents.entries[*item].path;
            return Err(Fault::new(Kind::Failed, format!("{path} did not come whole"))
                .remains("nothing of the bundle is visible in the registry")
                .next(format!("rm -r {}, then run the same command again", self.directory.display()))
                .into());
        }
        let mut bytes = 0;
        for item in &self.arrived {
            let entry = &self.contents.entries[*item];
            let to = self.storage.blob(&entry.digest);
            make(to.parent().context("a blob has a directory")?)?;
            std::fs::rename(self.path(&entry.digest), &to)
                .with_context(|| format!("write {}", to.display()))?;
            bytes += entry.size;
        }
        match std::fs::remove_dir_all(&self.directory) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e).context("clear what came"),
            _ => Ok((self.arrived.len(), bytes)),
        }
    }
}

/// Whether a file has just that piece.
fn has(file: &mut File, signed: &Signed) -> Result<bool> {
    if file.metadata()?.len() < signed.piece.offset + signed.piece.length {
        return Ok(false);
    }
    file.seek(SeekFrom::Start(signed.piece.offset))?;
    let mut checked = Checked::new(file.take(signed.piece.length));
    std::io::copy(&mut checked, &mut std::io::sink())?;
    Ok(checked.digest() == signed.digest)
}

fn is_whole(path: &Path, digest: &Digest) -> bool {
    let Ok(file) = File::open(path) else { return false };
    let mut checked = Checked::new(file);
    std::io::copy(&mut checked, &mut std::io::sink()).is_ok() && checked.digest() == *digest
}

/// Names all that is there now, tags last.
fn name(storage: &Storage, contents: &Contents) -> Result<()> {
    let link = |directory: PathBuf, digest: &Digest| -> Result<()> {
        make(&directory)?;
        crate::state::replace(&directory.join("link"), digest.to_string().as_bytes())
    };
    for (name, repository) in &contents.repositories {
        for blob in &repository.blobs {
            link(storage.layer(name, blob), blob)?;
        }
        for manifest in &repository.manifests {
            link(storage.revision(name, manifest), manifest)?;
        }
    }
    for image in &contents.images {
        let tag = storage.tag(&image.repository, &image.tag);
        link(tag.join("index/sha256").join(image.digest.hex()), &image.digest)?;
        link(tag.join("current"), &image.digest)?;
    }
    Ok(())
}

fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))
}

/// Looks whether every image is there with all it needs.
fn report(contents: &Contents, before: &Inventory, now: &Inventory) -> Result<Vec<AppliedImage>> {
    let sizes: BTreeMap<&str, u64> =
        contents.entries.iter().map(|entry| (entry.path.as_str(), entry.size)).collect();
    let mut images = Vec::new();
    for image in &contents.images {
        let bad = |why: &str| {
            Fault::new(Kind::Failed, format!("{} did not come whole", image.name()))
                .why(why)
                .next("run the same command again")
        };
        let tag = |there: &Inventory| {
            there.repositories.get(&image.repository)?.tags.get(&image.tag).map(|tag| tag.digest)
        };
        if tag(now) != Some(image.digest) {
            return Err(bad("somebody has pushed another one since").into());
        }
        let needed = contents.repositories.get(&image.repository);
        let mut blobs = 0;
        for digest in needed.into_iter().flat_map(|needed| needed.manifests.iter().chain(&needed.blobs)) {
            let size = sizes.get(blob_path(digest).as_str()).copied();
            if now.blobs.get(digest).map(|blob| blob.size) != size {
                return Err(bad(&format!("{digest} is missing")).into());
            }
            blobs += 1;
        }
        let before = tag(before).filter(|before| *before != image.digest);
        images.push(AppliedImage { image: image.name(), digest: image.digest, blobs, before });
    }
    Ok(images)
}
