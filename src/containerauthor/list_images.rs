//! `list-images`.

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

use crate::engine::Engine;
use crate::image::lineage::{Graph, Node, Why, stale};
use crate::image::memory::Memory;
use crate::image::survey::{Ask, User, survey};
use crate::invocation::Invocation;
use crate::report::Table;
use crate::site::Site;
use crate::spec::ByteSize;

/// List the images of the site: what each is built on, how old and big it is, whether it is stale, who uses it
///
/// An image is stale when its definition has changed, when what it is built on was replaced or is stale, or when the
/// package repositories have other packages than it was made of. Containers of an earlier image are marked with *.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage list-images
  moorage list-images --offline
  moorage list-images --format json | jq -r '.images[] | select(.stale) | .name'")]
pub struct Args {
    /// Do not ask the package repositories whether there are newer packages
    #[arg(long)]
    offline: bool,
}

#[derive(Debug, Serialize)]
struct Image<'a> {
    name: &'a str,
    image: &'a str,
    /// What it is built on, by name.
    base: Option<&'a str>,
    here: bool,
    id: Option<&'a str>,
    created: Option<Timestamp>,
    bytes: Option<u64>,
    /// Absent where it is not here, or its repositories did not answer and nothing else says so.
    stale: Option<bool>,
    why: &'a [Why],
    containers: &'a [User],
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let site = Site::of_this_host(invocation.site.as_deref())?;
    let (engine, memory) = (Engine::of_this_host(), Memory::of_this_host()?);
    let ask = Ask { site: &site, engine: &engine, memory: &memory, offline: args.offline };
    let survey = survey(ask).await?;
    for (base, error) in &survey.unanswered {
        let report = invocation.reporter();
        report.warning(format!("{base}: whether there are newer packages is not known: {error:#}"));
    }
    let stale = stale(&survey.graph);
    let defined = survey.graph.values().filter(|node| node.definition.is_some());
    let images: Vec<Image<'_>> = defined
        .map(|node| {
            let why = stale.get(&node.name).map(Vec::as_slice).unwrap_or_default();
            let lowest = crate::image::lineage::lowest(&survey.graph, &node.name);
            let known = !survey.unanswered.contains_key(lowest) || !why.is_empty();
            image(node, why, known, survey.containers.get(&node.name).map(Vec::as_slice).unwrap_or_default())
        })
        .collect();
    let table = table(&images, &survey.graph, Timestamp::now());
    invocation.print_list("images", &images, table, "the site defines no images")
}

fn image<'a>(node: &'a Node, why: &'a [Why], known: bool, containers: &'a [User]) -> Image<'a> {
    let here = node.here.as_ref();
    Image {
        name: &node.name,
        image: &node.reference,
        base: node.on.as_deref(),
        here: here.is_some(),
        id: here.map(|here| here.id.as_str()),
        created: here.and_then(|here| Timestamp::from_second(here.created).ok()),
        bytes: here.map(|here| here.size),
        stale: here.filter(|_| known).map(|_| !why.is_empty()),
        why,
        containers,
    }
}

fn table(images: &[Image<'_>], graph: &Graph, now: Timestamp) -> Table {
    let mut table = Table::new(&["NAME", "BASE", "AGE", "SIZE", "STALE", "CONTAINERS"]);
    for image in images {
        // A base's own time is that of its definition, the same for all who make it.
        let age = image.created.filter(|_| graph.get(image.name).is_some_and(|node| node.on.is_some()));
        let stale = match (image.here, image.stale) {
            (false, _) => "not here".to_owned(),
            (true, None) => "?".to_owned(),
            (true, Some(false)) => "no".to_owned(),
            (true, Some(true)) => {
                let why: Vec<String> = image.why.iter().map(ToString::to_string).collect();
                format!("yes: {}", why.join("; "))
            }
        };
        let containers: Vec<String> = image
            .containers
            .iter()
            .map(|user| format!("{}{}", user.name, if user.outdated { "*" } else { "" }))
            .collect();
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        table.row([
            image.name.to_owned(),
            dash(image.base.unwrap_or_default().to_owned()),
            age.map_or_else(|| "-".to_owned(), |created| age_of(created, now)),
            image.bytes.map_or_else(|| "-".to_owned(), |bytes| ByteSize(bytes).to_string()),
            stale,
            dash(containers.join(" ")),
        ]);
    }
    table
}

/// Whole days, or hours on the first one.
fn age_of(created: Timestamp, now: Timestamp) -> String {
    let hours = (now.as_second() - created.as_second()).max(0) / 3600;
    match hours {
        0..48 => format!("{hours} h"),
        _ => format!("{} days", hours / 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::lineage::{Here, News};

    #[test]
    fn the_table() {
        let now: Timestamp = "2026-01-03T01:00:00Z".parse().unwrap();
        let node = |name: &str, on: Option<&str>, here: bool| Node {
            name: name.into(),
            reference: format!("moorage/{name}:latest"),
            on: on.map(str::to_owned),
            definition: None,
            here: here.then(|| Here {
                id: "sha256:1".into(),
                size: 400 << 20,
                created: now.as_second() - 3 * 86400,
                ..Here::default()
            }),
            news: News::None,
        };
        let nodes = [
            node("debian-12", None, true),
            node("demo", Some("debian-12"), true),
            node("siem", Some("demo"), false),
        ];
        let graph: Graph = nodes.iter().map(|node| (node.name.clone(), node.clone())).collect();
        let why = [Why::ParentStale("debian-12".into())];
        let users = [
            User { name: "demo-main-ann".into(), outdated: false },
            User { name: "x".into(), outdated: true },
        ];
        let images = [
            image(&nodes[0], &[], false, &[]),
            image(&nodes[1], &why, true, &users),
            image(&nodes[2], &[], true, &[]),
        ];
        insta::assert_snapshot!(table(&images, &graph, now).text());
    }
}
