//! Merged settings with their placeholders replaced and every value checked: what a container of a branch is made of.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;

use super::raw::{RawLicence, RawSource, Settings};
use super::shape::{Many, RawArchive};
use super::substitute::{Values, substitute};
use super::text::Source;
use crate::report::Fault;
use crate::spec::address::BadAddress;
use crate::spec::container::ULIMITS;
use crate::spec::{Addressing, Archive, ByteSize, Limits, MountSpec, SourceSpec, Ulimit};

/// The valid settings of one branch.
#[derive(Debug, Clone)]
pub(super) struct Validated {
    /// As the project's file says it; [`Site::image_reference`](super::Site::image_reference) makes the reference.
    pub image: Spanned<String>,
    pub opt: Vec<Archive>,
    pub sources: Vec<SourceSpec>,
    pub env: BTreeMap<String, String>,
    pub ulimits: BTreeMap<String, Ulimit>,
    pub shm: Option<ByteSize>,
    pub limits: Limits,
    pub mounts: Vec<MountSpec>,
    pub licences: Vec<Licence>,
    pub capabilities: Vec<String>,
    /// The host's usual kind where absent.
    pub address: Option<Addressing>,
    pub setup: Vec<String>,
    pub ready: Option<String>,
    pub patches: BTreeMap<String, Vec<Archive>>,
}

/// A file of the site and where it goes.
#[derive(Debug, Clone)]
pub(super) struct Licence {
    /// Relative to `dockeruser/`.
    pub file: String,
    pub to: String,
    pub mode: u32,
    /// Where the project's file asks for it, for messages.
    pub place: String,
}

/// Checks `settings`, which were read from `source`.
pub(super) fn validate(
    source: &Source,
    settings: &Settings,
    values: &Values<'_>,
) -> Result<Validated, Fault> {
    let check = Check { source, values };
    let Some(image) = &settings.image else {
        let at = settings.pattern.as_ref().map(Spanned::span);
        return Err(source.fault(at, "no image: set `image` in this branch or in [defaults]"));
    };
    Ok(Validated {
        image: Spanned::new(image.span(), check.text(image)?),
        opt: check.archives(settings.opt.as_ref())?,
        sources: check.each(settings.source.as_ref(), Check::source)?,
        env: check.env(settings)?,
        ulimits: check.ulimits(settings)?,
        shm: settings.shm,
        limits: check.limits(settings)?,
        mounts: check.mounts(settings)?,
        licences: check.each(settings.licence.as_ref(), Check::licence)?,
        capabilities: check.capabilities(settings)?,
        address: check.address(settings)?,
        setup: check.each(settings.setup.as_ref(), |check, step, span| check.substituted(step, span))?,
        ready: settings.ready.as_ref().map(|ready| check.text(ready)).transpose()?,
        patches: settings
            .patches
            .iter()
            .map(|(name, archives)| Ok((name.clone(), check.archives(Some(archives))?)))
            .collect::<Result<_, Fault>>()?,
    })
}

struct Check<'a> {
    source: &'a Source,
    values: &'a Values<'a>,
}

