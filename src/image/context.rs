//! From an image's definition to what the engine is sent: templates rendered, every `FROM` checked, one tar.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};
use minijinja::{Environment, UndefinedBehavior, context};

use crate::report::{Fault, Kind};
use crate::site::ImageDefinition;
use crate::site::definition::DefinitionFile;

/// A rendered file of the build context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rendered {
    pub name: String,
    pub origin: String,
    pub content: Vec<u8>,
}

/// Renders every `.j2` file; the others stay as they are. `base` is the pinned reference of the image it is built on.
///
/// A template that is wrong, or a `FROM` that is not pinned: [`Kind::Usage`] with file and line.
pub(super) fn render(definition: &ImageDefinition, base: &str) -> Result<Vec<Rendered>, Fault> {
    let files = definition.files.iter().map(|file| rendered(definition, file, base));
    let files: Vec<Rendered> = files.collect::<Result<_, Fault>>()?;
    if let Some(dockerfile) = files.iter().find(|file| file.name == "Dockerfile") {
        pinned(dockerfile, base)?;
        secrets(dockerfile, &definition.raw.secrets)?;
    }
    Ok(files)
}

fn rendered(definition: &ImageDefinition, file: &DefinitionFile, base: &str) -> Result<Rendered, Fault> {
    let as_is = |name: &str, content| Rendered { name: name.into(), origin: file.origin.clone(), content };
    let Some(name) = file.name.strip_suffix(".j2") else {
        return Ok(as_is(&file.name, file.content.clone()));
    };
    let wrong = |why: String| {
        Fault::new(Kind::Usage, format!("{}: {why}", file.origin))
            .next("correct it there, then run the same command again")
    };
    let text = std::str::from_utf8(&file.content).map_err(|_| wrong("a template is UTF-8 text".into()))?;
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    let values = context! {
        base,
        image => &definition.name,
        packages => &definition.raw.packages,
        vars => &definition.raw.vars,
    };
    let text = templates.render_str(text, values).map_err(|error| {
        let line = error.line().map(|line| format!(":{line}")).unwrap_or_default();
        let why = error.detail().map(str::to_owned).unwrap_or_else(|| error.kind().to_string());
        Fault::new(Kind::Usage, format!("{}{line}: {why}", file.origin))
            .next("a template knows base, image, packages and vars (docs/site.md)")
    })?;
    Ok(as_is(name, text.into_bytes()))
}

/// Every stage is built on what cannot change under its name: the pinned base, a digest, an earlier stage, nothing.
fn pinned(dockerfile: &Rendered, base: &str) -> Result<(), Fault> {
    let wrong = |line: usize, why: String| {
        Fault::new(Kind::Usage, format!("{}:{line}: {why}", dockerfile.origin))
            .next("FROM {{ base }}, with `base = …` in image.toml")
    };
    let text = String::from_utf8_lossy(&dockerfile.content);
    let mut stages: Vec<String> = Vec::new();
    let mut found = false;
    for (number, line) in (1..).zip(text.lines()) {
        let mut words = line.split_whitespace();
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("FROM")) {
            continue;
        }
        found = true;
        let mut words = words.skip_while(|word| word.starts_with("--"));
        let from = words.next().unwrap_or_default();
        let is_pinned = from == base
            || from.contains("@sha256:")
            || from == "scratch"
            || stages.iter().any(|stage| stage.eq_ignore_ascii_case(from));
        if !is_pinned {
            return Err(wrong(
                number,
                format!("FROM {from} may be another image tomorrow: it is not pinned"),
            ));
        }
        if words.next().is_some_and(|word| word.eq_ignore_ascii_case("AS")) {
            stages.extend(words.next().map(str::to_owned));
        }
    }
    match found {
        true => Ok(()),
        false => Err(wrong(1, "there is no FROM".into())),
    }
}

