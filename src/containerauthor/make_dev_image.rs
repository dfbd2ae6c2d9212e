//! `make-dev-image`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::engine::Engine;
use crate::image::{Build, Built, buildkit, dockerfile, squash};
use crate::invocation::Invocation;
use crate::site::Site;

/// Make a dev image: what a Dockerfile template puts on a base
///
/// The site defines it in containerauthor/images/<name>/. What it is built on is made first where it is missing. When
/// neither its definition nor its base has changed since it was made, nothing is done.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, for example demo
    #[arg(value_name = "IMAGE")]
    name: String,
    /// Build it anew although nothing changed: there may be newer packages
    #[arg(long)]
    refresh: bool,
    /// The file with a secret that the definition names (`secrets`); it gets into no layer, history or log
    #[arg(long = "secret", value_name = "NAME=FILE", value_parser = buildkit::parse)]
    secrets: Vec<(String, PathBuf)>,
    /// Make one layer of all that it has above its base
    #[arg(long)]
    squash: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let site = Site::of_this_host(invocation.site.as_deref())?;
    if args.dry_run {
        return invocation.print(&dockerfile::plan(&site, &args.name)?, |plan| plan.commands());
    }
    let engine = Engine::of_this_host();
    let report = invocation.reporter();
    let secrets = args.secrets.into_iter().collect();
    let build =
        Build { site: &site, engine: &engine, report: &report, refresh: args.refresh, secrets: &secrets };
    let mut built = dockerfile::make(build, &args.name).await?;
    if args.squash && squash::squash(&engine, &built.image, &report).await? {
        dockerfile::squashed(build, &args.name).await?;
        let image = engine
            .image(&built.image)
            .await?
            .context("the engine took the squashed image and does not have it")?;
        built = Built { id: image.id, size: image.size, changed: true, ..built };
    }
    invocation.print(&built, |built| format!("{} {}\n", built.image, built.id))
}
