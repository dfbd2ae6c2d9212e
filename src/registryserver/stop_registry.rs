//! `stop-registry`.

use anyhow::Result;
use serde::Serialize;

use crate::invocation::Invocation;
use crate::registry::{Place, SERVERS};

/// Stop the registry of this host; everything it has stays
///
/// What is being sent is sent to the end, for half a minute at most. start-registry goes on with the same names, users,
/// certificates and images. A registry that does not run is no error.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Stopped {
    dry_run: bool,
    /// Whether something ran.
    changed: bool,
    steps: Vec<String>,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    super::only_root("stop-registry")?;
    let place = Place::of_this_host();
    place.started()?;
    let _lock = place.lock().await?;
    let reporter = invocation.reporter();
    let mut steps = Vec::new();
    // Who pushes is told first.
    for server in SERVERS.into_iter().rev() {
        let runs = server.runs(&place).await;
        if !args.dry_run {
            // Under systemd one that does not run now may still be started at boot.
            server.stop(&place, &reporter).await?;
        }
        if runs {
            let text = format!("stop the {}", server.name());
            if !args.dry_run {
                reporter.end("registry", format!("{text}: done"));
            }
            steps.push(text);
        }
    }
    let stopped = Stopped { dry_run: args.dry_run, changed: !steps.is_empty(), steps };
    invocation.print(&stopped, |stopped| match (stopped.dry_run, stopped.changed) {
        (_, false) => "The registry does not run.\n".into(),
        (true, true) => stopped.steps.iter().map(|step| format!("{step}\n")).collect(),
        // For people the progress says it all.
        (false, true) => String::new(),
    })
}
