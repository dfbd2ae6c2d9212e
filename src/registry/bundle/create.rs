//! Writing a bundle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Cursor, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use globset::{GlobBuilder, GlobSetBuilder};
use serde::Serialize;
use sha2::Digest as _;

use super::contents::{
    CONTENTS, Contents, Entry, Image, NUMBER, Repository, SCHEMA, SIGNATURE, Signed, blob_path,
};
use super::part::{Checked, header};
use super::sign::Signer;
use super::split::{Piece, entry, split};
use crate::registry::collect::{Inventory, Storage, in_use, read};
use crate::report::{Fault, Kind, Reporter, Unit};
use crate::spec::{ByteSize, Digest};

const STEP: &str = "bundle";
/// Room for the signature, the number and the ends of lines in each part, bytes.
const SLACK: u64 = 8 << 10;

/// What is to be bundled. Blocks.
pub struct Create<'a> {
    /// The registry's directory.
    pub directory: &'a Path,
    /// `repository:tag` patterns; without one all tags.
    pub patterns: &'a [String],
    /// The most that a part may have, bytes.
    pub limit: u64,
    pub signer: &'a Signer,
    pub programs: &'a [Program],
    pub reporter: &'a Reporter,
}

/// A file that goes along.
#[derive(Debug, Clone)]
pub struct Program {
    /// Its path in the bundle.
    pub name: String,
    pub path: PathBuf,
}

/// What was made, or would be.
#[derive(Debug, Clone, Serialize)]
pub struct Created {
    /// The first digits of its contents' digest.
    pub bundle: String,
    /// Who applies it has to have this by another way.
    pub key: String,
    pub images: Vec<Image>,
    pub parts: Vec<PathBuf>,
    /// Parts that an earlier run had written.
    pub kept: usize,
    pub bytes: u64,
}

/// Where an entry's bytes come from.
enum Source {
    File(PathBuf),
    Bytes(Vec<u8>),
}

impl Source {
    fn open(&self, piece: &Piece) -> Result<Box<dyn Read + '_>> {
        Ok(match self {
            Source::Bytes(bytes) => Box::new(Cursor::new(bytes)),
            Source::File(path) => {
                let mut file = File::open(path).with_context(|| format!("open {}", path.display()))?;
                file.seek(SeekFrom::Start(piece.offset))?;
                Box::new(file.take(piece.length))
            }
        })
    }
}

