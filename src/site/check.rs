//! All mistakes of a site, not only the first: what `check-site` tells whoever writes it.

use std::collections::BTreeSet;

use super::Site;
use super::nearest::hint;
use super::project::PROJECTS;
use super::substitute::Values;
use super::validate::validate;
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

    /// Every branch of a project with everything it names; the mistakes, and the shell commands of all branches.
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
            let valid = match validate(&project.source, &settings, &values) {
                Ok(valid) => valid,
                Err(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            if !valid.image.get_ref().contains('{') {
                faults.extend(self.image_of(&project, &valid).err());
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
            let place = |what: String| format!("{}, branch {pattern}, {what}", project.source.origin);
            let setup = (1..).zip(&valid.setup).map(|(at, text)| (format!("setup {at}"), text));
            let ready = valid.ready.iter().map(|text| ("ready".to_owned(), text));
            scripts.extend(
                setup.chain(ready).map(|(what, text)| Script { place: place(what), text: text.clone() }),
            );
        }
        // The defaults' mistakes are those of every branch.
        faults.dedup();
        (faults, scripts)
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
