//! Projects and their branches: finding the one that was typed, listing what there is.

use globset::GlobBuilder;
use serde::Serialize;
use toml::Spanned;

use super::Site;
use super::merge::merge;
use super::nearest::not_found;
use super::raw::{ProjectFile, Settings};
use super::substitute::Values;
use super::text::Source;
use super::validate::{Validated, validate};
use crate::report::{Fault, Kind};
use crate::spec::Archive;

pub(super) const PROJECTS: &str = "dockeruser/projects";

/// A line of `list-projects`, with its branches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProjectView {
    pub name: String,
    pub description: String,
    pub branches: Vec<BranchView>,
}

/// A branch as the project's file has it. Where `pattern` is a glob, `{branch}` stands in the texts as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BranchView {
    pub pattern: String,
    /// Full image reference.
    pub image: String,
    /// The archives, lowest first.
    pub opt: Vec<Archive>,
    pub patches: Vec<String>,
}

/// A project's file, read but not yet checked.
#[derive(Debug)]
pub(super) struct Project {
    pub name: String,
    pub source: Source,
    file: ProjectFile,
}

impl Site {
    /// Every project, in the order of their names. One that is wrong is an error, never left out.
    pub fn projects(&self) -> Result<Vec<ProjectView>, Fault> {
        let names = self.files.stems(PROJECTS, ".toml")?;
        names.iter().map(|name| self.view(&self.project(name)?)).collect()
    }

    fn view(&self, project: &Project) -> Result<ProjectView, Fault> {
        let branches = project.branches().map(|(pattern, settings)| {
            let literal = !pattern.contains(['*', '?', '[', ']', '{', '}', '\\']);
            let values = Values {
                project: Some(&project.name),
                branch: literal.then_some(pattern.as_str()),
                owner: None,
            };
            let valid = validate(&project.source, &settings, &values)?;
            Ok(BranchView {
                image: match valid.image.get_ref().contains('{') {
                    true => self.full_reference(valid.image.get_ref()),
                    false => self.image_of(project, &valid)?,
                },
                opt: valid.opt,
                patches: valid.patches.into_keys().collect(),
                pattern,
            })
        });
        Ok(ProjectView {
            name: project.name.clone(),
            description: project.file.description.clone(),
            branches: branches.collect::<Result<_, Fault>>()?,
        })
    }

    pub(super) fn project(&self, name: &str) -> Result<Project, Fault> {
        let existing = self.files.stems(PROJECTS, ".toml")?;
        if !existing.contains(name) {
            return Err(
                not_found("project", name, existing.iter().map(String::as_str)).next("moorage list-projects")
            );
        }
        let path = format!("{PROJECTS}/{name}.toml");
        let source = self.files.text(&path)?.ok_or_else(|| {
            Fault::new(Kind::Failed, format!("{path} went away while it was read"))
                .next("run the same command again")
        })?;
        let file: ProjectFile = source.parse()?;
        Project { name: name.to_owned(), source, file }.checked()
    }

    /// The full reference of a branch's image; one that does not exist is told with its place.
    pub(super) fn image_of(&self, project: &Project, valid: &Validated) -> Result<String, Fault> {
        self.image_reference(valid.image.get_ref()).map_err(|mut fault| {
            fault.what = format!("{}: {}", project.source.place(Some(valid.image.span())), fault.what);
            fault
        })
    }
}

impl Project {
    /// What holds of the file as a whole, whichever branch is asked for.
    fn checked(self) -> Result<Project, Fault> {
        if let Some(pattern) = &self.file.defaults.pattern {
            let why = "`match` belongs into a [[branch]], [defaults] are for all of them";
            return Err(self.source.fault(Some(pattern.span()), why));
        }
        for branch in &self.file.branch {
            match &branch.get_ref().pattern {
                None => return Err(self.source.fault(Some(branch.span()), "this [[branch]] has no `match`")),
                Some(pattern) => {
                    glob(pattern).map_err(|why| self.source.fault(Some(pattern.span()), &why))?;
                }
            }
        }
        Ok(self)
    }

    /// Pattern and merged settings of each branch, in the order of the file. A file without branches is one whose
    /// defaults go for every branch.
    pub fn branches(&self) -> impl Iterator<Item = (String, Settings)> + '_ {
        let defaults = &self.file.defaults;
        let any = self.file.branch.is_empty().then(|| ("*".to_owned(), defaults.clone()));
        let each = self.file.branch.iter().filter_map(|branch| {
            let branch = branch.get_ref();
            Some((branch.pattern.as_ref()?.get_ref().clone(), merge(defaults, branch)))
        });
        any.into_iter().chain(each)
    }

    /// The settings of the first branch whose pattern matches what was typed.
    pub fn branch(&self, typed: &str) -> Result<Settings, Fault> {
        let good = |b: u8| b.is_ascii_alphanumeric() || b"._/+-@".contains(&b);
        // It becomes part of paths, of git's command line and of the container's name.
        if typed.is_empty()
            || typed.len() > 200
            || !typed.bytes().all(good)
            || typed.starts_with(['-', '/', '.'])
            || typed.contains("..")
        {
            return Err(Fault::new(
                Kind::Usage,
                format!("{typed:?} cannot be a branch: letters, digits and . _ / + - @, at most 200"),
            )
            .next("moorage list-projects"));
        }
        let matches = |pattern: &str| {
            GlobBuilder::new(pattern).build().is_ok_and(|g| g.compile_matcher().is_match(typed))
        };
        match self.branches().find(|(pattern, _)| matches(pattern)) {
            Some((_, settings)) => Ok(settings),
            None => {
                let patterns: Vec<String> = self.branches().map(|b| b.0).collect();
                let sort = format!("branch of {}", self.name);
                Err(not_found(&sort, typed, patterns.iter().map(String::as_str))
                    .next("moorage list-projects"))
            }
        }
    }
}

fn glob(pattern: &Spanned<String>) -> Result<(), String> {
    match GlobBuilder::new(pattern.get_ref()).build() {
        Ok(_) if !pattern.get_ref().is_empty() => Ok(()),
        Ok(_) => Err("an empty pattern matches no branch".into()),
        Err(error) => Err(error.to_string()),
    }
}
