//! `clone-container`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;

use super::{make, view};
use crate::api::{Client, ClonePlan, CloneRequest, CloneResult, MOST_CLONES, client};
use crate::invocation::Invocation;
use crate::report::{Fault, Kind, escape, output};

/// Clone a container with all that was done in it: /opt, root filesystem, settings
///
/// The container stops for a moment, and its state then is what the clones start from. Each clone has its own name, MAC,
/// address, machine-id and SSH host key; everything else is as in the source. /opt is shared: a clone takes space only for
/// what it writes. The clones of one command are a group: they find each other by name, and ssh from one to another needs
/// no password. One that fails is undone and named, the others stay; the exit code is then 7.
///
/// They are called as their source with a number before the owner: siem-9-2-1-ann. The same command again makes more.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage clone-container siem-9.2 --count 20
  moorage clone-container siem-9.2 --name siem-before-upgrade --start no
  moorage enter-container --clones-of siem-9.2 -- uptime
  moorage remove-container --clones-of siem-9.2")]
pub struct Args {
    /// The container; your own also by its short name (siem-9.2)
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    name: String,
    /// How many clones
    #[arg(long, short = 'n', default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MOST_CLONES as i64))]
    count: u32,
    /// Call them NAME-1-<owner>, NAME-2-<owner>, … instead; a single one NAME-<owner>
    #[arg(long = "name", value_name = "NAME", id = "called")]
    called: Option<String>,
    /// Whether the clones are started
    #[arg(long, default_value = "yes", value_name = "yes|no", value_parser = clap::builder::PossibleValuesParser::new(["yes", "no"]))]
    start: String,
    /// Say what would be done and what it costs, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let request = CloneRequest { count: args.count, name: args.called, start: args.start == "yes" };
    let plan: ClonePlan = client.post(&client::container(&args.name, "/clone/plan"), &request).await?;
    if args.dry_run {
        return invocation.print(&plan, |plan| format!("{}{}", view::plan(&plan.plan), cost(plan)));
    }
    if !invocation.speaks_json() {
        output::stderr(cost(&plan).trim_end());
    }
    let reporter = invocation.reporter();
    let path = client::container(plan.source.as_str(), "/clone");
    let result: CloneResult =
        make::follow_alone(&client, (&path, &request), &reporter, &invocation.interrupted).await?;
    drop(reporter);
    invocation.print(&result, view::clones)?;
    match (result.failed.as_slice(), result.not_ready.as_slice()) {
        ([], []) => Ok(()),
        ([], waiting) => Err(unready(&result, waiting).into()),
        (failed, _) => Err(partly(&result, failed).into()),
    }
}

/// What it costs, as lines.
fn cost(plan: &ClonePlan) -> String {
    let large = match plan.large_files.as_slice() {
        [] => "none".to_owned(),
        files => {
            let lines =
                files.iter().map(|file| format!("{} ({})", escape(&file.path), view::size(file.bytes)));
            lines.collect::<Vec<_>>().join("\n")
        }
    };
    crate::report::table::fields([
        ("method", plan.method.clone()),
        ("disk", format!("{} for all, then what each writes", view::size(plan.disk_bytes))),
        ("source", plan.stop.clone()),
        ("copied whole by a first write", large),
    ])
}

fn unready(result: &CloneResult, waiting: &[crate::api::CloneFailed]) -> Fault {
    let count = result.clones.len();
    let what = format!("{} of {count} clones of {} run and are not ready", waiting.len(), result.source);
    let mut fault = Fault::new(Kind::Partly, what)
        .remains(format!("{count} clones"))
        .next(format!("enter-container --clones-of {} -- COMMAND looks into them", result.source));
    fault.why = waiting.iter().map(|one| format!("{}: {}", one.name, one.fault)).collect();
    fault
}

fn partly(result: &CloneResult, failed: &[crate::api::CloneFailed]) -> Fault {
    let count = result.clones.len() + failed.len();
    let mut fault = Fault::new(
        Kind::Partly,
        format!("{} of {count} clones of {} were not made", failed.len(), result.source),
    )
    .remains(format!("{} clones", result.clones.len()))
    .next(format!("clone-container {} --count {} makes the rest", result.source, failed.len()));
    fault.why = failed.iter().map(|failed| format!("{}: {}", failed.name, failed.fault)).collect();
    fault
}
