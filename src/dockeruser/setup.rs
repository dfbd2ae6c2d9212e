//! `moorage setup`: makes this host ready, and changes nothing where it is.
//!
//! Looks ([`observe`]), decides ([`plan`], pure), then acts ([`apply`]).

mod apply;
mod observe;
mod parent;
mod plan;
mod site;

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::invocation::Invocation;
use crate::report::{Fault, Kind};

use observe::Host;
pub use plan::Step;

/// Make this host ready: Docker Engine, the daemon, the LAN's network, the commands
///
/// Installs Docker Engine where it is missing, takes the site's definitions from their repository, makes the Docker
/// network on the interface that is plugged into the LAN, and starts everything. Run it again after a change or an
/// upgrade: it does only what is missing.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// The interface that is plugged into the LAN (asked for once; it is kept in /etc/moorage/config.toml)
    #[arg(long, value_name = "INTERFACE")]
    pub parent: Option<String>,
    /// There is no LAN that containers could be on (Wi-Fi, a cloud, a laptop): they go on Docker's bridge
    #[arg(long, conflicts_with = "parent")]
    pub no_lan: bool,
    /// Git repository with the site's definitions, kept in /etc/moorage/site
    #[arg(long, value_name = "URL")]
    pub site_repo: Option<String>,
    /// What Docker calls the LAN
    #[arg(long, value_name = "NAME", default_value = plan::DEFAULT_NETWORK)]
    pub network: String,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// What was done, or with `--dry-run` would be.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    pub dry_run: bool,
    pub steps: Vec<Line>,
}

/// One step for people and programs.
#[derive(Debug, Clone, Serialize)]
pub struct Line {
    pub text: String,
    /// The command a person could type instead.
    pub shell: String,
}

impl Outcome {
    /// For a terminal: one line a step.
    pub fn text(&self) -> String {
        let line = |step: &Line| format!("{}\n    {}\n", step.text, step.shell.replace('\n', "\n    "));
        match self.steps.as_slice() {
            [] => "This host is ready, nothing to do.\n".into(),
            steps if self.dry_run => steps.iter().map(line).collect(),
            // What was done has been said as progress.
            _ => "This host is ready.\n".into(),
        }
    }
}

/// Fails with [`Kind::Denied`] unless root runs it, with [`Kind::Differs`] where the host is set up in another way,
/// with [`Kind::Missing`] where it lacks what cannot be installed, and with [`Kind::Usage`] for an interface that
/// cannot be the LAN's.
pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Fault::new(Kind::Denied, "only root can set this host up")
            .next("sudo moorage setup …, with the same words")
            .into());
    }
    let host = Host::at(Path::new("/"));
    let seen = observe::observe(&host, &args, &invocation.links).await?;
    let steps = plan::plan(&args, &seen)?;
    let lines = steps.iter().map(|step| Line { text: step.text(), shell: step.shell() }).collect();
    if !args.dry_run {
        apply::apply(&host, &steps, &invocation.reporter()).await?;
    }
    invocation.print(&Outcome { dry_run: args.dry_run, steps: lines }, Outcome::text)
}
