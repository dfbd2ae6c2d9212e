//! `list-projects`.

mod archives;
mod asked;
mod images;

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
///
/// IMAGE SIZE and OPT SIZE are what they take on this host; `packed` is the size of what would have to be fetched, where
/// its server says it within three seconds.
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
    /// Bytes of the image as its registry has it; looked for only where it is not here.
    packed_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Opt<'a> {
    #[serde(flatten)]
    archive: &'a Archive,
    #[serde(flatten)]
    here: Here,
    /// Bytes of the archive as it is published; looked for only where it is not here.
    packed_bytes: Option<u64>,
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
    let packed = Packed::of(&question, answer.as_ref()).await;
    let projects = projects(&views, &question, answer.as_ref(), &packed);
    invocation.print_list("projects", &projects, table(&projects), "no projects")
}

async fn ask(question: &PresentRequest, invocation: &Invocation) -> Result<Present> {
    Client::connect(&invocation.socket).await?.post("/v1/present", question).await
}

/// The sizes of what is asked for and is not known to be here, in the order of the question.
#[derive(Debug, Default)]
struct Packed {
    images: Vec<Option<u64>>,
    archives: Vec<Option<u64>>,
}

impl Packed {
    async fn of(question: &PresentRequest, answer: Option<&Present>) -> Packed {
        let (images, archives) = (
            Absent::of(&question.images, answer.map(|answer| answer.images.as_slice())),
            Absent::of(&question.archives, answer.map(|answer| answer.archives.as_slice())),
        );
        let (found_images, found_archives) = tokio::join!(
            images::sizes(&images.things, asked::PATIENCE),
            archives::sizes(&archives.things, asked::PATIENCE),
        );
        Packed { images: images.among_all(found_images), archives: archives.among_all(found_archives) }
    }
}

/// What is not known to be here, and where it stands in the question.
struct Absent<'a, T> {
    things: Vec<&'a T>,
    indices: Vec<usize>,
    all: usize,
}

impl<'a, T> Absent<'a, T> {
    fn of(asked: &'a [T], here: Option<&[Option<u64>]>) -> Absent<'a, T> {
        let absent = |index: &usize| here.is_none_or(|here| here.get(*index).copied().flatten().is_none());
        let indices: Vec<usize> = (0..asked.len()).filter(absent).collect();
        Absent { things: indices.iter().map(|index| &asked[*index]).collect(), indices, all: asked.len() }
    }

    fn among_all(&self, found: Vec<Option<u64>>) -> Vec<Option<u64>> {
        let mut all = vec![None; self.all];
        for (index, size) in self.indices.iter().zip(found) {
            all[*index] = size;
        }
        all
    }
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
    packed: &Packed,
) -> Vec<Project<'a>> {
    let packed_of = |sizes: &[Option<u64>], index: Option<usize>| sizes.get(index?).copied().flatten();
    let image = |name: &'a str| {
        let index = question.images.iter().position(|image| image == name);
        let here = here(answer.map(|answer| answer.images.as_slice()), index);
        Image { name, here, packed_bytes: packed_of(&packed.images, index) }
    };
    let archive = |wanted: &'a Archive| {
        let index = question.archives.iter().position(|archive| archive == wanted);
        let here = here(answer.map(|answer| answer.archives.as_slice()), index);
        Opt { archive: wanted, here, packed_bytes: packed_of(&packed.archives, index) }
    };
    let project = |view: &'a ProjectView| {
        let branches = view.branches.iter().map(|branch| Branch {
            pattern: &branch.pattern,
            patches: &branch.patches,
            image: image(&branch.image),
            opt: branch.opt.iter().map(archive).collect(),
        });
        Project { name: &view.name, description: &view.description, branches: branches.collect() }
    };
    views.iter().map(project).collect()
}

/// Size of what is here; `not here`; `?` where nobody knows. Behind it the size of what would have to be fetched.
fn size(parts: &[(Here, Option<u64>)]) -> String {
    if parts.is_empty() {
        return "-".into();
    }
    let total = parts.iter().filter_map(|(here, _)| here.bytes).sum();
    let absent: Vec<Option<u64>> =
        parts.iter().filter(|(here, _)| here.bytes.is_none()).map(|(_, packed)| *packed).collect();
    let packed = absent.iter().copied().sum::<Option<u64>>().filter(|bytes| *bytes > 0);
    let packed = packed.map(|bytes| format!("{} packed", view::size(bytes)));
    let (what, more) = match parts.len() - absent.len() {
        _ if parts.iter().any(|(here, _)| here.here.is_none()) => ("?".into(), None),
        0 => ("not here".into(), None),
        count if count == parts.len() => return view::size(total),
        count => (view::size(total), Some(format!("{count} of {} here", parts.len()))),
    };
    match [more, packed].into_iter().flatten().collect::<Vec<_>>().join(", ") {
        behind if behind.is_empty() => what,
        behind => format!("{what} ({behind})"),
    }
}

fn table(projects: &[Project<'_>]) -> Table {
    let mut table =
        Table::new(&["PROJECT", "BRANCH", "IMAGE", "IMAGE SIZE", "OPT SIZE", "PATCHES", "DESCRIPTION"]);
    for project in projects {
        for branch in &project.branches {
            let opt: Vec<_> = branch.opt.iter().map(|opt| (opt.here, opt.packed_bytes)).collect();
            let patches = if branch.patches.is_empty() { "-".into() } else { branch.patches.join(",") };
            table.row([
                project.name,
                branch.pattern,
                branch.image.name,
                &size(&[(branch.image.here, branch.image.packed_bytes)]),
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
        let packed =
            |archives: &[_]| Packed { images: vec![Some(90 << 20), None], archives: archives.to_vec() };
        let text =
            |answer, archives: &[_]| table(&projects(&views, &question, answer, &packed(archives))).text();
        insta::assert_snapshot!(text(Some(&answer), &[None, Some(20 << 20)]), @r"
        PROJECT  BRANCH  IMAGE               IMAGE SIZE                OPT SIZE                            PATCHES  DESCRIPTION
        siem     9.2     moorage/el8:latest  400 MiB                   1 GiB (1 of 2 here, 20 MiB packed)  p1       events
        siem     9.*     moorage/el7:latest  not here (90 MiB packed)  not here (20 MiB packed)            p1       events
        siem     *       moorage/el8:latest  400 MiB                   -                                   p1       events
        ");
        insta::assert_snapshot!(text(None, &[Some(30 << 20), None]), @r"
        PROJECT  BRANCH  IMAGE               IMAGE SIZE         OPT SIZE  PATCHES  DESCRIPTION
        siem     9.2     moorage/el8:latest  ?                  ?         p1       events
        siem     9.*     moorage/el7:latest  ? (90 MiB packed)  ?         p1       events
        siem     *       moorage/el8:latest  ?                  -         p1       events
        ");
        assert!(text(None, &[Some(30 << 20), Some(20 << 20)]).contains("  ? (50 MiB packed)  "));
    }
}
