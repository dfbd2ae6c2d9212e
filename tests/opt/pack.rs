//! Archives, well-formed and hostile, made from raw headers.

use std::io::Write as _;

use tar::{EntryType, Header};

pub struct Pack(tar::Builder<Vec<u8>>);

impl Pack {
    pub fn new() -> Pack {
        Pack(tar::Builder::new(Vec::new()))
    }

    /// The name goes in as it is: the library would refuse the hostile ones.
    fn header(kind: EntryType, name: &str, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(0);
        header
    }

    pub fn directory(self, name: &str, mode: u32) -> Pack {
        self.entry(Pack::header(EntryType::Directory, name, mode), b"")
    }

    pub fn file(self, name: &str, content: &[u8]) -> Pack {
        self.file_mode(name, content, 0o644)
    }

    pub fn file_mode(self, name: &str, content: &[u8], mode: u32) -> Pack {
        self.entry(Pack::header(EntryType::Regular, name, mode), content)
    }

    pub fn owned(self, name: &str, uid: u64, gid: u64, mode: u32) -> Pack {
        let mut header = Pack::header(EntryType::Regular, name, mode);
        header.set_uid(uid);
        header.set_gid(gid);
        self.entry(header, b"owned")
    }

    pub fn link(self, kind: EntryType, name: &str, target: &str) -> Pack {
        let mut header = Pack::header(kind, name, 0o777);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.entry(header, b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Pack {
        self.link(EntryType::Symlink, name, target)
    }

    pub fn hard_link(self, name: &str, target: &str) -> Pack {
        self.link(EntryType::Link, name, target)
    }

    pub fn special(self, kind: EntryType, name: &str, major: u32, minor: u32) -> Pack {
        let mut header = Pack::header(kind, name, 0o666);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.entry(header, b"")
    }

    pub fn pax(mut self, extensions: &[(&str, &[u8])]) -> Pack {
        self.0.append_pax_extensions(extensions.iter().copied()).unwrap();
        self
    }

    /// 1 MiB of which only the last 512 bytes are there.
    pub fn sparse(self, name: &str) -> Pack {
        let mut header = Pack::header(EntryType::GNUSparse, name, 0o644);
        {
            let gnu = header.as_gnu_mut().unwrap();
            gnu.set_real_size(1 << 20);
            gnu.sparse[0].set_offset((1 << 20) - 512);
            gnu.sparse[0].set_length(512);
        }
        self.entry(header, &[7; 512])
    }

    pub fn entry(mut self, mut header: Header, content: &[u8]) -> Pack {
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn tar(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

pub fn xz(tar: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).unwrap()
}

/// Bytes that do not compress.
pub fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..size).map(|_| next()).collect()
}
