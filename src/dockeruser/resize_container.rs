//! `resize-container`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;

use crate::api::{Client, ResizeRequest, Resized, client};
use crate::invocation::Invocation;
use crate::report::table::fields;
use crate::spec::ByteSize;

/// Give a container other limits, at once and without a restart
///
/// What is not named stays as it is. The most that may be asked for is in /etc/moorage/config.toml.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage resize-container siem-9.2 --memory 64GiB
  moorage resize-container siem-9.2 --cpu-weight 50 --pids 2000")]
pub struct Args {
    /// The container; your own also by its short name (siem-9.2)
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    name: String,
    #[command(flatten)]
    wanted: Wanted,
    /// Say what would be set, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
struct Wanted {
    /// The most memory it may use: 512MB, 64GiB
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Its share of CPU time against others, 1 to 10000; 100 is usual
    #[arg(long, value_name = "WEIGHT")]
    cpu_weight: Option<u32>,
    /// The most processes and threads
    #[arg(long, value_name = "COUNT")]
    pids: Option<u32>,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let Wanted { memory, cpu_weight, pids } = args.wanted;
    let request = ResizeRequest { memory, cpu_weight, pids };
    if args.dry_run {
        return invocation.print(&request, |wanted| {
            shown(&crate::spec::Limits {
                memory: wanted.memory,
                cpu_weight: wanted.cpu_weight,
                pids: wanted.pids,
            })
        });
    }
    let resized: Resized = client.post(&client::container(&args.name, "/resize"), &request).await?;
    invocation.print(&resized, |resized| shown(&resized.limits))
}

fn shown(limits: &crate::spec::Limits) -> String {
    let all = [
        ("memory", limits.memory.map(|size| size.to_string())),
        ("cpu weight", limits.cpu_weight.map(|weight| weight.to_string())),
        ("pids", limits.pids.map(|count| count.to_string())),
    ];
    fields(all.into_iter().filter_map(|(name, value)| Some((name, value?))))
}
