//! `list-snapshots`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;

use super::{snapshots, view};
use crate::api::Client;
use crate::invocation::Invocation;
use crate::report::Table;

/// List the snapshots of this host, or of one container
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage list-snapshots
  moorage list-snapshots siem-9.2")]
pub struct Args {
    /// Only of this container; one that is gone by its full name
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    name: Option<String>,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let snapshots = match &args.name {
        Some(name) => snapshots::of(&client, name).await?,
        None => client.get("/v1/snapshots").await?,
    };
    let mut table = Table::new(&["CONTAINER", "SNAPSHOT", "OWNER", "PROJECT", "BRANCH", "IMAGE", "AGE"]);
    let now = jiff::Timestamp::now();
    for one in &snapshots {
        let dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
        table.row([
            one.container.to_string(),
            one.snapshot.to_string(),
            one.owner.to_string(),
            dash(&one.project),
            dash(&one.branch),
            one.image.clone(),
            view::age(one.made, now),
        ]);
    }
    invocation.print_list("snapshots", &snapshots, table, "no snapshots")
}
