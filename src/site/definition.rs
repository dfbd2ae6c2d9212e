//! What base and dev images are made of, and what an image is called.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::Site;
use super::nearest::not_found;
use super::text::Source;
use crate::report::{Fault, Kind};

const BASES: &str = "containerauthor/bases";
const IMAGES: &str = "containerauthor/images";

/// An operating system, built from package repositories: `containerauthor/bases/<os>-<release>.toml`.
///
/// Two definitions that serialise alike make the same image: places and descriptions are left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaseDefinition {
    pub name: String,
    #[serde(skip)]
    pub description: String,
    /// The base's file, as a person would name it.
    #[serde(skip)]
    pub origin: String,
    pub family: Family,
    /// Every file in `common/repos/<repos>/`, by its name there.
    pub repos: BTreeMap<String, RepoFile>,
    /// Packages beyond the essential ones.
    pub packages: Vec<Placed>,
    /// `SOURCE_DATE_EPOCH`: no file in the image is newer, so that the same packages make the same image (seconds).
    pub epoch: u64,
    /// Shell commands that have to succeed inside before the image is given to anybody.
    #[serde(skip)]
    pub checks: Vec<String>,
}

/// How packages become an operating system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Debian and Ubuntu.
    Apt {
        /// The distribution's code name, e.g. `bookworm`.
        suite: String,
        /// The keys the packages are verified with: an absolute path on the host, or a file among the repos.
        keyring: Placed,
    },
    /// Red Hat Enterprise Linux and its rebuilds. Each repository's `gpgkey` verifies its packages.
    Rpm {
        /// `$releasever`, e.g. `9`.
        release: String,
    },
}

/// A file of `common/repos/<os>-<release>/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RepoFile {
    #[serde(skip)]
    pub origin: String,
    pub content: Vec<u8>,
}

/// A value and the place it was read from, `file:line:column`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Placed {
    pub text: String,
    #[serde(skip)]
    pub place: String,
}

/// The keys of a base's file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawBase {
    #[serde(default)]
    description: String,
    suite: Option<String>,
    release: Option<Spanned<String>>,
    repos: Option<String>,
    keyring: Option<Spanned<String>>,
    #[serde(default)]
    packages: Vec<Spanned<String>>,
    epoch: u64,
    #[serde(default)]
    checks: Vec<String>,
}

impl RawBase {
    fn family(&self, source: &Source) -> Result<Family, Fault> {
        match (&self.suite, &self.release, &self.keyring) {
            (Some(suite), None, Some(keyring)) => {
                Ok(Family::Apt { suite: suite.clone(), keyring: source.placed(keyring) })
            }
            (Some(_), None, None) => Err(source.fault(
                None,
                "the key \"keyring\" is missing: without it no package can be verified, and nothing is made",
            )),
            (None, Some(release), None) => Ok(Family::Rpm { release: release.get_ref().clone() }),
            (None, Some(_), Some(keyring)) => Err(source.fault(
                Some(keyring.span()),
                "the packages of an rpm base are verified with `gpgkey` of its *.repo files, not with `keyring`",
            )),
            (Some(_), Some(release), _) => Err(source
                .fault(Some(release.span()), "a base has `suite` (apt) or `release` (rpm), not both of them")),
            (None, None, _) => {
                Err(source.fault(None, "a base has `suite` (apt) or `release` (rpm), and here is neither"))
            }
        }
    }
}

/// An image on a base: `containerauthor/images/<name>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDefinition {
    pub name: String,
    /// Its `image.toml`, as a person would name it.
    pub origin: String,
    pub raw: RawImage,
    /// Name, origin and content of every file beside `image.toml`; `.j2` ones are templates.
    pub files: Vec<DefinitionFile>,
}

/// One file of an image's build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinitionFile {
    /// Relative to the image's directory.
    pub name: String,
    /// As a person would name it.
    pub origin: String,
    pub content: Vec<u8>,
}

/// The keys of `image.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawImage {
    #[serde(default)]
    pub description: String,
    /// What it is built on: a base, another image of the site, or a full reference.
    pub base: String,
    /// Packages, for the template's `{{ packages }}`.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Further values for the template, as `{{ vars.x }}`.
    #[serde(default)]
    pub vars: BTreeMap<String, String>,
    /// Shell commands that have to succeed inside before the image is given to anybody.
    #[serde(default)]
    pub checks: Vec<String>,
    /// Names of secrets that the Dockerfile mounts (`RUN --mount=type=secret,id=…`) and the author hands in.
    #[serde(default)]
    pub secrets: Vec<String>,
}

impl Site {
    /// The names of the bases, sorted.
    pub fn bases(&self) -> Result<Vec<String>, Fault> {
        Ok(self.files.stems(BASES, ".toml")?.into_iter().collect())
    }

    /// The names of the dev images, sorted.
    pub fn images(&self) -> Result<Vec<String>, Fault> {
        Ok(self.files.directories(IMAGES)?.into_iter().collect())
    }

