//! `stop-container`.

use anyhow::Result;

use super::each::{self, Names, Verb};
use crate::invocation::Invocation;

/// Stop containers; their files, address and MAC are kept
///
/// Several names: all are tried, each is reported; the exit code is 7 when only some succeeded.
#[derive(Debug, clap::Args)]
#[command(
    visible_alias = "stop-dev-container",
    after_help = "Examples:\n  moorage stop-container siem-9.2\n  moorage stop-container siem-9.2 siem-9.3"
)]
pub struct Args {
    #[command(flatten)]
    names: Names,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    each::run(Verb::Stop, &args.names, invocation).await
}
