//! Where the registry's files are, and what is chosen for it. Everything but the images is below one directory.

use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::name::Name;
use crate::report::{Fault, Kind};

/// What was chosen when the registry was started; the next start goes on with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub names: Vec<Name>,
    /// Where everybody pulls.
    pub port: u16,
    /// Where publishers push.
    pub push_port: u16,
    /// Where the images are.
    pub directory: PathBuf,
    /// Signs the state of uploads.
    pub secret: String,
}

/// The registry's directory.
#[derive(Debug, Clone)]
pub struct Place {
    root: PathBuf,
}

/// Keeps other commands from changing the registry while it lives.
#[must_use]
#[derive(Debug)]
pub struct Lock(#[allow(dead_code, reason = "closing it unlocks")] File);

impl Place {
    pub fn of_this_host() -> Place {
        Place::at(Path::new("/var/lib/moorage/registry"))
    }

    pub fn at(root: &Path) -> Place {
        Place { root: root.to_owned() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the images are unless somebody wants them elsewhere.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    pub fn settings_file(&self) -> PathBuf {
        self.root.join("registry.json")
    }

    /// What a client host has to be told.
    pub fn authority(&self) -> PathBuf {
        self.root.join("ca.crt")
    }

    pub fn authority_key(&self) -> PathBuf {
        self.root.join("ca.key")
    }

    pub fn certificate(&self) -> PathBuf {
        self.root.join("server.crt")
    }

    pub fn key(&self) -> PathBuf {
        self.root.join("server.key")
    }

    pub fn users(&self) -> PathBuf {
        self.root.join("htpasswd")
    }

    /// Is there while a start has written what the servers may not have read yet.
    pub fn unfinished(&self) -> PathBuf {
        self.root.join("unfinished")
    }

    /// Signs bundles.
    pub fn bundle_key(&self) -> PathBuf {
        self.root.join("bundle.key")
    }

    /// What the last collection of garbage did.
    pub fn collection(&self) -> PathBuf {
        self.root.join("collected.json")
    }

    /// What has lost its last tag to a collection of garbage.
    pub fn dropped(&self) -> PathBuf {
        self.root.join("dropped.json")
    }

    /// Makes the directory where it is missing; only root may enter.
    pub fn make(&self) -> Result<()> {
        make_directory(&self.root)
    }

    /// Waits until no other command changes the registry. The directory has to be there.
    pub async fn lock(&self) -> Result<Lock> {
        let path = self.root.join("lock");
        let lock = move || -> Result<Lock> {
            let open = File::options().create(true).append(true).open(&path);
            let file = open.with_context(|| format!("open {}", path.display()))?;
            file.lock().with_context(|| format!("lock {}", path.display()))?;
            Ok(Lock(file))
        };
        tokio::task::spawn_blocking(lock).await?
    }

    /// What was chosen; nothing where no registry was ever started.
    pub fn settings(&self) -> Result<Option<Settings>> {
        let path = self.settings_file();
        let Some(text) = self.text(&path)? else { return Ok(None) };
        let read = serde_json::from_str(&text);
        read.map(Some)
            .with_context(|| format!("{} is damaged; move it away to go on without it", path.display()))
    }

    /// What was chosen; a fault where no registry was ever started.
    pub fn started(&self) -> Result<Settings> {
        self.settings()?.ok_or_else(|| {
            Fault::new(Kind::NotFound, "this host has no registry")
                .why(format!("there is no {}", self.settings_file().display()))
                .next("moorage start-registry --name HOST")
                .into()
        })
    }

    /// The text of a file; `None` where there is none.
    pub fn text(&self, path: &Path) -> Result<Option<String>> {
        match std::fs::read_to_string(path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }
}

/// Makes a directory that only root may enter; one that is there stays as it is.
pub fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("make {}", path.display()))
}
