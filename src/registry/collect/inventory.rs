//! All that a registry has, read from its disk as the server lays it out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirEntry, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::links::Storage;
use super::manifest::Manifest;
use crate::spec::Digest;

/// Threads that read: most of it is waiting for a disk.
const READERS: usize = 4;

/// What is there. Times are seconds since 1970, of the registry's own clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    pub repositories: BTreeMap<String, Repository>,
    /// The manifests of all repositories that can be read.
    pub manifests: BTreeMap<Digest, Manifest>,
    pub blobs: BTreeMap<Digest, Blob>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repository {
    pub tags: BTreeMap<String, Tag>,
    /// Its manifests, and when each was pushed last.
    pub manifests: BTreeMap<Digest, i64>,
    /// Its blobs, and when each came into it.
    pub layers: BTreeMap<Digest, i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub digest: Digest,
    /// When it was pushed last.
    pub when: i64,
    /// What it named before.
    pub past: Vec<Digest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Bytes.
    pub size: u64,
    pub when: i64,
}

/// Reads a registry's directory. What goes away meanwhile is left out; anything else that cannot be read is an error.
pub fn read(directory: &Path) -> Result<Inventory> {
    let storage = Storage::at(directory);
    let names = repositories(&storage.repositories())?;
    let mut inventory = Inventory::default();
    for (name, repository) in each(&names, |name| repository(&storage, name))? {
        inventory.repositories.insert(name, repository);
    }
    let prefixes: Vec<String> = list(&storage.blobs())?.iter().map(name_of).collect();
    for (_, found) in each(&prefixes, |prefix| blobs(&storage.blobs().join(prefix)))? {
        inventory.blobs.extend(found);
    }
    let all: BTreeSet<Digest> =
        inventory.repositories.values().flat_map(|repository| repository.manifests.keys().copied()).collect();
    let all: Vec<Digest> = all.into_iter().collect();
    let read = each(&all, |digest| manifest(&storage, digest))?;
    inventory.manifests = read.into_iter().filter_map(|(digest, read)| Some((digest, read?))).collect();
    Ok(inventory)
}

/// The names of all repositories: directories that have one whose name begins with an underscore, as no part of a name does.
fn repositories(top: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut open = vec![String::new()];
    while let Some(name) = open.pop() {
        let mut is_repository = false;
        for entry in list(&top.join(&name))? {
            let part = name_of(&entry);
            if part.starts_with('_') {
                is_repository = true;
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(if name.is_empty() { part } else { format!("{name}/{part}") });
            }
        }
        if is_repository {
            found.push(name);
        }
    }
    found.sort();
    Ok(found)
}

fn repository(storage: &Storage, name: &str) -> Result<Repository> {
    let top = storage.repository(name);
    let mut tags = BTreeMap::new();
    for entry in list(&top.join("_manifests/tags"))? {
        let tag = name_of(&entry);
        if let Some(read) = self::tag(&entry.path())? {
            tags.insert(tag, read);
        }
    }
    Ok(Repository {
        tags,
        manifests: links(&top.join("_manifests/revisions/sha256"))?,
        layers: links(&top.join("_layers/sha256"))?,
    })
}

/// A tag without a link is one that is being made or was half deleted.
fn tag(path: &Path) -> Result<Option<Tag>> {
    let link = path.join("current/link");
    let Some(text) = there(std::fs::read_to_string(&link), &link)? else { return Ok(None) };
    let Some(metadata) = there(std::fs::metadata(&link), &link)? else { return Ok(None) };
    let Ok(digest) = text.trim().parse::<Digest>() else { return Ok(None) };
    let past = list(&path.join("index/sha256"))?;
    let past = past.iter().filter_map(|entry| name_of(entry).parse().ok()).filter(|past| *past != digest);
    Ok(Some(Tag { digest, when: metadata.mtime(), past: past.collect() }))
}

/// Directories named after digests, and when the link in each was written.
fn links(directory: &Path) -> Result<BTreeMap<Digest, i64>> {
    let mut found = BTreeMap::new();
    for entry in list(directory)? {
        let Ok(digest) = name_of(&entry).parse() else { continue };
        if let Some(metadata) = of(&entry.path().join("link"))? {
            found.insert(digest, metadata.mtime());
        }
    }
    Ok(found)
}

