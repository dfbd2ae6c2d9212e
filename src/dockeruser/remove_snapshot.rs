//! `remove-snapshot`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;

use crate::api::{Client, SnapshotNamed, VerbResult, client};
use crate::invocation::Invocation;
use crate::report::Table;
use crate::spec::SnapshotName;

/// Remove a snapshot, and what only it needs
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  moorage remove-snapshot siem-9.2 before-upgrade")]
pub struct Args {
    /// Its container, which may be gone
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    name: String,
    /// The snapshot; list-snapshots names them
    snapshot: SnapshotName,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let Args { name, snapshot, dry_run } = args;
    if dry_run {
        let found = super::snapshots::find(&client, &name, &snapshot).await?;
        return invocation
            .print(&found, |one| format!("remove the snapshot {} of {}\n", one.snapshot, one.container));
    }
    invocation.confirm(format!("Remove the snapshot {snapshot} of {name}?")).await?;
    let path = client::container(&name, "/snapshot/remove");
    let done: VerbResult = client.post(&path, &SnapshotNamed { snapshot }).await?;
    let mut table = Table::new(&["NAME", "STATE"]);
    table.row([done.name.as_str(), &done.state]);
    invocation.print_list("containers", &[done], table, "")
}
