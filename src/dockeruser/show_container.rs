//! `show-container`.

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use jiff::Timestamp;

use super::view;
use crate::api::{Client, ContainerDetail, client};
use crate::invocation::Invocation;
use crate::report::table::fields;

/// Show all about one container: address, image, sources, files, limits, lease
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage show-container siem-9.2
  moorage show-container siem-9.2 --format json | jq .container.mac")]
pub struct Args {
    /// The container; your own also by its short name (siem-9.2)
    #[arg(value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    name: String,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let detail: ContainerDetail = client.get(&client::container(&args.name, "")).await?;
    invocation.print(&detail, |detail| text(detail, Timestamp::now()))
}

fn text(detail: &ContainerDetail, now: Timestamp) -> String {
    let ContainerDetail { container, spec, .. } = detail;
    let lines = |items: Vec<String>| items.join("\n");
    let host = match container.address {
        Some(address) => address.to_string(),
        None => String::new(),
    };
    let ssh = if host.is_empty() { String::new() } else { format!("ssh {}@{host}", detail.user) };
    let sources = spec.sources.iter().map(|source| {
        let reference = source.reference.as_deref().unwrap_or("(default branch)");
        format!("{} {reference} in /opt/{}", source.repo, source.to.trim_start_matches("/opt/"))
    });
    let mounts = spec.mounts.iter().map(|mount| {
        let read_only = if mount.read_only { ":ro" } else { "" };
        format!("{}:{}{read_only}", mount.source, mount.target)
    });
    let limits = spec.limits.words().into_iter().map(|(name, value)| format!("{name} {value}"));
    let journal = detail.lease.iter().filter_map(|lease| lease["journal"].as_array()).flatten();
    let journal = journal.map(|entry| {
        let part = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
        format!("{} {}", part("at"), part("text"))
    });
    let granted = |key: &str| {
        let values = detail.lease.iter().filter_map(|lease| lease[key].as_array()).flatten();
        values.filter_map(|value| value.as_str()).collect::<Vec<_>>().join(" ")
    };
    let all = [
        ("name", container.name.to_string()),
        ("owner", container.owner.to_string()),
        ("state", view::state_now(container)),
        ("project", spec.project.clone()),
        ("branch", spec.branch.clone()),
        ("patches", spec.patches.join(", ")),
        ("address", host),
        ("IPv6", lines(container.ipv6.iter().map(ToString::to_string).collect())),
        ("MAC", container.mac.to_string()),
        ("network", container.network.clone()),
        ("DNS servers", granted("dns")),
        ("search list", granted("search")),
        ("NTP servers", granted("ntp")),
        ("lease", lines(journal.collect())),
        ("ssh", ssh),
        ("host key", detail.host_key.clone()),
        ("image", container.image.clone()),
        ("opt", lines(spec.opt.iter().map(|archive| archive.url.clone()).collect())),
        ("sources", lines(sources.collect())),
        ("mounts", lines(mounts.collect())),
        ("limits", limits.collect::<Vec<_>>().join(", ")),
        ("files", format!("{} ({} of its own)", detail.opt_directory, view::size(detail.opt_bytes))),
        ("logs", detail.logs_directory.clone()),
        (
            "created",
            format!(
                "{} ({} ago)",
                container.created.strftime("%F %T UTC"),
                view::age(container.created, now)
            ),
        ),
    ];
    fields(all.into_iter().filter(|(_, value)| !value.is_empty()))
}
