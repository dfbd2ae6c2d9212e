//! `prune-containers`.

use anyhow::Result;
use serde_json::json;

use super::view;
use crate::api::{Client, Collected, UnneededLayer};
use crate::invocation::Invocation;
use crate::report::Table;

/// Remove what no container and no snapshot needs
///
/// Says what it would free, and asks. Layers of archives are fetched again by the next container that needs them. For
/// admins of the host; --dry-run is for everybody.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage prune-containers --store --dry-run
  moorage prune-containers --store")]
pub struct Args {
    /// Layers in the /opt store
    #[arg(long, required = true)]
    store: bool,
    /// Say what would be freed, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let layers: Vec<UnneededLayer> = client.get("/v1/store/unneeded").await?;
    let free: u64 = layers.iter().map(|layer| layer.bytes).sum();
    if args.dry_run || layers.is_empty() {
        return invocation.print_list("layers", &layers, table(&layers), "nothing in the store is unneeded");
    }
    if !invocation.speaks_json() {
        crate::report::output::stderr(table(&layers).text().trim_end());
    }
    invocation.confirm(format!("Remove {} layer(s) and free {}?", layers.len(), view::size(free))).await?;
    let collected: Collected = client.post("/v1/store/collect", &json!({})).await?;
    invocation
        .print(&collected, |done| format!("{} layer(s) removed, {} freed\n", done.layers, view::size(free)))
}

fn table(layers: &[UnneededLayer]) -> Table {
    let mut table = Table::new(&["LAYER", "SIZE", "KIND", "OF"]);
    for layer in layers {
        let kind = if layer.archive { "archive" } else { "frozen" };
        table.row([layer.layer.as_str(), &view::size(layer.bytes), kind, &layer.of]);
    }
    table
}
