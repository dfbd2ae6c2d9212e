//! What a registry has, read from its disk as the server lays it out, so that it need not run.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use walkdir::WalkDir;

/// Where repositories and blobs are (distribution, registry/storage/paths.go).
const REPOSITORIES: &str = "docker/registry/v2/repositories";

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repository {
    pub name: String,
    pub tags: Vec<String>,
}

/// The repositories that have a tag, by name, each with its tags.
pub fn repositories(directory: &Path) -> Result<Vec<Repository>> {
    let top = directory.join(REPOSITORIES);
    let mut found = Vec::new();
    if !top.exists() {
        return Ok(found);
    }
    // What begins with an underscore is the server's; a repository's name never does.
    let walk = WalkDir::new(&top).sort_by_file_name().into_iter().filter_entry(|entry| {
        entry.file_type().is_dir() && !entry.file_name().to_string_lossy().starts_with('_')
    });
    for entry in walk {
        let entry = match entry {
            Ok(entry) => entry,
            Err(e) if gone(&e) => continue,
            Err(e) => return Err(e).context("list the repositories"),
        };
        let mut tags = Vec::new();
        for tag in
            WalkDir::new(entry.path().join("_manifests/tags")).min_depth(1).max_depth(1).sort_by_file_name()
        {
            match tag {
                // A tag without a link is one that is being made or was half deleted.
                Ok(tag) if tag.path().join("current/link").exists() => {
                    tags.push(tag.file_name().to_string_lossy().into_owned());
                }
                Ok(_) => {}
                Err(e) if gone(&e) => {}
                Err(e) => return Err(e).context("list the tags"),
            }
        }
        let name = entry.path().strip_prefix(&top)?.to_string_lossy().into_owned();
        if !tags.is_empty() {
            found.push(Repository { name, tags });
        }
    }
    Ok(found)
}

/// What it takes on the disk, in bytes.
pub fn bytes(directory: &Path) -> Result<u64> {
    let mut blocks = 0;
    for entry in WalkDir::new(directory) {
        match entry.and_then(|entry| entry.metadata()) {
            // st_blocks counts 512 bytes each, whatever the filesystem's own are (stat(3type)).
            Ok(metadata) => blocks += metadata.blocks(),
            Err(e) if gone(&e) => {}
            Err(e) => return Err(e).context("measure the registry's directory"),
        }
    }
    Ok(blocks * 512)
}

/// Whether something went away while it was looked at, or was never there.
fn gone(error: &walkdir::Error) -> bool {
    error.io_error().is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_with_their_tags() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(repositories(directory.path()).unwrap(), []);
        let top = directory.path().join(REPOSITORIES);
        for tag in ["opt/siem/_manifests/tags/9.2", "opt/siem/_manifests/tags/9.10", "opt/_manifests/tags/x"]
        {
            std::fs::create_dir_all(top.join(tag).join("current")).unwrap();
            std::fs::write(top.join(tag).join("current/link"), "sha256:1").unwrap();
        }
        std::fs::create_dir_all(top.join("half/_manifests/tags/made")).unwrap();
        std::fs::create_dir_all(top.join("none/_uploads/a/b")).unwrap();
        let repository = |name: &str, tags: &[&str]| Repository {
            name: name.into(),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        };
        let found = repositories(directory.path()).unwrap();
        assert_eq!(found, [repository("opt", &["x"]), repository("opt/siem", &["9.10", "9.2"])]);
    }

    #[test]
    fn bytes_are_those_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let before = bytes(directory.path()).unwrap();
        std::fs::write(directory.path().join("a"), vec![1; 100_000]).unwrap();
        assert!(bytes(directory.path()).unwrap() - before >= 100_000);
        assert_eq!(bytes(&directory.path().join("absent")).unwrap(), 0);
    }
}