impl Create<'_> {
    /// Writes the parts into `to`: those that an earlier run has written stay as they are.
    pub fn run(&self, to: &Path, dry_run: bool) -> Result<Created> {
        let there = read(self.directory)?;
        let images = self.choose(&there)?;
        let (mut entries, mut sources) = (Vec::new(), Vec::new());
        let mut add = |path: String, digest: Digest, size: u64, source: Source| {
            entries.push(Entry { path, digest, size });
            sources.push(source);
        };
        for program in self.programs {
            let mut file =
                File::open(&program.path).with_context(|| format!("open {}", program.path.display()))?;
            let (digest, size) = digest_of(&mut file)?;
            add(program.name.clone(), digest, size, Source::File(program.path.clone()));
        }
        let (repositories, blobs) = whole(&there, &images)?;
        let storage = Storage::at(self.directory);
        for (name, text) in layout(&storage, &images)? {
            let digest = Digest(sha2::Sha256::digest(&text).into());
            add(name, digest, text.len() as u64, Source::Bytes(text));
        }
        for (digest, size) in blobs {
            add(blob_path(&digest), digest, size, Source::File(storage.blob(&digest)));
        }
        let newest = images.iter().filter_map(|image| {
            there.repositories.get(&image.repository)?.tags.get(&image.tag).map(|tag| tag.when)
        });
        let mut contents = Contents {
            schema: SCHEMA,
            newest: newest.max().unwrap_or_default(),
            images,
            repositories,
            entries,
            parts: Vec::new(),
        };
        contents.parts = self.parts(&contents)?;
        for signed in contents.parts.iter_mut().flatten() {
            let entry = &contents.entries[signed.piece.item];
            signed.digest = match signed.piece.length == entry.size {
                true => entry.digest,
                false => digest_of(&mut sources[signed.piece.item].open(&signed.piece)?)?.0,
            };
        }
        let bytes = contents.bytes()?;
        let signature = self.signer.sign(&bytes)?;
        let mut created = Created {
            bundle: Contents::id(&bytes),
            key: self.signer.public()?,
            images: contents.images.clone(),
            parts: Vec::new(),
            kept: 0,
            bytes: contents.entries.iter().map(|entry| entry.size).sum(),
        };
        let writing =
            Writing { contents: &contents, bytes: &bytes, signature: &signature, sources: &sources };
        for number in 0..contents.parts.len() {
            let path = to.join(format!("part-{:03}.tar", number + 1));
            if !dry_run && self.write(&writing, number, &path)? {
                created.kept += 1;
            }
            created.parts.push(path);
        }
        Ok(created)
    }

    /// The tags that were asked for.
    fn choose(&self, there: &Inventory) -> Result<Vec<Image>> {
        let mut images = Vec::new();
        for (repository, home) in &there.repositories {
            if repository != in_use::REPOSITORY {
                images.extend(home.tags.iter().map(|(tag, found)| Image {
                    repository: repository.clone(),
                    tag: tag.clone(),
                    digest: found.digest,
                }));
            }
        }
        if self.patterns.is_empty() {
            return Ok(images);
        }
        let mut all = GlobSetBuilder::new();
        for pattern in self.patterns {
            let glob = GlobBuilder::new(pattern).literal_separator(true).build().map_err(|e| {
                Fault::new(Kind::Usage, format!("{pattern:?} is no pattern for images"))
                    .why(e.kind().to_string())
                    .next("for example 'team/*:9.?'")
            })?;
            let matcher = glob.compile_matcher();
            if !images.iter().any(|image| matcher.is_match(image.name())) {
                return Err(Fault::new(Kind::NotFound, format!("the registry has no {pattern}"))
                    .next("moorage show-registry")
                    .into());
            }
            all.add(glob);
        }
        let all = all.build()?;
        images.retain(|image| all.is_match(image.name()));
        Ok(images)
    }

    /// What goes into which part. The contents are part of each, and name the parts.
    fn parts(&self, contents: &Contents) -> Result<Vec<Vec<Signed>>> {
        let sizes: Vec<u64> = contents.entries.iter().map(|entry| entry.size).collect();
        let mut reserved = 0;
        loop {
            let parts = split(&sizes, self.limit, reserved).ok_or_else(|| {
                Fault::new(Kind::Usage, format!("parts of {} are too small", ByteSize(self.limit)))
                    .why(format!("what each part says of the whole has {}", ByteSize(reserved)))
                    .next("give a larger --part-size")
            })?;
            let signed = |piece| Signed { piece, digest: Digest([0; 32]) };
            let parts: Vec<Vec<Signed>> =
                parts.into_iter().map(|part| part.into_iter().map(signed).collect()).collect();
            let with = Contents { parts: parts.clone(), ..contents.clone() };
            let needed = entry(with.bytes()?.len() as u64) + SLACK;
            if needed <= reserved {
                return Ok(parts);
            }
            // More parts take more words.
            reserved = needed + needed / 16;
        }
    }

    /// Whether the part was there already.
    fn write(&self, writing: &Writing<'_>, number: usize, path: &Path) -> Result<bool> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Ok(head) = header(path)
            && head.bytes == writing.bytes
            && head.number == number
            && std::fs::metadata(path).is_ok_and(|found| found.len() == writing.size(number))
        {
            self.reporter.end(STEP, format!("{name}: is there"));
            return Ok(true);
        }
        self.reporter.begin(STEP, name.as_str());
        let partial = path.with_extension("partial");
        let write = || -> Result<()> {
            let mut tar =
                tar::Builder::new(std::io::BufWriter::with_capacity(1 << 20, File::create(&partial)?));
            for (name, bytes) in [
                (CONTENTS, writing.bytes),
                (SIGNATURE, writing.signature.as_bytes()),
                (NUMBER, format!("{}\n", number + 1).as_bytes()),
            ] {
                tar.append_data(&mut head(bytes.len() as u64), name, bytes)?;
            }
            let pieces = &writing.contents.parts[number];
            let total: u64 = pieces.iter().map(|signed| signed.piece.length).sum();
            let mut done = 0;
            for signed in pieces {
                let name = writing.contents.name(signed).context("an entry has a name")?;
                let source = writing.sources[signed.piece.item].open(&signed.piece)?;
                let mut source = Checked::new(source);
                tar.append_data(&mut head(signed.piece.length), &name, &mut source)?;
                if source.digest() != signed.digest {
                    return Err(Fault::new(Kind::Failed, format!("{name} is not what its digest says"))
                        .why("the registry's disk, or a program that writes there, has damaged it")
                        .next("publish the image again that it is of, then run this again")
                        .into());
                }
                done += signed.piece.length;
                self.reporter.progress(STEP, done, Some(total), Unit::Bytes);
            }
            let file = tar.into_inner()?.into_inner().map_err(|e| e.into_error())?;
            file.sync_all()?;
            std::fs::rename(&partial, path)?;
            Ok(())
        };
        let written = write().with_context(|| format!("write {}", path.display()));
        if written.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        written?;
        self.reporter.end(STEP, format!("{name}: written"));
        Ok(false)
    }
}

