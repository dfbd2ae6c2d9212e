//! `publish-snapshot`.

use anyhow::Result;
use serde_json::json;

use super::snapshots::{self, Named};
use super::{make, view};
use crate::api::{Client, PublishRequest, PublishedSnapshot, client};
use crate::invocation::Invocation;
use crate::oci::Access;
use crate::report::table::fields;
use crate::report::{Fault, Kind};
use crate::spec::Reference;

/// Put a snapshot into a registry: for another host, or as a backup
///
/// Its /opt and its root filesystem go there, with the settings of its container; what the registry has already is not sent.
/// make-dev-container --from-snapshot oci://… makes containers of it on any host. You are who Docker's configuration says:
/// docker login. Whoever may pull there may have all that is in it: licences, and keys that lie in homes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage publish-snapshot siem-9.2 before-upgrade oci://registry.corp:5000/snapshots/siem:before
  moorage make-dev-container --from-snapshot oci://registry.corp:5000/snapshots/siem:before --name siem-9.2-again")]
pub struct Args {
    #[command(flatten)]
    named: Named,
    /// Where it goes: oci://host/repository:tag
    #[arg(value_name = "REFERENCE")]
    to: String,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let Args { named: Named { name, snapshot, dry_run }, to } = args;
    let parsed: Reference = to.parse().map_err(|e: crate::spec::reference::BadReference| {
        let next = "for example oci://registry.corp:5000/snapshots/siem:before";
        Fault::new(Kind::Usage, e.to_string()).next(next)
    })?;
    let client = Client::connect(&invocation.socket).await?;
    if dry_run {
        let found = snapshots::find(&client, &name, &snapshot).await?;
        let plan = json!({ "container": found.container, "snapshot": found.snapshot, "to": to });
        return invocation.print(&plan, |_| {
            format!("publish the snapshot {} of {} as {to}\n", found.snapshot, found.container)
        });
    }
    let login = Access::of_docker().login(&parsed.registry).await?;
    let login = login.map(|login| (login.user, login.password));
    let reporter = invocation.reporter();
    let path = client::container(&name, "/snapshot/publish");
    let request = PublishRequest { snapshot, to, login };
    let done: PublishedSnapshot =
        make::follow_alone(&client, (&path, &request), &reporter, &invocation.interrupted).await?;
    drop(reporter);
    invocation.print(&done, |done| {
        fields([
            ("published", format!("{}@{}", done.published, done.digest)),
            ("snapshot", format!("{} of {}", done.snapshot, done.container)),
            ("sent", view::size(done.sent_bytes)),
        ])
    })
}
