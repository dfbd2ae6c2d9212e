//! `make-dev-container --from-snapshot`.

use anyhow::Result;

use super::make::{self, Wishes};
use super::{snapshots, view};
use crate::api::{Client, CloneRequest, CloneResult, FromSnapshot};
use crate::invocation::Invocation;
use crate::report::{Fault, Kind};
use crate::spec::SnapshotName;

/// Makes one container from `container/snapshot`.
pub async fn run(named: &str, wishes: &Wishes, invocation: &Invocation) -> Result<()> {
    let wrong = |why: String| Fault::new(Kind::Usage, why).next("list-snapshots");
    let (container, snapshot) = named
        .split_once('/')
        .ok_or_else(|| wrong(format!("{named:?} is not CONTAINER/SNAPSHOT, as in siem-9.2/before")))?;
    let snapshot: SnapshotName = snapshot.parse().map_err(wrong)?;
    let client = Client::connect(&invocation.socket).await?;
    let found = snapshots::find(&client, container, &snapshot).await?;
    if wishes.dry_run {
        return invocation.print(&found, |one| {
            format!("make a container of the snapshot {} of {}\n", one.snapshot, one.container)
        });
    }
    let clones = CloneRequest { count: 1, name: wishes.name.clone(), start: true };
    let request = FromSnapshot { container: found.container.to_string(), snapshot, clones };
    let reporter = invocation.reporter();
    let made: CloneResult =
        make::follow_alone(&client, ("/v1/snapshots/clone", &request), &reporter, &invocation.interrupted)
            .await?;
    drop(reporter);
    invocation.print(&made, view::clones)
}