    /// The definition of base `name`.
    pub fn base(&self, name: &str) -> Result<BaseDefinition, Fault> {
        let existing = self.bases()?;
        if !existing.iter().any(|base| base == name) {
            return Err(not_found("base image", name, existing.iter().map(String::as_str)));
        }
        let source = self.definition(&format!("{BASES}/{name}.toml"))?;
        let raw: RawBase = source.parse()?;
        let family = raw.family(&source)?;
        let directory = format!("common/repos/{}", raw.repos.as_deref().unwrap_or(name));
        let repos = self
            .files
            .tree(&directory)?
            .into_iter()
            .map(|file| {
                let (origin, content) = self.content(&format!("{directory}/{file}"))?;
                Ok((file, RepoFile { origin, content }))
            })
            .collect::<Result<BTreeMap<_, _>, Fault>>()?;
        if repos.is_empty() {
            return Err(Fault::new(
                Kind::NotFound,
                format!("{}: the site has no package repositories in {directory}", source.origin),
            )
            .next("put *.sources, *.list or *.repo files there"));
        }
        Ok(BaseDefinition {
            name: name.to_owned(),
            family,
            repos,
            packages: raw.packages.iter().map(|package| source.placed(package)).collect(),
            description: raw.description,
            epoch: raw.epoch,
            checks: raw.checks,
            origin: source.origin,
        })
    }

    /// The lock beside the definition of base `name`, where the site has one: its path and text.
    pub fn lock_of(&self, name: &str) -> Result<Option<(PathBuf, String)>, Fault> {
        let source = self.files.text(&format!("{BASES}/{name}.lock"))?;
        Ok(source.map(|source| (PathBuf::from(source.origin), source.text)))
    }

    /// The definition of dev image `name`.
    pub fn image(&self, name: &str) -> Result<ImageDefinition, Fault> {
        let existing = self.images()?;
        if !existing.iter().any(|image| image == name) {
            return Err(not_found("dev image", name, existing.iter().map(String::as_str)));
        }
        let directory = format!("{IMAGES}/{name}");
        let source = self.definition(&format!("{directory}/image.toml"))?;
        let raw: RawImage = source.parse()?;
        let names = self.files.tree(&directory)?.into_iter().filter(|file| file != "image.toml");
        let files = names
            .map(|name| {
                let (origin, content) = self.content(&format!("{directory}/{name}"))?;
                Ok(DefinitionFile { name, origin, content })
            })
            .collect::<Result<Vec<_>, Fault>>()?;
        if !files.iter().any(|file| file.name == "Dockerfile.j2" || file.name == "Dockerfile") {
            return Err(Fault::new(Kind::NotFound, format!("{directory} has no Dockerfile.j2"))
                .next("write one that begins with FROM {{ base }}"));
        }
        Ok(ImageDefinition { name: name.to_owned(), origin: source.origin, raw, files })
    }

    /// What the engine knows an image by. A name with a `/` is a reference already; any other must be an image or a
    /// base of the site, and lives below the host's registry or, without one, `moorage/`. A tag (`demo:rc1`) is kept; none is `latest`.
    pub fn image_reference(&self, name: &str) -> Result<String, Fault> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) || name.starts_with(['-', '.', '/', ':', '@']) {
            return Err(Fault::new(Kind::Usage, format!("{name:?} is not the name of an image"))
                .next("name an image of the site, or a full reference such as registry/name:tag"));
        }
        if !name.contains('/') {
            let bare = name.split_once(':').map_or(name, |(bare, _)| bare);
            let mut existing = self.images()?;
            existing.extend(self.bases()?);
            if !existing.iter().any(|image| image == bare) {
                return Err(not_found("image", bare, existing.iter().map(String::as_str)));
            }
        }
        Ok(self.full_reference(name))
    }

    /// [`Site::image_reference`] of a name that is not looked at.
    pub(super) fn full_reference(&self, name: &str) -> String {
        let prefix = match name.contains('/') {
            true => String::new(),
            false => format!("{}/", self.host.registry.as_deref().unwrap_or("moorage").trim_end_matches('/')),
        };
        // The engine takes a name without a tag for all tags, and refuses it where one image is asked for.
        let is_tagged = name.rsplit('/').next().is_some_and(|last| last.contains([':', '@']));
        format!("{prefix}{name}{}", if is_tagged { "" } else { ":latest" })
    }

    fn definition(&self, name: &str) -> Result<Source, Fault> {
        self.files.text(name)?.ok_or_else(|| {
            Fault::new(Kind::NotFound, format!("the site has no {name}"))
                .next("put the file there, or name another definition")
        })
    }

    fn content(&self, name: &str) -> Result<(String, Vec<u8>), Fault> {
        let found = self.files.read(name)?;
        found.map(|found| (found.origin, found.bytes)).ok_or_else(|| {
            Fault::new(Kind::Failed, format!("{name} went away while it was read"))
                .next("run the same command again")
        })
    }
}
