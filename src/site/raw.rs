//! A project's file as it is written, before anything is merged or checked. docs/site.md lists the keys for people.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::shape::{Many, RawArchive, RawUlimit};
use crate::spec::{ByteSize, Limits};

/// A string and where it stands in the file.
pub(super) type Text = Spanned<String>;

/// `dockeruser/projects/<project>.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ProjectFile {
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub defaults: Settings,
    #[serde(default)]
    pub branch: Vec<Spanned<Settings>>,
}

/// `[defaults]` or one `[[branch]]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    /// Only in `[[branch]]`, and needed there.
    #[serde(rename = "match")]
    pub pattern: Option<Text>,
    pub image: Option<Text>,
    pub opt: Option<Many<RawArchive>>,
    pub source: Option<Many<RawSource>>,
    #[serde(default)]
    pub env: BTreeMap<String, Text>,
    #[serde(default)]
    pub ulimits: BTreeMap<String, Spanned<RawUlimit>>,
    pub shm: Option<ByteSize>,
    #[serde(default)]
    pub limits: Limits,
    pub mounts: Option<Vec<Text>>,
    pub licence: Option<Many<RawLicence>>,
    pub capabilities: Option<Vec<Text>>,
    pub address: Option<Text>,
    pub setup: Option<Many<String>>,
    pub ready: Option<Text>,
    #[serde(default)]
    pub patches: BTreeMap<String, Many<RawArchive>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSource {
    pub repo: String,
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    pub to: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawLicence {
    pub file: String,
    pub to: String,
    pub mode: Option<u32>,
}
