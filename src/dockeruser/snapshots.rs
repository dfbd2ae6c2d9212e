//! Looking snapshots up.

use anyhow::Result;

use crate::api::{Client, ContainerDetail, SnapshotView, client};
use crate::report::{Fault, Kind};
use crate::spec::SnapshotName;

/// The snapshots of a container that is there, or of one of exactly this name that is gone.
pub async fn of(client: &Client, typed: &str) -> Result<Vec<SnapshotView>> {
    let detail: Result<ContainerDetail> = client.get(&client::container(typed, "")).await;
    let name = detail.map_or_else(|_| typed.to_owned(), |detail| detail.container.name.to_string());
    let mut all: Vec<SnapshotView> = client.get("/v1/snapshots").await?;
    all.retain(|one| one.container.as_str() == name);
    Ok(all)
}

/// One snapshot of a container.
pub async fn find(client: &Client, typed: &str, name: &SnapshotName) -> Result<SnapshotView> {
    let found = of(client, typed).await?.into_iter().find(|one| one.snapshot == *name);
    Ok(found.ok_or_else(|| {
        Fault::new(Kind::NotFound, format!("{typed} has no snapshot {name}")).next("list-snapshots")
    })?)
}
