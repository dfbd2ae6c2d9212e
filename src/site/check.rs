//! All mistakes of a site, not only the first: what `check-site` tells whoever writes it.

use std::collections::BTreeSet;

use super::Site;
use super::nearest::hint;
use super::project::{PROJECTS, Project};
use super::resolve::distinct;
use super::samples::samples;
use super::substitute::Values;
use super::validate::{Validated, validate};
use crate::report::{Fault, Kind};

/// What is looked at file by file, and the directories a site may have.
const PLACES: &[&str] = &[
    "common/repos",
    "containerauthor/bases",
    "containerauthor/images",
    "dockeruser/keys",
    "dockeruser/licences",
    "dockeruser/projects",
];

/// Whoever asks has some name; a group's stands there without its `@`.
const OWNER: &str = "ann";

/// A shell command of a project, as a container of one branch would run it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// `dockeruser/projects/siem.toml, branch 9.2, setup 1`
    pub place: String,
    pub text: String,
}

impl Site {
    /// The names of the projects, sorted.
    pub fn project_names(&self) -> Result<BTreeSet<String>, Fault> {
        self.files.stems(PROJECTS, ".toml")
    }

    /// Every branch of a project with everything it names; the mistakes, and the shell commands of all branches, as they
    /// are for each name that a pattern was made for.
    pub fn check_project(&self, name: &str) -> (Vec<Fault>, Vec<Script>) {
        let (mut faults, mut scripts) = (Vec::new(), Vec::new());
        let project = match self.project(name) {
            Ok(project) => project,
            Err(fault) => return (vec![fault], scripts),
        };
        for (pattern, settings) in project.branches() {
            let literal = !pattern.contains(['*', '?', '[', ']', '{', '}', '\\']);
            let values =
                Values { project: Some(name), branch: literal.then_some(pattern.as_str()), owner: None };
            match validate(&project.source, &settings, &values) {
                Ok(valid) => faults.extend(self.check_branch(&project, &valid)),
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            }
            for branch in samples(&pattern) {
                let values = Values { project: Some(name), branch: Some(&branch), owner: Some(OWNER) };
                let asked = if literal { pattern.clone() } else { format!("{pattern} (as {branch})") };
                match validate(&project.source, &settings, &values) {
                    Ok(valid) => scripts.extend(commands(&project, &asked, &valid)),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        // The defaults' mistakes are those of every branch.
        faults.dedup();
        (faults, scripts)
    }

    /// What a branch names has to be there, and nothing of it in the place of something else. What depends on who asks, or
    /// on what was typed for a pattern, is not known here.
    fn check_branch(&self, project: &Project, valid: &Validated) -> Vec<Fault> {
        let mut faults = Vec::new();
        if !valid.image.get_ref().contains('{') {
            faults.extend(self.image_of(project, valid).err());
        }
        for licence in valid.licences.iter().filter(|licence| !licence.file.contains('{')) {
            match self.files.read(&format!("dockeruser/{}", licence.file)) {
                Ok(Some(_)) => {}
                Ok(None) => faults.push(
                    Fault::new(
                        Kind::NotFound,
                        format!("{}: the site has no dockeruser/{}", licence.place, licence.file),
                    )
                    .next("put the file there, or name another one"),
                ),
                Err(fault) => faults.push(fault),
            }
        }
        let twice = [
            distinct("mount", valid.mounts.iter().map(|mount| mount.target.as_str())),
            distinct("source", valid.sources.iter().map(|source| source.to.as_str())),
            distinct("licence", valid.licences.iter().map(|licence| licence.to.as_str())),
        ];
        faults.extend(twice.into_iter().filter_map(Result::err).map(|mut fault| {
            fault.what = format!("{}: {}", project.source.origin, fault.what);
            fault
        }));
        faults
    }

    /// The lines of `dockeruser/keys/*.pub` that are no keys.
    pub fn check_keys(&self) -> Vec<Fault> {
        let people = match self.files.stems("dockeruser/keys", ".pub") {
            Ok(people) => people,
            Err(fault) => return vec![fault],
        };
        people.iter().filter_map(|person| self.site_keys(person).err()).collect()
    }

    /// Files and directories of the site that nothing reads, because their name is another than what is looked for.
    pub fn check_names(&self) -> Result<Vec<Fault>, Fault> {
        let Some(site) = self.files.directory() else { return Ok(Vec::new()) };
        let mut faults = Vec::new();
        let roles: BTreeSet<&str> = PLACES.iter().filter_map(|place| place.split('/').next()).collect();
        for role in &roles {
            let known: Vec<&str> =
                PLACES.iter().filter_map(|place| place.strip_prefix(role)?.strip_prefix('/')).collect();
            for found in self.files.directories(role)? {
                if site.join(role).join(&found).is_dir() && !known.contains(&found.as_str()) {
                    let what = format!("{}/{role}/{found}: nothing reads this directory", site.display());
                    faults.push(
                        Fault::new(Kind::Usage, format!("{what}{}", hint(&found, known.iter().copied())))
                            .next(format!("{role}/ has: {}", known.join(", "))),
                    );
                }
            }
        }
        for (place, suffixes) in [
            (PROJECTS, &[".toml"][..]),
            ("containerauthor/bases", &[".toml", ".lock"]),
            ("dockeruser/keys", &[".pub", ".md"]),
        ] {
            for found in self.files.stems(place, "")? {
                if !suffixes.iter().any(|suffix| found.ends_with(suffix)) {
                    let what = format!("{}/{place}/{found}: nothing reads this file", site.display());
                    faults.push(
                        Fault::new(Kind::Usage, what)
                            .next(format!("names there end in {}", suffixes.join(" or "))),
                    );
                }
            }
        }
        Ok(faults)
    }
}

fn commands(project: &Project, branch: &str, valid: &Validated) -> Vec<Script> {
    let place = |what: String| format!("{}, branch {branch}, {what}", project.source.origin);
    let setup = (1..).zip(&valid.setup).map(|(at, text)| (format!("setup {at}"), text));
    let ready = valid.ready.iter().map(|text| ("ready".to_owned(), text));
    setup.chain(ready).map(|(what, text)| Script { place: place(what), text: text.clone() }).collect()
}
