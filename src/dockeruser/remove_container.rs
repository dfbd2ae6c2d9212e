//! `remove-container`.

use anyhow::Result;

use super::each::{self, Names, Verb};
use crate::invocation::Invocation;

/// Remove containers with their root filesystem and their own files in /opt
///
/// What is lost is said, and asked about on a terminal. The address goes back to the LAN. /opt archives, which other
/// containers share, stay. Several names: all are tried, each is reported; the exit code is 7 when only some succeeded.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "remove-dev-container",
    after_help = "Examples:\n  moorage remove-container siem-9.2\n  moorage remove-container --yes siem-9.2 siem-9.3\n  moorage remove-container --clones-of siem-9.2"
)]
pub struct Args {
    #[command(flatten)]
    names: Names,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    if !args.names.dry_run {
        each::confirm_loss(&args.names, invocation).await?;
    }
    each::run(Verb::Remove, &args.names, invocation).await
}
