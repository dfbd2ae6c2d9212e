//! A dev image's templates in every variant that a build may make of them, for those who check a site.

use anyhow::{Context as _, Result};

use super::context::{self, Rendered};
use super::script::{self, Script};
use super::{buildkit, dockerfile};
use crate::report::{Fault, Kind};
use crate::site::{ImageDefinition, Site};

/// An id or digest, for looking only.
const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// One rendering of a definition.
#[derive(Debug, Clone)]
pub struct Variant {
    /// What `FROM` names: `an image that was never published`, …
    pub on: &'static str,
    /// The Dockerfile, as a person would name it.
    pub origin: String,
    /// The build context.
    pub archive: Vec<u8>,
    /// Whether it is BuildKit that builds it; an engine's own builder does not take such a file.
    pub needs_buildkit: bool,
    pub scripts: Vec<Script>,
    /// What is in it that no check reads, each with its place.
    pub unread: Vec<String>,
}

/// Renders the dev image `name` in all its variants; everything it is built on has to be there. What a template knows is the
/// definition's own, but for the base: that is an id where the image was never published, a digest where a registry has it,
/// a name where BuildKit builds it, and nothing for a check that is to pull nothing.
///
/// The first mistake in a template or Dockerfile: [`Kind::Usage`] with file and line.
pub fn variants(site: &Site, name: &str) -> Result<Vec<Variant>> {
    let chain = dockerfile::lineage(site, name)?;
    let definition = chain.first().context("a lineage begins with the image itself")?;
    if let Some(lowest) = chain.last() {
        site.image_reference(&lowest.raw.base)?;
    }
    let base = site.image_reference(&definition.raw.base)?;
    let repository = base.rsplit_once(':').map_or(base.as_str(), |(repository, _)| repository);
    let id = match definition.raw.secrets.is_empty() {
        true => ("an image that was never published", format!("sha256:{HEX}")),
        false => ("an image that was never published, by BuildKit", buildkit::pinned_name(HEX)),
    };
    let digest = ("an image of a registry", format!("{repository}@sha256:{HEX}"));
    [id, digest, (NOTHING, "scratch".to_owned())]
        .iter()
        .map(|(on, base)| one(definition, on, base))
        .collect::<Result<_, Fault>>()
        .map_err(anyhow::Error::from)
}

/// The variant that has nothing to be pulled.
pub const NOTHING: &str = "nothing";

fn one(definition: &ImageDefinition, on: &'static str, base: &str) -> Result<Variant, Fault> {
    let files = context::render(definition, base)?;
    let archive = context::archive(&files).map_err(|error| Fault::of(&error))?;
    let dockerfile = files.iter().find(|file| file.name == "Dockerfile");
    let mut variant = Variant {
        on,
        origin: dockerfile.map_or_else(|| definition.name.clone(), |file| file.origin.clone()),
        archive,
        needs_buildkit: !definition.raw.secrets.is_empty(),
        scripts: files.iter().filter_map(of_file).collect(),
        unread: Vec::new(),
    };
    if let Some(file) = dockerfile {
        let text = String::from_utf8_lossy(&file.content);
        let (scripts, unread) = script::of_dockerfile(&file.origin, &text).map_err(|what| {
            Fault::new(Kind::Usage, what).next("https://docs.docker.com/reference/dockerfile/")
        })?;
        variant.scripts.extend(scripts);
        variant.unread = unread;
    }
    let place = |at: usize| format!("{}, check {at}", definition.origin);
    let checks = (1..).zip(&definition.raw.checks);
    variant.scripts.extend(checks.map(|(at, check)| Script::command(place(at), check.clone())));
    Ok(variant)
}

fn of_file(file: &Rendered) -> Option<Script> {
    let text = std::str::from_utf8(&file.content).ok()?;
    let shell = script::interpreter(text)?;
    Some(Script { place: file.origin.clone(), above: 0, shell: shell.to_owned(), text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::HostConfig;

    #[test]
    fn the_built_in_demo_in_all_its_variants() {
        let site = Site::load(None, HostConfig::default()).unwrap();
        let variants = variants(&site, "demo").unwrap();
        let on: Vec<&str> = variants.iter().map(|variant| variant.on).collect();
        assert_eq!(on, ["an image that was never published", "an image of a registry", NOTHING]);
        for variant in &variants {
            assert!(variant.unread.is_empty(), "{:?}", variant.unread);
            // The script that is copied, and what RUN runs.
            assert!(variant.scripts.iter().any(|script| script.place.ends_with("/trim")));
            assert!(variant.scripts.iter().any(|script| script.text.contains("apt-get install")));
        }
    }
}
