//! `snapshot-container`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;

use super::{make, view};
use crate::api::{Client, ClonePlan, CloneRequest, SnapshotRequest, SnapshotResult, client};
use crate::invocation::Invocation;
use crate::report::table::fields;
use crate::spec::SnapshotName;

/// Keep the state that a container has now: /opt and root filesystem
///
/// The container stops for a moment, as for clone-container, and goes on. restore-container puts it back to that state,
/// make-dev-container --from-snapshot makes other containers of it. Snapshots stay when the container is removed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage snapshot-container siem-9.2 --name before-upgrade
  moorage restore-container siem-9.2 before-upgrade
  moorage make-dev-container --from-snapshot siem-9.2/before-upgrade --name siem-9.2-p3")]
pub struct Args {
    /// The container; your own also by its short name (siem-9.2)
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    name: String,
    /// What to call the snapshot; by the time (20260102t030405) where absent
    #[arg(long = "name", value_name = "SNAPSHOT", id = "called")]
    called: Option<SnapshotName>,
    /// Say what it costs, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    if args.dry_run {
        let one = CloneRequest { count: 1, name: None, start: false };
        let plan: ClonePlan = client.post(&client::container(&args.name, "/clone/plan"), &one).await?;
        let cost =
            serde_json::json!({ "container": plan.source, "disk_bytes": plan.disk_bytes, "stop": plan.stop });
        let disk = format!("{}, then what the container changes from now on", view::size(plan.disk_bytes));
        return invocation.print(&cost, |_| fields([("disk", disk), ("container", plan.stop.clone())]));
    }
    let reporter = invocation.reporter();
    let path = client::container(&args.name, "/snapshot");
    let request = SnapshotRequest { name: args.called };
    let taken: SnapshotResult =
        make::follow_alone(&client, (&path, &request), &reporter, &invocation.interrupted).await?;
    drop(reporter);
    invocation.print(&taken, |taken| {
        fields([
            ("snapshot", taken.snapshot.to_string()),
            ("of", taken.container.to_string()),
            ("stopped for", format!("{:.1} s", taken.stopped_ms as f64 / 1e3)),
        ])
    })
}
