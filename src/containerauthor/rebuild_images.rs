//! `rebuild-images`.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use crate::engine::Engine;
use crate::image::lineage::Why;
use crate::image::memory::Memory;
use crate::image::rebuild::{self, Outcome, Rebuilt, Wish};
use crate::image::survey::{Ask, survey};
use crate::image::{Build, buildkit};
use crate::invocation::Invocation;
use crate::report::Table;
use crate::site::Site;

/// Rebuild the images that are stale, and all that is built on them
///
/// Level by level: each image is built as a candidate and tried (it boots, its init reaches running, sshd answers, its
/// definition's own checks succeed). A base and all that stands on it get their new images together, parents first, and
/// only when every one of them is good. What failed is remembered: the next run builds only what is missing. Containers
/// keep the image they were made from until they are made anew.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage rebuild-images --dry-run
  moorage rebuild-images --base debian-12
  moorage rebuild-images --jobs 4")]
pub struct Args {
    /// Only this image and what stands on it
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
    /// Images that are built at the same time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=64))]
    jobs: u8,
    /// Do not ask the package repositories whether there are newer packages
    #[arg(long)]
    offline: bool,
    /// The file with a secret that the definition names (`secrets`); it gets into no layer, history or log
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = buildkit::parse)]
    secrets: Vec<(String, PathBuf)>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

/// A line of `--dry-run`.
#[derive(Debug, Serialize)]
struct Planned {
    name: String,
    /// Images of one level are built side by side.
    level: usize,
    why: Vec<Why>,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let site = Site::of_this_host(invocation.site.as_deref())?;
    if let Some(base) = &args.base {
        // A name that does not exist is told with those that do.
        site.image_reference(base)?;
    }
    let (engine, memory) = (Engine::of_this_host(), Memory::of_this_host()?);
    let wish = Wish { base: args.base, jobs: args.jobs.into(), offline: args.offline };
    let report = invocation.reporter();
    if args.dry_run {
        let ask = Ask { site: &site, engine: &engine, memory: &memory, offline: wish.offline };
        let survey = survey(ask).await?;
        for (base, error) in &survey.unanswered {
            report.warning(format!("{base}: whether there are newer packages is not known: {error:#}"));
        }
        let levels = rebuild::planned(&survey, &wish).into_iter().enumerate();
        let planned: Vec<Planned> = levels
            .flat_map(|(level, names)| {
                names.into_iter().map(move |(name, why)| Planned { name, level: level + 1, why })
            })
            .collect();
        let mut table = Table::new(&["LEVEL", "IMAGE", "WHY"]);
        for one in &planned {
            table.row([one.level.to_string(), one.name.clone(), words(&one.why)]);
        }
        return invocation.print_list("images", &planned, table, "no image is stale");
    }
    let secrets = args.secrets.into_iter().collect();
    let build = Build { site: &site, engine: &engine, report: &report, refresh: true, secrets: &secrets };
    let rebuilt = rebuild::rebuild(build, &memory, &wish).await?;
    // The bars have to be gone before the result is printed.
    drop(report);
    invocation.print_list("images", &rebuilt, table(&rebuilt), "no image is stale")?;
    match rebuild::fault(&rebuilt) {
        Some(fault) => Err(fault.into()),
        None => Ok(()),
    }
}

fn words(why: &[Why]) -> String {
    why.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn table(rebuilt: &[Rebuilt]) -> Table {
    let mut table = Table::new(&["IMAGE", "OUTCOME", "WHY"]);
    for one in rebuilt {
        let outcome = match &one.outcome {
            Outcome::Rebuilt { id } => format!("rebuilt {}", short(id)),
            Outcome::Unchanged => "came out the same".to_owned(),
            Outcome::Kept { id } => format!("good, not promoted {}", short(id)),
            Outcome::Failed { .. } => "failed".to_owned(),
            Outcome::Blocked { by } => format!("waits for {by}"),
        };
        table.row([one.name.clone(), outcome, words(&one.why)]);
    }
    table
}

/// As docker shows an id.
fn short(id: &str) -> &str {
    let hex = id.trim_start_matches("sha256:");
    hex.get(..12).unwrap_or(hex)
}