fn blobs(directory: &Path) -> Result<Vec<(Digest, Blob)>> {
    let mut found = Vec::new();
    for entry in list(directory)? {
        let Ok(digest) = name_of(&entry).parse() else { continue };
        if let Some(metadata) = of(&entry.path().join("data"))? {
            found.push((digest, Blob { size: metadata.len(), when: metadata.mtime() }));
        }
    }
    Ok(found)
}

/// What a manifest says, with what its configuration says; nothing where it is damaged.
fn manifest(storage: &Storage, digest: &Digest) -> Result<Option<Manifest>> {
    let bytes = |digest: &Digest| {
        let path = storage.blob(digest);
        there(std::fs::read(&path), &path)
    };
    let read = bytes(digest)?.and_then(|bytes| Manifest::read(&bytes));
    let Some(mut manifest) = read else { return Ok(None) };
    if let Some(config) = &manifest.config
        && let Some(bytes) = bytes(config)?
    {
        manifest.learn(&bytes);
    }
    Ok(Some(manifest))
}

/// What `work` makes of each, by several threads.
fn each<T: Clone + Sync + Send, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Result<Vec<(T, R)>> {
    let share = items.len().div_ceil(READERS).max(1);
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items
            .chunks(share)
            .map(|part| {
                scope.spawn(move || {
                    part.iter().map(|item| Ok((item.clone(), work(item)?))).collect::<Result<Vec<_>>>()
                })
            })
            .collect();
        let mut all = Vec::with_capacity(items.len());
        for thread in threads {
            all.extend(thread.join().map_err(|_| anyhow::anyhow!("a reading thread panicked"))??);
        }
        Ok(all)
    })
}

/// What is in a directory; nothing where it is not there.
fn list(directory: &Path) -> Result<Vec<DirEntry>> {
    let Some(entries) = there(std::fs::read_dir(directory), directory)? else { return Ok(Vec::new()) };
    let all: std::io::Result<Vec<DirEntry>> = entries.collect();
    all.with_context(|| format!("list {}", directory.display()))
}

fn name_of(entry: &DirEntry) -> String {
    entry.file_name().to_string_lossy().into_owned()
}

fn of(path: &Path) -> Result<Option<Metadata>> {
    there(std::fs::metadata(path), path)
}

fn there<T>(result: std::io::Result<T>, path: &Path) -> Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storage_is_read_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), Inventory::default());
        let storage = Storage::at(directory.path());
        let put = |path: std::path::PathBuf, text: &str| {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let (layer, image, lost) = (Digest([1; 32]), Digest([2; 32]), Digest([3; 32]));
        put(storage.blob(&layer), "12345");
        put(storage.blob(&image), &format!(r#"{{"layers":[{{"digest":"{layer}"}}]}}"#));
        for repository in ["a", "a/b"] {
            put(storage.layer(repository, &layer).join("link"), &layer.to_string());
            put(storage.revision(repository, &image).join("link"), &image.to_string());
        }
        put(storage.revision("a", &lost).join("link"), &lost.to_string());
        put(storage.tag("a/b", "1").join("current/link"), &image.to_string());
        put(storage.tag("a/b", "1").join(format!("index/sha256/{}/link", lost.hex())), "");
        put(storage.tag("a/b", "1").join(format!("index/sha256/{}/link", image.hex())), "");
        std::fs::create_dir_all(storage.tag("a/b", "half").join("current")).unwrap();
        std::fs::create_dir_all(storage.repository("c").join("_uploads/x")).unwrap();

        let read = read(directory.path()).unwrap();
        assert_eq!(read.repositories.keys().collect::<Vec<_>>(), ["a", "a/b", "c"]);
        let both = &read.repositories["a/b"];
        assert_eq!((both.tags["1"].digest, &both.tags["1"].past), (image, &vec![lost]));
        assert_eq!((both.tags.len(), both.layers.len(), both.manifests.len()), (1, 1, 1));
        assert_eq!(read.repositories["a"].manifests.len(), 2);
        assert_eq!(read.blobs[&layer].size, 5);
        assert!(read.blobs[&layer].when > 1_000_000_000);
        assert_eq!(read.manifests.keys().collect::<Vec<_>>(), [&image]);
        assert_eq!(read.manifests[&image].blobs, [layer]);
    }
}
