//! `check-site`.

mod tools;

use std::collections::BTreeSet;

use anyhow::Result;
use serde::Serialize;

use crate::engine::Engine;
use crate::image::script::Script;
use crate::image::{base, variants};
use crate::invocation::Invocation;
use crate::report::{Fault, Kind, Table};
use crate::site::Site;

use tools::Tools;

/// Check everything a site defines: all files, all templates, all branches
///
/// TOML files are read with line and column; templates are rendered in all their variants and given to the tools that will
/// read them: scripts, what RUN and the like give to a shell, and the shell commands of every branch to shellcheck,
/// Dockerfiles to the engine's own parser and to "docker build --check", where that is there. Nothing is built, pulled or
/// changed. What could not be checked is said. Ends with 2 when there is a mistake.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage check-site --site ~/our-site
  moorage check-site --site . --format json | jq -r '.mistakes[].what'")]
pub struct Args {}

/// A mistake, or something that could not be checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong, with its place: `file:line:column: …`
    pub what: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl From<Fault> for Finding {
    fn from(fault: Fault) -> Finding {
        Finding { what: fault.what, why: fault.why, next: fault.next }
    }
}

#[derive(Debug, Serialize)]
struct Checked {
    projects: usize,
    bases: usize,
    images: usize,
    /// Renderings of the images' templates that were looked at.
    variants: usize,
    scripts: usize,
    mistakes: Vec<Finding>,
    /// What was not checked, and why.
    unchecked: Vec<String>,
}

pub async fn run(_args: Args, invocation: &Invocation) -> Result<()> {
    let site = Site::of_this_host(invocation.site.as_deref())?;
    let engine = Engine::of_this_host();
    let mut tools = Tools::new(&engine).await;
    let checked = check(&site, &mut tools).await?;
    let report = invocation.reporter();
    checked.unchecked.iter().for_each(|what| report.warning(format!("not checked: {what}")));
    drop(report);
    invocation.print(&checked, text)?;
    match checked.mistakes.len() {
        0 => Ok(()),
        count => Err(Fault::new(Kind::Usage, format!("the site has {count} mistakes"))
            .next("correct them, then: moorage check-site")
            .into()),
    }
}

async fn check(site: &Site, tools: &mut Tools<'_>) -> Result<Checked> {
    let mut mistakes: Vec<Finding> = site.check_names()?.into_iter().map(Finding::from).collect();
    mistakes.extend(site.check_keys().into_iter().map(Finding::from));
    let (projects, bases, images) = (site.project_names()?, site.bases()?, site.images()?);
    let mut scripts = Vec::new();
    for name in &projects {
        let (faults, found) = site.check_project(name);
        mistakes.extend(faults.into_iter().map(Finding::from));
        scripts.extend(found.into_iter().map(|script| Script::command(script.place, script.text)));
    }
    for name in &bases {
        match checked_base(site, name) {
            Ok(checks) => scripts.extend(checks),
            Err(fault) => mistakes.push(fault.into()),
        }
    }
    let mut rendered = 0;
    for name in &images {
        match variants::variants(site, name) {
            Ok(variants) => {
                for variant in variants {
                    rendered += 1;
                    // What is wrong in several variants is told once.
                    let found = tools.dockerfile(&variant).await?;
                    mistakes.extend(found.filter(|found| !mistakes.contains(found)));
                    scripts.extend(variant.scripts);
                    variant.unread.into_iter().for_each(|what| tools.not(what));
                }
            }
            Err(error) => mistakes.push(Fault::of(&error).into()),
        }
    }
    // Branches that inherit a command have the same, and so have variants; it is told once.
    let mut seen = BTreeSet::new();
    scripts.retain(|script| seen.insert((script.text.clone(), script.shell.clone())));
    for script in &scripts {
        mistakes.extend(tools.shell(script).await?);
    }
    Ok(Checked {
        projects: projects.len(),
        bases: bases.len(),
        images: images.len(),
        variants: rendered,
        scripts: scripts.len(),
        mistakes,
        unchecked: std::mem::take(&mut tools.missing),
    })
}

/// The shell commands of a base that is right; a lock beside it is read, too.
fn checked_base(site: &Site, name: &str) -> Result<Vec<Script>, Fault> {
    let definition = site.base(name)?;
    base::check(&definition)?;
    if let Some((file, text)) = site.lock_of(name)? {
        let digest = base::digest(&definition).map_err(|error| Fault::of(&error))?;
        base::Lock::parse(&file.display().to_string(), &text, name, digest)?;
    }
    let place = |at: usize| format!("{}, check {at}", definition.origin);
    Ok((1..).zip(&definition.checks).map(|(at, check)| Script::command(place(at), check.clone())).collect())
}

fn text(checked: &Checked) -> String {
    if checked.mistakes.is_empty() {
        let Checked { projects, bases, images, variants, scripts, .. } = checked;
        return format!(
            "{projects} projects, {bases} bases, {images} images in {variants} variants and {scripts} scripts are right\n"
        );
    }
    let mut table = Table::new(&["MISTAKE", "WHY"]);
    for found in &checked.mistakes {
        table.row([found.what.clone(), found.why.join("; ")]);
    }
    table.text()
}
