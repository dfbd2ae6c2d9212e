//! `stop-lab`.

use anyhow::Result;
use serde::Serialize;

use crate::invocation::Invocation;
use crate::lab::{self, Settings};

/// Remove a lab: what start-lab made, and nothing else
///
/// Containers on it lose their network. A lab that is not there is no error.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the lab
    #[arg(long, default_value = "lab", value_parser = Settings::check_name)]
    name: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Stopped {
    name: String,
    /// Whether there was one.
    changed: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let name = args.name.clone();
    if args.dry_run {
        let plan = tokio::task::spawn_blocking(move || lab::plan_stop(&name)).await??;
        return invocation.print(&plan, |plan| plan.commands());
    }
    let report = invocation.reporter();
    let changed = tokio::task::spawn_blocking(move || lab::stop(&name, &report)).await??;
    // For people the progress says it all.
    invocation.print(&Stopped { name: args.name, changed }, |_| String::new())
}
