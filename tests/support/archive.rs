//! `/opt` archives, good ones and hostile ones, made byte by byte so that no library refuses.

use std::io::Write as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

struct Entry<'a> {
    kind: EntryType,
    name: &'a str,
    mode: u32,
    target: &'a str,
}

/// An archive that grows entry by entry.
pub struct Archive {
    tar: Builder<Vec<u8>>,
}

impl Archive {
    pub fn new() -> Archive {
        Archive { tar: Builder::new(Vec::new()) }
    }

    /// An archive as a product would have it: a program that says `word`.
    pub fn product(word: &str) -> Archive {
        Archive::new().directory("product").file("product/word", 0o644, word.as_bytes()).file(
            "product/say",
            0o755,
            b"#!/bin/sh\ncat /opt/product/word\n",
        )
    }

    pub fn directory(self, name: &str) -> Archive {
        self.entry(Entry { kind: EntryType::Directory, name, mode: 0o755, target: "" }, &[])
    }

    pub fn file(self, name: &str, mode: u32, content: &[u8]) -> Archive {
        self.entry(Entry { kind: EntryType::Regular, name, mode, target: "" }, content)
    }

    pub fn symlink(self, name: &str, target: &str) -> Archive {
        self.entry(Entry { kind: EntryType::Symlink, name, mode: 0o777, target }, &[])
    }

    pub fn hard_link(self, name: &str, target: &str) -> Archive {
        self.entry(Entry { kind: EntryType::Link, name, mode: 0o644, target }, &[])
    }

    /// The memory device, which nobody but root may read.
    pub fn device(self, name: &str) -> Archive {
        self.entry(Entry { kind: EntryType::Char, name, mode: 0o666, target: "" }, &[])
    }

    fn entry(mut self, entry: Entry<'_>, content: &[u8]) -> Archive {
        let mut header = Header::new_ustar();
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_577_836_800);
        header.set_size(content.len() as u64);
        if entry.kind == EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(1).unwrap();
        }
        // The library would refuse `../`, which is what some tests are about.
        let ustar = header.as_ustar_mut().unwrap();
        ustar.name[..entry.name.len()].copy_from_slice(entry.name.as_bytes());
        ustar.linkname[..entry.target.len()].copy_from_slice(entry.target.as_bytes());
        header.set_cksum();
        self.tar.append(&header, content).unwrap();
        self
    }

    fn bytes(self) -> Vec<u8> {
        self.tar.into_inner().unwrap()
    }

    pub fn zst(self) -> Vec<u8> {
        zstd::encode_all(self.bytes().as_slice(), 3).unwrap()
    }

    pub fn gz(self) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&self.bytes()).unwrap();
        encoder.finish().unwrap()
    }

    pub fn xz(self) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(&self.bytes()).unwrap();
        encoder.finish().unwrap()
    }
}

/// Puts `bytes` where everybody can read them.
pub fn put(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, bytes).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

/// As a project's file writes it.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
