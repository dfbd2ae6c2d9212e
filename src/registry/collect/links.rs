//! Where the server keeps what (distribution, registry/storage/paths.go).

use std::path::{Path, PathBuf};

use crate::spec::Digest;

const V2: &str = "docker/registry/v2";

/// The storage of a registry.
#[derive(Debug, Clone)]
pub struct Storage(PathBuf);

impl Storage {
    pub fn at(directory: &Path) -> Storage {
        Storage(directory.join(V2))
    }

    pub fn repositories(&self) -> PathBuf {
        self.0.join("repositories")
    }

    pub fn repository(&self, name: &str) -> PathBuf {
        self.repositories().join(name)
    }

    /// Its directories are `<first two digits>/<digest>`.
    pub fn blobs(&self) -> PathBuf {
        self.0.join("blobs/sha256")
    }

    pub fn blob(&self, digest: &Digest) -> PathBuf {
        let hex = digest.hex();
        self.blobs().join(&hex[..2]).join(&hex).join("data")
    }

    /// With `current/link` and `index/sha256/<digest>/link` for all that it ever named.
    pub fn tag(&self, repository: &str, tag: &str) -> PathBuf {
        self.repository(repository).join("_manifests/tags").join(tag)
    }

    /// A manifest of a repository: a directory with a `link`.
    pub fn revision(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.repository(repository).join("_manifests/revisions/sha256").join(digest.hex())
    }

    /// A blob of a repository: a directory with a `link`.
    pub fn layer(&self, repository: &str, digest: &Digest) -> PathBuf {
        self.repository(repository).join("_layers/sha256").join(digest.hex())
    }
}
