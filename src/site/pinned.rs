//! What the site's projects need of registries. Where a branch is a glob, `{branch}` stands for whatever that matches.

use super::Site;
use super::project::BranchView;
use crate::report::Fault;
use crate::spec::Reference;

/// What a project names in a registry, as an image or an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pinned {
    One(Reference),
    /// All whose `repository:tag` this pattern matches, in the syntax of globs.
    All {
        registry: String,
        pattern: String,
    },
}

impl Site {
    /// What the projects name, and what the site's images and bases are called. Names that are no registry's are left out.
    ///
    /// # Errors
    /// A project that is wrong: what it needs is not known then.
    pub fn pinned(&self) -> Result<Vec<Pinned>, Fault> {
        let mut pinned = Vec::new();
        for branch in self.projects()?.into_iter().flat_map(|project| project.branches) {
            pinned.extend(of_branch(&branch));
        }
        for name in self.images()?.into_iter().chain(self.bases()?) {
            pinned.extend(self.image_reference(&name)?.parse().map(Pinned::One));
        }
        Ok(pinned)
    }
}

fn of_branch(branch: &BranchView) -> impl Iterator<Item = Pinned> + '_ {
    let texts = std::iter::once(&branch.image).chain(branch.opt.iter().map(|archive| &archive.url));
    texts.filter_map(|text| match text.contains('{') {
        true => all(text, &branch.pattern),
        false => text.parse().ok().map(Pinned::One),
    })
}

/// `text` has placeholders. A digest pins by itself.
fn all(text: &str, branch: &str) -> Option<Pinned> {
    let text = text.strip_prefix("oci://").unwrap_or(text);
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let (registry, path) = name.split_once('/')?;
    if let Some(digest) = digest {
        return format!("{registry}/any@{digest}").parse().ok().map(Pinned::One);
    }
    let owner = "*";
    let pattern = globset::escape(path)
        .replace(&globset::escape("{branch}"), branch)
        .replace(&globset::escape("{owner}"), owner);
    Some(Pinned::All { registry: registry.to_owned(), pattern })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Archive;

    fn pinned(pattern: &str, image: &str, opt: &str) -> Vec<Pinned> {
        let archive = Archive { url: opt.to_owned(), sha256: None };
        let (pattern, image) = (pattern.to_owned(), image.to_owned());
        of_branch(&BranchView { pattern, image, opt: vec![archive], patches: Vec::new() }).collect()
    }

    fn any(pattern: &str) -> Pinned {
        Pinned::All { registry: "r.corp:5000".to_owned(), pattern: pattern.to_owned() }
    }

    #[test]
    fn a_glob_s_branch_stands_for_all_that_it_matches() {
        let found =
            pinned("9.[23]", "r.corp:5000/team/siem:rc-{branch}", "oci://r.corp:5000/opt/{owner}:{branch}");
        assert_eq!(found, [any("team/siem:rc-9.[23]"), any("opt/*:9.[23]")]);
        let found = pinned("{8,9}*", "moorage/siem:{branch}", "https://files.corp/siem-{branch}.tar.zst");
        let named = |registry: &str, pattern: &str| Pinned::All {
            registry: registry.into(),
            pattern: pattern.into(),
        };
        // Nobody's registry is called so: what is asked is whose it is.
        assert_eq!(found[0], named("moorage", "siem:{8,9}*"));
    }

    #[test]
    fn what_is_written_out_is_pinned_as_it_is() {
        let digest = format!("sha256:{}", "7".repeat(64));
        let found = pinned("9.2", "moorage/siem:latest", &format!("oci://r.corp:5000/opt/siem@{digest}"));
        assert_eq!(found.len(), 1);
        let Pinned::One(reference) = &found[0] else { panic!("{found:?}") };
        assert_eq!(
            (reference.registry.as_str(), reference.digest),
            ("r.corp:5000", Some(digest.parse().unwrap()))
        );
        // With a digest the tag is for people.
        let found =
            pinned("*", "moorage/siem:latest", &format!("oci://r.corp:5000/opt/siem:{{branch}}@{digest}"));
        let Pinned::One(reference) = &found[0] else { panic!("{found:?}") };
        assert_eq!(reference.digest, Some(digest.parse().unwrap()));
    }
}
