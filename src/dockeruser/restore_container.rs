//! `restore-container`.

use anyhow::Result;

use super::snapshots::{self, Named};
use crate::api::{Client, SnapshotNamed, VerbResult, client};
use crate::invocation::Invocation;

/// Put a container back to a snapshot of it: /opt and root filesystem
///
/// What was written since is lost; a snapshot of now keeps it. Name, address, MAC, host key and settings stay. A container
/// that ran runs again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage restore-container siem-9.2 before-upgrade
  moorage snapshot-container siem-9.2 --name after && moorage restore-container --yes siem-9.2 before-upgrade")]
pub struct Args {
    #[command(flatten)]
    named: Named,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let Named { name, snapshot, dry_run } = args.named;
    let lost = format!("what {name} wrote in /opt and its root filesystem since its snapshot {snapshot}");
    if dry_run {
        snapshots::find(&client, &name, &snapshot).await?;
        let steps = serde_json::json!({ "loses": lost });
        return invocation.print(&steps, |_| format!("loses {lost}\n"));
    }
    invocation.confirm(format!("Lose {lost}?")).await?;
    let reporter = invocation.reporter();
    let path = client::container(&name, "/restore");
    let done: VerbResult = client.run(&path, &SnapshotNamed { snapshot }, &reporter).await?;
    drop(reporter);
    snapshots::print(done, invocation)
}
