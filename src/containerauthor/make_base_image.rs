//! `make-base-image`.

use anyhow::Result;

use crate::engine::Engine;
use crate::image::{Build, base};
use crate::invocation::Invocation;
use crate::site::Site;

/// Make a base image: an operating system from its package repositories
///
/// The site defines it in containerauthor/bases/<os>-<release>.toml and common/repos/<os>-<release>/. When neither has
/// changed since the image was made, nothing is done.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The base, for example debian-12
    #[arg(value_name = "OS-RELEASE")]
    name: String,
    /// Make it anew although its definition is the same: there may be newer packages
    #[arg(long)]
    refresh: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let site = Site::of_this_host(invocation.site.as_deref())?;
    if args.dry_run {
        return invocation.print(&base::plan(&site, &args.name)?, |plan| plan.commands());
    }
    let engine = Engine::of_this_host();
    let report = invocation.reporter();
    let build = Build { site: &site, docker: engine.docker().await?, report: &report, refresh: args.refresh };
    let built = base::make(build, &args.name).await?;
    invocation.print(&built, |built| format!("{} {}\n", built.image, built.id))
}
