//! Layers into one, as if they were applied one on another (image specification, "Image Layer Filesystem Changeset").

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tar::{Builder, Entry, EntryType, Header};

/// What a whiteout's name begins with, and the name that says that a directory hides all that is below it in lower layers.
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";

/// What upper layers have at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    Directory,
    /// A file, a link, or nothing any more: what lower layers have there, and below, is hidden.
    Other,
}

#[derive(Debug, Default)]
struct Above {
    has: HashMap<PathBuf, Has>,
    opaque: HashSet<PathBuf>,
}

impl Above {
    /// Whether nothing that a lower layer has in the directory of `path` can be seen.
    fn hides_beside(&self, path: &Path) -> bool {
        path.ancestors().skip(1).any(|above| {
            self.opaque.contains(above) || self.has.get(above).is_some_and(|has| *has == Has::Other)
        })
    }

    fn hides(&self, path: &Path) -> bool {
        self.has.contains_key(path) || self.hides_beside(path)
    }
}

/// An entry's meaning.
enum Change {
    Opaque(PathBuf),
    Gone(PathBuf),
    Is(PathBuf, Has),
}

fn change(path: &Path, kind: EntryType) -> Change {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let parent = path.parent().unwrap_or(Path::new("")).to_owned();
    match name.strip_prefix(WHITEOUT) {
        _ if name == OPAQUE => Change::Opaque(parent),
        Some(gone) => Change::Gone(parent.join(gone)),
        None if kind == EntryType::Directory => Change::Is(path.to_owned(), Has::Directory),
        None => Change::Is(path.to_owned(), Has::Other),
    }
}

/// Without `./` before it and `/` behind it.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect()
}

/// Writes what the layers, lowest first, are together: uncompressed tars, all of them; blocks.
pub(super) fn merge(layers: &[PathBuf], to: &Path) -> Result<()> {
    let file = File::create(to).with_context(|| format!("write {}", to.display()))?;
    let mut out = Builder::new(BufWriter::new(file));
    let mut above = Above::default();
    for layer in layers.iter().rev() {
        one(layer, &mut above, &mut out).with_context(|| format!("read {}", layer.display()))?;
    }
    out.into_inner().and_then(|mut file| file.flush()).context("write the layer")
}

fn open(layer: &Path) -> Result<tar::Archive<BufReader<File>>> {
    Ok(tar::Archive::new(BufReader::new(File::open(layer)?)))
}

/// Hard links whose file a higher layer has replaced: the first of them gets what the file was.
fn heirs(layer: &Path, above: &Above) -> Result<HashMap<PathBuf, PathBuf>> {
    let mut heirs = HashMap::new();
    for entry in open(layer)?.entries()? {
        let entry = entry?;
        if entry.header().entry_type() != EntryType::Link {
            continue;
        }
        let (path, target) = (plain(&entry.path()?), plain(&entry.link_name()?.unwrap_or_default()));
        if above.hides(&target) && !above.hides(&path) {
            heirs.entry(target).or_insert(path);
        }
    }
    Ok(heirs)
}

fn one(layer: &Path, above: &mut Above, out: &mut Builder<impl Write>) -> Result<()> {
    let heirs = heirs(layer, above)?;
    let mut here = Above::default();
    for entry in open(layer)?.entries()? {
        let mut entry = entry?;
        let (path, kind) = (plain(&entry.path()?), entry.header().entry_type());
        match change(&path, kind) {
            Change::Opaque(directory) => {
                if !above.hides_beside(&directory) && above.has.get(&directory) != Some(&Has::Other) {
                    opaque(&directory, above, &mut here, out)?;
                }
            }
            Change::Gone(gone) => match above.has.get(&gone) {
                _ if above.hides_beside(&gone) => {}
                // It is there again: what the base has in it stays hidden.
                Some(Has::Directory) => opaque(&gone, above, &mut here, out)?,
                Some(Has::Other) => {}
                None => {
                    out.append_data(&mut empty(), &path, std::io::empty())?;
                    here.has.insert(gone, Has::Other);
                }
            },
            Change::Is(path, has) => {
                let heir = heirs.get(&path).filter(|_| kind.is_file());
                if let Some(heir) = heir {
                    put(&mut entry, heir, None, out)?;
                }
                if above.hides(&path) {
                    let is_directory = above.has.get(&path) == Some(&Has::Directory);
                    if is_directory && has == Has::Other && !above.hides_beside(&path) {
                        opaque(&path, above, &mut here, out)?;
                    }
                    continue;
                }
                here.has.insert(path.clone(), has);
                let target = match kind {
                    EntryType::Link => Some(plain(&entry.link_name()?.unwrap_or_default())),
                    _ => None,
                };
                match target.map(|target| heirs.get(&target).cloned().unwrap_or(target)) {
                    // It has been put already, in place of its file.
                    Some(target) if target == path => {}
                    target => put(&mut entry, &path, target.as_deref(), out)?,
                }
            }
        }
    }
    above.has.extend(here.has);
    above.opaque.extend(here.opaque);
    Ok(())
}

/// Once only: an archive may not name anything twice.
fn opaque(directory: &Path, above: &Above, here: &mut Above, out: &mut Builder<impl Write>) -> Result<()> {
    if !above.opaque.contains(directory) && here.opaque.insert(directory.to_owned()) {
        out.append_data(&mut empty(), directory.join(OPAQUE), std::io::empty())?;
    }
    Ok(())
}

fn empty() -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(0o600);
    header.set_size(0);
    header
}

/// Writes the entry under `path`, a hard link to `target` where it is one, with its extended attributes.
fn put(
    entry: &mut Entry<'_, impl Read>,
    path: &Path,
    target: Option<&Path>,
    out: &mut Builder<impl Write>,
) -> Result<()> {
    let mut attributes = Vec::new();
    for extension in entry.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        let key = extension.key().unwrap_or_default().to_owned();
        if key.starts_with("SCHILY.xattr.") {
            attributes.push((key, extension.value_bytes().to_owned()));
        }
    }
    if !attributes.is_empty() {
        out.append_pax_extensions(attributes.iter().map(|(key, value)| (key.as_str(), value.as_slice())))?;
    }
    let mut header = entry.header().clone();
    match (header.entry_type(), target, entry.link_name()?.map(|name| name.into_owned())) {
        (_, Some(target), _) => out.append_link(&mut header, path, target)?,
        (EntryType::Symlink, None, Some(target)) => out.append_link(&mut header, path, target)?,
        _ => {
            // Of a header in the PAX form the size may stand elsewhere.
            header.set_size(entry.size());
            out.append_data(&mut header, path, entry)?;
        }
    }
    Ok(())
}
