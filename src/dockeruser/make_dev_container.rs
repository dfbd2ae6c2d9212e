//! `make-dev-container`.

use anyhow::Result;

use super::definitions::site;
use super::make::{self, Wishes};
use crate::invocation::Invocation;
use crate::site::Request;

/// Make a container of a project's branch, and wait until it is set up and answers on the LAN
///
/// It gets its own address, its own /opt, your user and keys, the project's licence and source checkout, and the
/// project's set-up. If it is there already as asked for, it is started. The same command again goes on after a failure.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage make-dev-container siem 9.2
  moorage make-dev-container siem 9.2 --patch p3 --name siem-customer-x
  moorage make-dev-container siem 9.2 --owner @support --mount /data/customer-x:/opt/data:ro
  moorage make-dev-container siem 9.2 --dry-run --as-shell
  moorage make-dev-container --from-snapshot siem-9.2/before-upgrade --name siem-9.2-p3
  moorage make-dev-container --from-snapshot oci://registry.corp:5000/snapshots/siem:before --name siem-again")]
pub struct Args {
    /// The product; `moorage list-projects` names them
    #[arg(required_unless_present = "from_snapshot", add = super::complete::projects())]
    project: Option<String>,
    /// The line of it
    #[arg(required_unless_present = "from_snapshot", add = super::complete::branches())]
    branch: Option<String>,
    /// Stack this patch of the branch onto its /opt; may be given several times
    #[arg(long = "patch", value_name = "NAME", add = super::complete::patches())]
    patches: Vec<String>,
    /// As it was when this snapshot was taken, instead of anew; --name says what it is called. One that was published:
    /// oci://host/repository:tag
    #[arg(long, value_name = "CONTAINER/SNAPSHOT", conflicts_with_all = ["project", "branch", "patches", "mounts", "address", "as_shell"])]
    from_snapshot: Option<String>,
    #[command(flatten)]
    wishes: Wishes,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let Args { project, branch, patches, from_snapshot, wishes } = args;
    if let Some(snapshot) = from_snapshot {
        return super::from_snapshot::run(&snapshot, &wishes, invocation).await;
    }
    let (project, branch) = (project.unwrap_or_default(), branch.unwrap_or_default());
    let people = wishes.people()?;
    let spec = site(invocation)?.resolve(&Request {
        project,
        branch,
        patches,
        owner: people.owner,
        name: wishes.name.clone(),
        mounts: wishes.mounts.clone(),
        address: wishes.address,
        user: people.user,
        members: people.members,
        keys: people.keys,
    })?;
    make::run(spec, &wishes, invocation).await
}