/// Every secret that the Dockerfile mounts is one of the definition's: only those are handed in, and only for them does the
/// builder know such mounts.
fn secrets(dockerfile: &Rendered, known: &[String]) -> Result<(), Fault> {
    let text = String::from_utf8_lossy(&dockerfile.content);
    for (number, line) in (1..).zip(text.lines()) {
        let mounts = line.split_whitespace().filter_map(|word| word.strip_prefix("--mount="));
        for mount in mounts.filter(|mount| mount.split(',').any(|part| part == "type=secret")) {
            let named = mount.split(',').find_map(|part| part.strip_prefix("id="));
            // Without an id it is the target's name (Dockerfile reference, RUN --mount=type=secret).
            let target =
                || mount.split(',').find_map(|part| part.strip_prefix("target=")?.rsplit('/').next());
            let name = named.or_else(target).unwrap_or_default();
            if !known.iter().any(|known| known == name) {
                let what =
                    format!("{}:{number}: the secret {name:?} is none of this image", dockerfile.origin);
                return Err(
                    Fault::new(Kind::Usage, what).next(format!("secrets = [\"{name}\"] in image.toml"))
                );
            }
        }
    }
    Ok(())
}

/// The build context. The same files make the same bytes: no times, no owners; scripts are executable.
pub(super) fn archive(files: &[Rendered]) -> Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut directories = BTreeSet::new();
    for file in files {
        let above: Vec<_> = Path::new(&file.name).ancestors().skip(1).collect();
        // The engine makes directories that are not named writable for all.
        for directory in above.into_iter().rev().filter(|directory| !directory.as_os_str().is_empty()) {
            if directories.insert(directory.to_owned()) {
                let mut header = header(0o755, 0);
                header.set_entry_type(tar::EntryType::Directory);
                tar.append_data(&mut header, directory, std::io::empty())
                    .with_context(|| format!("pack {}", directory.display()))?;
            }
        }
        let mode = if file.content.starts_with(b"#!") { 0o755 } else { 0o644 };
        tar.append_data(&mut header(mode, file.content.len() as u64), &file.name, file.content.as_slice())
            .with_context(|| format!("pack {}", file.origin))?;
    }
    tar.into_inner().context("pack the build context")
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::{HostConfig, Site};

    const BASE: &str = "sha256:0123456789abcdef";

    fn definition(dockerfile: &str) -> ImageDefinition {
        let mut definition = Site::load(None, HostConfig::default()).unwrap().image("demo").unwrap();
        definition.files = vec![DefinitionFile {
            name: "Dockerfile.j2".into(),
            origin: "images/x/Dockerfile.j2".into(),
            content: dockerfile.into(),
        }];
        definition
    }

    #[test]
    fn the_built_in_demo_renders() {
        let demo = Site::load(None, HostConfig::default()).unwrap().image("demo").unwrap();
        let files = render(&demo, BASE).unwrap();
        assert_eq!(archive(&files).unwrap(), archive(&render(&demo, BASE).unwrap()).unwrap());
        let dockerfile = files.into_iter().find(|file| file.name == "Dockerfile").unwrap();
        insta::assert_snapshot!(String::from_utf8(dockerfile.content).unwrap());
    }

    #[test]
    fn mistakes_say_where() {
        let told: Vec<String> = [
            "FROM {{ base }}\nRUN {{ nothing }}\n",
            "FROM {{ base }}\nRUN {% if %}\n",
            "FROM {{ base }}\nRUN {{ vars.nothing }}\n",
            "FROM debian:12\n",
            "FROM {{ base }} AS one\nFROM --platform=linux/amd64 two\n",
            "RUN true\n",
            "FROM {{ base }}\nRUN true && \\\n --mount=type=secret,id=token cat\n",
        ]
        .iter()
        .map(|text| render(&definition(text), BASE).unwrap_err().what)
        .collect();
        insta::assert_debug_snapshot!(told);
        let staged = "FROM {{ base }} AS one\nfrom one\nFROM x.corp/y@sha256:1\nFROM scratch\n";
        assert!(render(&definition(staged), BASE).is_ok());
    }
}
