//! What a company or team defines: projects, images, licences, keys, package repositories.
//!
//! Three stages: the text of a file ([`raw`]) → defaults and branch merged ([`merge`]) → validated
//! ([`validate`](mod@validate), [`resolve`]). Only validated types leave this module. Files come from the site's
//! directory, laid out like `roles/`, over the built-in `roles/`, file by file ([`files`]); docs/site.md tells it to
//! people.

mod check;
pub mod definition;
pub mod files;
pub mod host;
mod keys;
mod merge;
pub mod nearest;
mod pinned;
mod project;
mod raw;
mod resolve;
mod samples;
mod shape;
mod substitute;
mod text;
mod validate;

use std::path::Path;

pub use check::Script;
pub use definition::{BaseDefinition, Family, ImageDefinition, Placed, RepoFile};
pub use files::Files;
pub use host::HostConfig;
pub use pinned::Pinned;
pub use project::{BranchView, ProjectView};
pub use resolve::{OsRequest, Request};
pub use validate::mount;

use crate::report::Fault;

/// The definitions that are in force for one person on one host.
#[derive(Debug, Clone)]
pub struct Site {
    files: Files,
    host: HostConfig,
}

impl Site {
    /// Takes the built-in definitions, the site's over them (`directory`, else the host's `site =`), and the host's
    /// settings. Files are read when they are asked for: a mistake in one project does not stop another.
    ///
    /// Fails when the site's directory is missing or is not laid out like `roles/`.
    pub fn load(directory: Option<&Path>, host: HostConfig) -> Result<Site, Fault> {
        let files = Files::open(directory.or(host.site.as_deref()))?;
        Ok(Site { files, host })
    }

    /// The same with the settings of this host, [`host::CONFIG`].
    pub fn of_this_host(directory: Option<&Path>) -> Result<Site, Fault> {
        Site::load(directory, HostConfig::load(Path::new(host::CONFIG))?)
    }

    /// The files behind the definitions.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The settings of this host.
    pub fn host(&self) -> &HostConfig {
        &self.host
    }
}
