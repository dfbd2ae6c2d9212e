//! What base and dev images are made of, and what an image is called.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Site;
use super::nearest::not_found;
use super::text::Source;
use crate::report::{Fault, Kind};

const BASES: &str = "containerauthor/bases";
const IMAGES: &str = "containerauthor/images";

/// An operating system, built from package repositories: `containerauthor/bases/<os>-<release>.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BaseDefinition {
    pub name: String,
    pub raw: RawBase,
    /// Name and content of every file in `common/repos/<repos>/`.
    pub repos: BTreeMap<String, Vec<u8>>,
}

/// The keys of a base's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawBase {
    #[serde(default)]
    pub description: String,
    /// The distribution's code name, e.g. `bookworm`.
    pub suite: String,
    /// The directory in `common/repos/`; the base's own name where absent.
    pub repos: Option<String>,
    /// The keys the packages are verified with: an absolute path on the host, or a file in the `repos` directory.
    /// Without it nothing is built.
    pub keyring: String,
    /// Packages beyond the essential ones.
    #[serde(default)]
    pub packages: Vec<String>,
    /// `SOURCE_DATE_EPOCH`: no file in the image is newer, so that the same packages make the same image (seconds).
    pub epoch: u64,
}

/// An image on a base: `containerauthor/images/<name>/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageDefinition {
    pub name: String,
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
        let directory = format!("common/repos/{}", raw.repos.as_deref().unwrap_or(name));
        let repos = self
            .files
            .tree(&directory)?
            .into_iter()
            .map(|file| Ok((file.clone(), self.content(&format!("{directory}/{file}"))?.1)))
            .collect::<Result<BTreeMap<_, _>, Fault>>()?;
        if repos.is_empty() {
            return Err(Fault::new(
                Kind::NotFound,
                format!("{}: the site has no package repositories in {directory}", source.origin),
            )
            .next("put *.sources or *.list files there"));
        }
        Ok(BaseDefinition { name: name.to_owned(), raw, repos })
    }

    /// The definition of dev image `name`.
    pub fn image(&self, name: &str) -> Result<ImageDefinition, Fault> {
        let existing = self.images()?;
        if !existing.iter().any(|image| image == name) {
            return Err(not_found("dev image", name, existing.iter().map(String::as_str)));
        }
        let directory = format!("{IMAGES}/{name}");
        let raw: RawImage = self.definition(&format!("{directory}/image.toml"))?.parse()?;
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
        Ok(ImageDefinition { name: name.to_owned(), raw, files })
    }

    /// What the engine knows an image by. A name with a `/` is a reference already; any other must be an image or a
    /// base of the site, and lives below the host's registry or, without one, `moorage/`. A tag (`demo:rc1`) is kept.
    pub fn image_reference(&self, name: &str) -> Result<String, Fault> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@".contains(&b);
        if name.is_empty() || !name.bytes().all(plain) || name.starts_with(['-', '.', '/', ':', '@']) {
            return Err(Fault::new(Kind::Usage, format!("{name:?} is not the name of an image"))
                .next("name an image of the site, or a full reference such as registry/name:tag"));
        }
        if name.contains('/') {
            return Ok(name.to_owned());
        }
        let (bare, tag) = name.split_once(':').unwrap_or((name, "latest"));
        let mut existing = self.images()?;
        existing.extend(self.bases()?);
        if !existing.iter().any(|image| image == bare) {
            return Err(not_found("image", bare, existing.iter().map(String::as_str)));
        }
        let prefix = self.host.registry.as_deref().unwrap_or("moorage");
        Ok(format!("{}/{bare}:{tag}", prefix.trim_end_matches('/')))
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