impl Check<'_> {
    fn substituted(&self, text: &str, span: Range<usize>) -> Result<String, Fault> {
        substitute(text, self.values).map_err(|why| self.source.fault(Some(span), &why))
    }

    fn text(&self, text: &Spanned<String>) -> Result<String, Fault> {
        self.substituted(text.get_ref(), text.span())
    }

    fn each<T, V>(
        &self,
        many: Option<&Many<T>>,
        one: impl Fn(&Self, &T, Range<usize>) -> Result<V, Fault>,
    ) -> Result<Vec<V>, Fault> {
        many.iter().flat_map(|many| &many.0).map(|item| one(self, item.get_ref(), item.span())).collect()
    }

    fn archives(&self, many: Option<&Many<RawArchive>>) -> Result<Vec<Archive>, Fault> {
        self.each(many, |check, RawArchive(archive), span| {
            let url = check.substituted(&archive.url, span.clone())?;
            let told =
                |what: &dyn std::fmt::Display| check.source.fault(Some(span.clone()), &what.to_string());
            // What is not known yet, of a pattern for instance, will be some name; its braces are no part of a reference.
            let some = substitute(&archive.url, &check.values.filled()).map_err(|why| told(&why))?;
            Archive { url: some, sha256: archive.sha256 }.scheme().map_err(|e| told(&e))?;
            Ok(Archive { url, sha256: archive.sha256 })
        })
    }

    fn source(&self, raw: &RawSource, span: Range<usize>) -> Result<SourceSpec, Fault> {
        let bad = |why: String| self.source.fault(Some(span.clone()), &why);
        let repo = self.substituted(&raw.repo, span.clone())?;
        let reference =
            raw.reference.as_ref().map(|text| self.substituted(text, span.clone())).transpose()?;
        // git would take a leading dash for an option.
        if let Some(dashed) = [Some(&repo), reference.as_ref()]
            .into_iter()
            .flatten()
            .find(|t| t.is_empty() || t.starts_with('-'))
        {
            return Err(bad(format!("{dashed:?} is neither a repository nor a branch or tag of one")));
        }
        let to = match &raw.to {
            Some(to) => self.substituted(to, span.clone())?,
            None => match repository_name(&repo) {
                Some(name) => format!("/opt/src/{name}"),
                None => {
                    return Err(bad(format!("{repo:?} has no name to put it under: say `to = \"/opt/…\"`")));
                }
            },
        };
        if !is_normal(&to) || !to.starts_with("/opt/") {
            return Err(bad(format!(
                "a source goes below /opt, by an absolute path without `..`; {to:?} is none"
            )));
        }
        Ok(SourceSpec { repo, reference, to })
    }

    fn licence(&self, raw: &RawLicence, span: Range<usize>) -> Result<Licence, Fault> {
        let bad = |why: String| self.source.fault(Some(span.clone()), &why);
        let file = self.substituted(&raw.file, span.clone())?;
        let to = self.substituted(&raw.to, span.clone())?;
        if !is_normal(&to) {
            return Err(bad(format!("a licence goes to an absolute path without `..`; {to:?} is none")));
        }
        let mode = raw.mode.unwrap_or(0o644);
        if mode & !0o777 != 0 {
            return Err(bad(format!("0o{mode:o} is no file mode (0o000 to 0o777)")));
        }
        Ok(Licence { file, to, mode, place: self.source.place(Some(span)) })
    }

    fn env(&self, settings: &Settings) -> Result<BTreeMap<String, String>, Fault> {
        let one = |(name, value): (&String, &Spanned<String>)| {
            let good = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !name.starts_with(|c: char| c.is_ascii_digit())
                && !name.is_empty();
            match good {
                true => Ok((name.clone(), self.text(value)?)),
                false => {
                    let why = format!("{name:?} is not the name of an environment variable");
                    Err(self.source.fault(Some(value.span()), &why))
                }
            }
        };
        settings.env.iter().map(one).collect()
    }

    fn ulimits(&self, settings: &Settings) -> Result<BTreeMap<String, Ulimit>, Fault> {
        let one = |(name, limit): (&String, &Spanned<super::shape::RawUlimit>)| {
            if ULIMITS.contains(&name.as_str()) {
                return Ok((name.clone(), limit.get_ref().0));
            }
            let hint = super::nearest::hint(name, ULIMITS);
            Err(self.source.fault(Some(limit.span()), &format!("there is no ulimit {name:?}{hint}")))
        };
        settings.ulimits.iter().map(one).collect()
    }

    fn limits(&self, settings: &Settings) -> Result<Limits, Fault> {
        let at = settings.pattern.as_ref().map(Spanned::span);
        super::host::plausible(&settings.limits).map_err(|why| self.source.fault(at, &why))?;
        Ok(settings.limits.clone())
    }

    fn mounts(&self, settings: &Settings) -> Result<Vec<MountSpec>, Fault> {
        let one = |text: &Spanned<String>| {
            mount(&self.text(text)?).map_err(|why| self.source.fault(Some(text.span()), &why))
        };
        settings.mounts.iter().flatten().map(one).collect()
    }

    fn address(&self, settings: &Settings) -> Result<Option<Addressing>, Fault> {
        let one = |text: &Spanned<String>| {
            let kind = text.get_ref().parse();
            kind.map_err(|bad: BadAddress| self.source.fault(Some(text.span()), &bad.to_string()))
        };
        settings.address.as_ref().map(one).transpose()
    }

    fn capabilities(&self, settings: &Settings) -> Result<Vec<String>, Fault> {
        let one = |text: &Spanned<String>| {
            let name = text.get_ref().strip_prefix("CAP_").unwrap_or(text.get_ref());
            match !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_') {
                true => Ok(name.to_owned()),
                false => {
                    let why = format!("{name:?} is not a capability (for example NET_ADMIN)");
                    Err(self.source.fault(Some(text.span()), &why))
                }
            }
        };
        settings.capabilities.iter().flatten().map(one).collect()
    }
}

/// Reads `/host/path:/inside[:ro]`; both paths are absolute and without `..`. The error says what is wrong with it.
pub fn mount(text: &str) -> Result<MountSpec, String> {
    let (paths, read_only) = match text.strip_suffix(":ro") {
        Some(paths) => (paths, true),
        None => (text.strip_suffix(":rw").unwrap_or(text), false),
    };
    match paths.split_once(':') {
        Some((source, target)) if is_normal(source) && is_normal(target) => {
            Ok(MountSpec { source: source.to_owned(), target: target.to_owned(), read_only })
        }
        _ => Err(format!("{text:?} is not a mount: /host/path:/inside[:ro], both absolute and without `..`")),
    }
}

/// Absolute, not `/` itself, and nothing in it that another spelling of the same path would lack.
fn is_normal(path: &str) -> bool {
    let parts = path.strip_prefix('/').map(|rest| rest.split('/'));
    let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains([':', '\0', '\n']);
    parts.is_some_and(|mut parts| parts.all(plain))
}

/// `siem` of `ssh://git@git.corp/siem.git`, `git@git.corp:siem.git` and `/srv/siem.bundle`.
fn repository_name(repo: &str) -> Option<&str> {
    let last = repo.trim_end_matches('/').rsplit(['/', ':']).next()?;
    let name = last.strip_suffix(".git").or_else(|| last.strip_suffix(".bundle")).unwrap_or(last);
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_two_normal_paths() {
        let read = mount("/data/reference:/opt/reference:ro").unwrap();
        assert_eq!(
            (read.source.as_str(), read.target.as_str(), read.read_only),
            ("/data/reference", "/opt/reference", true)
        );
        assert!(!mount("/a:/b").unwrap().read_only);
        for bad in ["/a", "a:/b", "/a:b", "/a/../b:/c", "/a:/b:rx", "/:/b", "/a:/", "/a//b:/c", "/a:/./b", ""]
        {
            assert!(mount(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_repository_names_its_checkout() {
        for repo in ["ssh://git@git.corp/siem.git", "git@git.corp:siem.git", "/srv/siem.bundle", "/srv/siem/"]
        {
            assert_eq!(repository_name(repo), Some("siem"), "{repo}");
        }
        assert_eq!(repository_name("/"), None);
    }
}
