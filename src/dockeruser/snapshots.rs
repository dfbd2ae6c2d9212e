//! Looking snapshots up, and what the verbs on one have in common.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;

use crate::api::{Client, ContainerDetail, SnapshotView, VerbResult, client};
use crate::invocation::Invocation;
use crate::report::{Fault, Kind, Table};
use crate::spec::SnapshotName;

/// One snapshot of a container.
#[derive(Debug, clap::Args)]
pub struct Named {
    /// Its container, which may be gone; your own also by its short name (siem-9.2)
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    pub name: String,
    /// The snapshot; list-snapshots names them
    pub snapshot: SnapshotName,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Prints what became of the container.
pub fn print(done: VerbResult, invocation: &Invocation) -> Result<()> {
    let mut table = Table::new(&["NAME", "STATE"]);
    table.row([done.name.as_str(), &done.state]);
    invocation.print_list("containers", &[done], table, "")
}

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