struct Writing<'a> {
    contents: &'a Contents,
    bytes: &'a [u8],
    signature: &'a str,
    sources: &'a [Source],
}

impl Writing<'_> {
    /// Bytes of a part's file.
    fn size(&self, number: usize) -> u64 {
        let fixed = [self.bytes.len(), self.signature.len(), format!("{}\n", number + 1).len()];
        let pieces = self.contents.parts[number].iter().map(|signed| signed.piece.length);
        fixed.into_iter().map(|bytes| bytes as u64).chain(pieces).map(entry).sum::<u64>() + 1024
    }
}

impl Image {
    pub fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

fn head(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}

/// What these images need in each repository: their manifests with those of an index and what was attached, and all blobs.
fn whole(
    there: &Inventory,
    images: &[Image],
) -> Result<(BTreeMap<String, Repository>, BTreeMap<Digest, u64>)> {
    let mut repositories: BTreeMap<String, (BTreeSet<Digest>, BTreeSet<Digest>)> = BTreeMap::new();
    let mut sizes = BTreeMap::new();
    for image in images {
        let damaged = |what: Digest| {
            Fault::new(Kind::Failed, format!("{} is not whole in the registry", image.name()))
                .why(format!("{what} is missing"))
                .next("publish it again, or leave it out")
        };
        let home = there.repositories.get(&image.repository).ok_or_else(|| damaged(image.digest))?;
        let (manifests, blobs) = repositories.entry(image.repository.clone()).or_default();
        let mut open = vec![image.digest];
        while let Some(digest) = open.pop() {
            if !manifests.insert(digest) {
                continue;
            }
            let manifest = there.manifests.get(&digest).ok_or_else(|| damaged(digest))?;
            blobs.extend(manifest.blobs.iter().copied());
            open.extend(manifest.children.iter().copied());
            let attached = home.manifests.keys().filter(|other| {
                there.manifests.get(other).is_some_and(|manifest| manifest.subject == Some(digest))
            });
            open.extend(attached.copied());
            for blob in manifest.blobs.iter().chain([&digest]) {
                sizes.insert(*blob, there.blobs.get(blob).ok_or_else(|| damaged(*blob))?.size);
            }
        }
    }
    let repositories = repositories.into_iter().map(|(name, (manifests, blobs))| {
        let (manifests, blobs) = (manifests.into_iter().collect(), blobs.into_iter().collect());
        (name, Repository { manifests, blobs })
    });
    Ok((repositories.collect(), sizes))
}

/// What makes the unpacked parts an OCI image layout (image specification, image-layout.md).
fn layout(storage: &Storage, images: &[Image]) -> Result<Vec<(String, Vec<u8>)>> {
    let mut manifests = Vec::new();
    for image in images {
        let path = storage.blob(&image.digest);
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let manifest: serde_json::Value = serde_json::from_slice(&bytes)?;
        let kind = match manifest.get("manifests") {
            Some(_) => "application/vnd.oci.image.index.v1+json",
            None => "application/vnd.oci.image.manifest.v1+json",
        };
        manifests.push(serde_json::json!({
            "mediaType": manifest["mediaType"].as_str().unwrap_or(kind),
            "digest": image.digest,
            "size": bytes.len(),
            "annotations": { "org.opencontainers.image.ref.name": image.name() },
        }));
    }
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    Ok(vec![
        ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".into(), serde_json::to_vec(&index)?),
    ])
}

fn digest_of(source: &mut dyn Read) -> Result<(Digest, u64)> {
    let mut checked = Checked::new(source);
    let size = std::io::copy(&mut checked, &mut std::io::sink())?;
    Ok((checked.digest(), size))
}
