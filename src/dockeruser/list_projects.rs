//! `list-projects`.

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Serialize;

use super::definitions::site;
use super::view;
use crate::api::{Client, Present, PresentRequest};
use crate::invocation::Invocation;
use crate::report::{Fault, Table};
use crate::site::ProjectView;
use crate::spec::Archive;

/// List the projects and their branches, and what of their images and /opt is here already
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage list-projects
  moorage list-projects --site ~/our-site
  moorage list-projects --format json | jq -r '.projects[].name'")]
pub struct Args {}

/// Something that is here with so many bytes, or is not, or nobody knows (the daemon does not answer).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Here {
    here: Option<bool>,
    bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Project<'a> {
    name: &'a str,
    description: &'a str,
    branches: Vec<Branch<'a>>,
}

#[derive(Debug, Serialize)]
struct Branch<'a> {
    /// What a typed branch is matched with.
    pattern: &'a str,
    patches: &'a [String],
    image: Image<'a>,
    opt: Vec<Opt<'a>>,
}

#[derive(Debug, Serialize)]
struct Image<'a> {
    name: &'a str,
    #[serde(flatten)]
    here: Here,
}

#[derive(Debug, Serialize)]
struct Opt<'a> {
    #[serde(flatten)]
    archive: &'a Archive,
    #[serde(flatten)]
    here: Here,
}

pub async fn run(_args: Args, invocation: &Invocation) -> Result<()> {
    let views = site(invocation)?.projects()?;
    let question = question(&views);
    let answer = match ask(&question, invocation).await {
        Ok(present) => Some(present),
        Err(error) => {
            let fault = Fault::of(&error);
            invocation.reporter().warning(format!("what is here already is not known: {}", fault.what));
            None
        }
    };
    let projects = projects(&views, &question, answer.as_ref());
    invocation.print_list("projects", &projects, table(&projects), "no projects")
}

async fn ask(question: &PresentRequest, invocation: &Invocation) -> Result<Present> {
    Client::connect(&invocation.socket).await?.post("/v1/present", question).await
}

/// Each image and archive once.
fn question(views: &[ProjectView]) -> PresentRequest {
    let branches = || views.iter().flat_map(|project| &project.branches);
    let images: BTreeSet<&String> = branches().map(|branch| &branch.image).collect();
    let mut archives: Vec<Archive> = Vec::new();
    for archive in branches().flat_map(|branch| &branch.opt) {
        if !archives.contains(archive) {
            archives.push(archive.clone());
        }
    }
    PresentRequest { images: images.into_iter().cloned().collect(), archives }
}

/// The answer's size of the asked thing at `index`.
fn here(answer: Option<&[Option<u64>]>, index: Option<usize>) -> Here {
    match (answer, index) {
        (Some(sizes), Some(index)) => {
            let bytes = sizes.get(index).copied().flatten();
            Here { here: Some(bytes.is_some()), bytes }
        }
        _ => Here { here: None, bytes: None },
    }
}

fn projects<'a>(
    views: &'a [ProjectView],
    question: &PresentRequest,
    answer: Option<&Present>,
) -> Vec<Project<'a>> {
    let image = |name: &str| {
        let index = question.images.iter().position(|image| image == name);
        here(answer.map(|answer| answer.images.as_slice()), index)
    };
    let archive = |wanted: &Archive| {
        let index = question.archives.iter().position(|archive| archive == wanted);
        here(answer.map(|answer| answer.archives.as_slice()), index)
    };
    let project = |view: &'a ProjectView| {
        let branches = view.branches.iter().map(|branch| Branch {
            pattern: &branch.pattern,
            patches: &branch.patches,
            image: Image { name: &branch.image, here: image(&branch.image) },
            opt: branch.opt.iter().map(|one| Opt { archive: one, here: archive(one) }).collect(),
        });
        Project { name: &view.name, description: &view.description, branches: branches.collect() }
    };
    views.iter().map(project).collect()
}

/// Sizes of what is here; `not here`; `?` where nobody knows.
fn size(parts: &[Here]) -> String {
    if parts.is_empty() {
        return "-".into();
    }
    if parts.iter().any(|part| part.here.is_none()) {
        return "?".into();
    }
    let total = parts.iter().filter_map(|part| part.bytes).sum();
    match parts.iter().filter(|part| part.bytes.is_some()).count() {
        0 => "not here".into(),
        count if count == parts.len() => view::size(total),
        count => format!("{} ({count} of {} here)", view::size(total), parts.len()),
    }
}

fn table(projects: &[Project<'_>]) -> Table {
    let mut table =
        Table::new(&["PROJECT", "BRANCH", "IMAGE", "IMAGE SIZE", "OPT SIZE", "PATCHES", "DESCRIPTION"]);
    for project in projects {
        for branch in &project.branches {
            let opt: Vec<Here> = branch.opt.iter().map(|opt| opt.here).collect();
            let patches = if branch.patches.is_empty() { "-".into() } else { branch.patches.join(",") };
            table.row([
                project.name,
                branch.pattern,
                branch.image.name,
                &size(&[branch.image.here]),
                &size(&opt),
                &patches,
                project.description,
            ]);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site::BranchView;

    #[test]
    fn what_is_here_is_told_from_what_is_not_and_what_nobody_knows() {
        let archive = |url: &str| Archive { url: url.into(), sha256: None };
        let branch = |pattern: &str, image: &str, opt: &[&str]| BranchView {
            pattern: pattern.into(),
            image: image.into(),
            opt: opt.iter().map(|url| archive(url)).collect(),
            patches: vec!["p1".into()],
        };
        let views = [ProjectView {
            name: "siem".into(),
            description: "events".into(),
            branches: vec![
                branch("9.2", "moorage/el8:latest", &["file:///a", "file:///b"]),
                branch("9.*", "moorage/el7:latest", &["file:///b"]),
                branch("*", "moorage/el8:latest", &[]),
            ],
        }];
        let question = question(&views);
        assert_eq!((question.images.len(), question.archives.len()), (2, 2));
        let answer = Present { images: vec![None, Some(400 << 20)], archives: vec![Some(1 << 30), None] };
        insta::assert_snapshot!(table(&projects(&views, &question, Some(&answer))).text(), @r"
        PROJECT  BRANCH  IMAGE               IMAGE SIZE  OPT SIZE             PATCHES  DESCRIPTION
        siem     9.2     moorage/el8:latest  400 MiB     1 GiB (1 of 2 here)  p1       events
        siem     9.*     moorage/el7:latest  not here    not here             p1       events
        siem     *       moorage/el8:latest  400 MiB     -                    p1       events
        ");
        let unknown = table(&projects(&views, &question, None)).text();
        assert!(unknown.lines().nth(1).unwrap().contains("moorage/el8:latest  ?           ?"), "{unknown}");
    }
}
