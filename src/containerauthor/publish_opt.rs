//! `publish-opt`.

use std::path::PathBuf;

use anyhow::Result;

use crate::image::publish::opt;
use crate::invocation::Invocation;
use crate::oci::{Access, Registry};
use crate::report::{Fault, Kind};
use crate::spec::Reference;

/// Publish the content of a directory as an /opt archive
///
/// The tree goes to the registry in pieces that are cut where its content says: publishing it again sends only the pieces
/// that are new. The same tree is the same archive: times and owners of files are not part of it (all files have one time,
/// and belong to root). Who asks is who Docker's configuration says: docker login.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage publish-opt build/opt oci://registry.corp:5000/opt/siem:9.2
  moorage publish-opt build/opt oci://registry.corp:5000/opt/siem:9.2 --format json | jq -r .digest")]
pub struct Args {
    /// The directory whose content is to be /opt
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Where it goes: oci://host/repository:tag
    #[arg(value_name = "ARCHIVE")]
    to: String,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let to: Reference = args.to.parse().map_err(|e: crate::spec::reference::BadReference| {
        Fault::new(Kind::Usage, e.to_string()).next("for example oci://registry.corp:5000/opt/siem:9.2")
    })?;
    if to.tag.is_none() || to.digest.is_some() {
        let what = format!(
            "{to} is no name to publish under: it needs a tag, and its digest follows from the content"
        );
        return Err(Fault::new(Kind::Usage, what)
            .next(format!("oci://{}/{}:TAG", to.registry, to.repository))
            .into());
    }
    if args.dry_run {
        return invocation.print(&opt::plan(&args.directory, &to)?, |plan| plan.commands());
    }
    let report = invocation.reporter();
    let registry = Registry::open(&to.registry, &Access::of_docker()).await?;
    let published = opt::publish(&registry, &to, &args.directory, &report).await?;
    drop(report);
    invocation.print(&published, |published| format!("{}@{}\n", published.archive, published.digest))
}
