//! `remove-snapshot`.

use anyhow::Result;

use super::snapshots::{self, Named};
use crate::api::{Client, SnapshotNamed, VerbResult, client};
use crate::invocation::Invocation;

/// Remove a snapshot, and what only it needs
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  moorage remove-snapshot siem-9.2 before-upgrade")]
pub struct Args {
    #[command(flatten)]
    named: Named,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let Named { name, snapshot, dry_run } = args.named;
    if dry_run {
        let found = snapshots::find(&client, &name, &snapshot).await?;
        return invocation
            .print(&found, |one| format!("remove the snapshot {} of {}\n", one.snapshot, one.container));
    }
    invocation.confirm(format!("Remove the snapshot {snapshot} of {name}?")).await?;
    let path = client::container(&name, "/snapshot/remove");
    let done: VerbResult = client.post(&path, &SnapshotNamed { snapshot }).await?;
    snapshots::print(done, invocation)
}
