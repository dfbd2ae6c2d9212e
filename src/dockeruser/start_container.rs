//! `start-container`.

use anyhow::Result;

use super::each::{self, Names, Verb};
use crate::invocation::Invocation;

/// Start containers that are stopped, with the same address, files and network
///
/// Several names: all are tried, each is reported; the exit code is 7 when only some succeeded.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "start-dev-container",
    after_help = "Examples:\n  moorage start-container siem-9.2\n  moorage start-container siem-9.2 siem-9.3"
)]
pub struct Args {
    #[command(flatten)]
    names: Names,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    each::run(Verb::Start, &args.names, invocation).await
}
