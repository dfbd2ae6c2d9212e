//! `recreate-container`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;

use super::view;
use crate::api::{Client, Losses, RecreateRequest, VerbResult, client};
use crate::invocation::Invocation;
use crate::report::{Table, escape, output};

/// Make a container anew from a newer image, on the same /opt
///
/// Name, MAC, address, host key, users and everything in /opt stay. What was written in the root filesystem is lost, and
/// listed before it is asked about. A container that ran runs again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage recreate-container siem-9.2 --dry-run
  moorage recreate-container siem-9.2
  moorage recreate-container siem-9.2 --image moorage/siem-el9:latest")]
pub struct Args {
    /// The container; your own also by its short name (siem-9.2)
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    name: String,
    /// Another image than its own in its newest form
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    image: Option<String>,
    /// Only list what would be lost
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let request = RecreateRequest { image: args.image };
    let losses: Losses = client.post(&client::container(&args.name, "/losses"), &request).await?;
    if args.dry_run {
        return invocation.print(&losses, text);
    }
    if !invocation.speaks_json() {
        output::stderr(text(&losses).trim_end());
    }
    let count = losses.lost.len();
    invocation
        .confirm(format!("Make {} anew from {} and lose {count} path(s)?", losses.name, losses.image))
        .await?;
    let reporter = invocation.reporter();
    let path = client::container(losses.name.as_str(), "/recreate");
    let done: VerbResult = client.run(&path, &request, &reporter).await?;
    drop(reporter);
    let mut table = Table::new(&["NAME", "STATE"]);
    table.row([done.name.as_str(), &done.state]);
    invocation.print_list("containers", &[done], table, "")
}

fn text(losses: &Losses) -> String {
    let mut text = match losses.newer {
        true => format!("{} is made anew from {}\n", losses.name, losses.image),
        false => format!("{} has {} already; made anew it is as at first\n", losses.name, losses.image),
    };
    if losses.whole_root {
        text.push_str("lost is the root filesystem of the clone or snapshot that it started from\n");
    }
    match losses.lost.is_empty() {
        true => text.push_str("nothing else in its root filesystem is lost\n"),
        false => text.push_str(&format!("lost from its root filesystem ({}):\n", view::size(losses.bytes))),
    }
    losses.lost.iter().for_each(|path| text.push_str(&format!("  {}\n", escape(path))));
    text
}
