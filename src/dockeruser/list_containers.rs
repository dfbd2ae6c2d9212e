//! `list-containers`.

use std::str::FromStr;

use anyhow::Result;
use jiff::Timestamp;

use super::definitions::Person;
use super::view;
use crate::api::{Client, ContainerView};
use crate::invocation::Invocation;
use crate::report::Table;

/// List the containers of this host: whose, which branch, where
///
/// `(outdated)` behind an image: that name belongs to a newer image by now, and the container still has the earlier one.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage list-containers --mine
  moorage list-containers --long
  moorage list-containers --filter project=siem --filter state=running
  moorage list-containers --format json | jq -r '.containers[].address'")]
pub struct Args {
    /// Only what belongs to you or to a group of yours
    #[arg(long)]
    mine: bool,
    /// With what each container's own part of /opt takes on disk
    #[arg(long, short)]
    long: bool,
    /// Only these: owner=, project=, branch= or state=; the same key again adds, another key narrows
    #[arg(long, value_name = "KEY=VALUE", add = super::complete::filters())]
    filter: Vec<Filter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Owner,
    Project,
    Branch,
    State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Filter {
    key: Key,
    value: String,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Filter, String> {
        let (key, value) = text.split_once('=').ok_or("a filter is KEY=VALUE")?;
        let key = match key {
            "owner" => Key::Owner,
            "project" => Key::Project,
            "branch" => Key::Branch,
            "state" => Key::State,
            _ => return Err(format!("no filter {key:?}; there are owner, project, branch, state")),
        };
        Ok(Filter { key, value: value.to_owned() })
    }
}

impl Filter {
    fn accepts(&self, container: &ContainerView) -> bool {
        match self.key {
            Key::Owner => container.owner.to_string() == self.value,
            Key::Project => container.project == self.value,
            Key::Branch => container.branch == self.value,
            Key::State => view::state(container.state) == self.value,
        }
    }
}

/// Whether one of the filters of each key that is filtered by accepts it.
fn accepted(container: &ContainerView, filters: &[Filter]) -> bool {
    filters
        .iter()
        .all(|wanted| filters.iter().any(|other| other.key == wanted.key && other.accepts(container)))
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let mut containers: Vec<ContainerView> =
        client.get(if args.long { "/v1/containers?long=true" } else { "/v1/containers" }).await?;
    containers.retain(|container| accepted(container, &args.filter));
    if args.mine {
        let mine = Person::at_the_keyboard()?.owners()?;
        containers.retain(|container| mine.contains(&container.owner));
    }
    let table = match args.long {
        true => long(&containers),
        false => table(&containers, Timestamp::now()),
    };
    invocation.print_list("containers", &containers, table, "no containers")
}

fn long(containers: &[ContainerView]) -> Table {
    let mut table = Table::new(&["NAME", "OWNER", "STATE", "ADDRESS", "MAC", "OPT", "CLONE OF"]);
    for container in containers {
        let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        table.row([
            container.name.to_string(),
            container.owner.to_string(),
            view::state_now(container),
            dash(container.address.map(|address| address.to_string())),
            container.mac.to_string(),
            dash(container.opt_bytes.map(view::size)),
            dash(container.cloned_from.as_ref().map(ToString::to_string)),
        ]);
    }
    table
}

fn table(containers: &[ContainerView], now: Timestamp) -> Table {
    let mut table =
        Table::new(&["NAME", "OWNER", "STATE", "PROJECT", "BRANCH", "ADDRESS", "IPV6", "IMAGE", "AGE"]);
    for container in containers {
        let dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
        let branch = std::iter::once(&container.branch).chain(&container.patches);
        let branch = branch.map(String::as_str).collect::<Vec<_>>().join("+");
        let ipv6 = container.ipv6.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        table.row([
            container.name.to_string(),
            container.owner.to_string(),
            view::state_now(container),
            dash(container.project.clone()),
            dash(branch),
            dash(container.address.map(|address| address.to_string()).unwrap_or_default()),
            dash(ipv6),
            format!("{}{}", container.image, if container.outdated { " (outdated)" } else { "" }),
            view::age(container.created, now),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::State;

    fn container(project: &str, branch: &str, state: State) -> ContainerView {
        ContainerView {
            name: format!("{project}-{branch}-ann").parse().unwrap(),
            owner: "ann".parse().unwrap(),
            project: project.into(),
            branch: branch.into(),
            patches: vec!["p3".into()],
            state,
            network: "lan".into(),
            mac: "02:00:00:00:00:01".parse().unwrap(),
            address: Some([10, 0, 0, 5].into()),
            ipv6: vec!["fd00::5".parse().unwrap()],
            image: "moorage/\x1b[31mdemo".into(),
            outdated: false,
            created: "2026-01-01T00:00:00Z".parse().unwrap(),
            operation: (state == State::Busy).then(|| "stop".into()),
            cloned_from: None,
            opt_bytes: None,
        }
    }

    #[test]
    fn a_filter_narrows_and_the_same_key_adds() {
        let filters = |texts: &[&str]| texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<Filter>>();
        let siem = container("siem", "main", State::Running);
        assert!(accepted(&siem, &[]));
        assert!(accepted(&siem, &filters(&["project=demo", "project=siem", "state=running"])));
        assert!(!accepted(&siem, &filters(&["project=siem", "owner=bob"])));
        assert!("project".parse::<Filter>().is_err());
        assert!("colour=red".parse::<Filter>().is_err());
    }

    #[test]
    fn the_table() {
        let containers = [container("siem", "main", State::Running), container("demo", "x", State::Busy)];
        let now = "2026-01-03T01:00:00Z".parse().unwrap();
        insta::assert_snapshot!(table(&containers, now).text(), @r"
        NAME           OWNER  STATE        PROJECT  BRANCH   ADDRESS   IPV6     IMAGE                   AGE
        siem-main-ann  ann    running      siem     main+p3  10.0.0.5  fd00::5  moorage/\u{1b}[31mdemo  2 days
        demo-x-ann     ann    busy (stop)  demo     x+p3     10.0.0.5  fd00::5  moorage/\u{1b}[31mdemo  2 days
        ");
    }
}
