//! `make-dev-container --from-snapshot`: of this host, or of a registry.

use anyhow::Result;
use serde::Serialize;

use super::make::{self, Wishes};
use super::{snapshots, view};
use crate::api::{Client, CloneRequest, CloneResult, FromPublished, FromSnapshot};
use crate::invocation::Invocation;
use crate::report::{Fault, Kind};
use crate::spec::SnapshotName;

/// Makes one container from `container/snapshot`, or from what was published as `oci://…`.
pub async fn run(named: &str, wishes: &Wishes, invocation: &Invocation) -> Result<()> {
    if named.starts_with("oci://") {
        return published(named, wishes, invocation).await;
    }
    if let Some(owner) = &wishes.owner {
        let what = format!(
            "a container of a snapshot of this host belongs to whose container that was, not to {owner}"
        );
        return Err(Fault::new(Kind::Usage, what).next("leave --owner out").into());
    }
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
    let container = found.container.to_string();
    let request = FromSnapshot { container, snapshot, clones: one(wishes) };
    follow(&client, ("/v1/snapshots/clone", &request), invocation).await
}

async fn published(from: &str, wishes: &Wishes, invocation: &Invocation) -> Result<()> {
    if wishes.dry_run {
        let plan = serde_json::json!({ "from": from });
        return invocation.print(&plan, |_| format!("make a container of the snapshot {from}\n"));
    }
    let people = wishes.people()?;
    let client = Client::connect(&invocation.socket).await?;
    let (owner, keys) = (people.owner, people.keys);
    let request = FromPublished { from: from.to_owned(), owner, keys, clones: one(wishes) };
    follow(&client, ("/v1/snapshots/clone-published", &request), invocation).await
}

fn one(wishes: &Wishes) -> CloneRequest {
    CloneRequest { count: 1, name: wishes.name.clone(), start: true }
}

async fn follow(client: &Client, asked: (&str, &impl Serialize), invocation: &Invocation) -> Result<()> {
    let reporter = invocation.reporter();
    let made: CloneResult = make::follow_alone(client, asked, &reporter, &invocation.interrupted).await?;
    drop(reporter);
    invocation.print(&made, view::clones)
}
