//! `start-lab`.

use anyhow::Result;

use crate::invocation::Invocation;
use crate::lab::{self, LabView, LeaseTime, Settings, Subnet};

/// Start a whole LAN inside this machine, for trying and testing
///
/// A network namespace with a DHCP server, DNS (the names of leases resolve below "lab") and router advertisements, and
/// an interface here that is a parent like any other. A lab that is up stays as it is; a half-made one is completed.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name of the lab; its interface is mo-NAME, its network namespace moorage-NAME
    #[arg(long, default_value = "lab", value_parser = Settings::check_name)]
    name: String,
    /// Its IPv4 network
    #[arg(long, default_value_t)]
    subnet: Subnet,
    /// How long a lease lasts: 12h, 30m, 120s; at least two minutes
    #[arg(long, default_value = "12h", value_name = "TIME")]
    lease_time: LeaseTime,
    /// Offer addresses at once: without it the server pings them first, which takes three seconds
    #[arg(long)]
    no_ping: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let settings =
        Settings { name: args.name, subnet: args.subnet, lease_time: args.lease_time, ping: !args.no_ping };
    if args.dry_run {
        let plan = tokio::task::spawn_blocking(move || lab::plan_start(&settings)).await??;
        return invocation.print(&plan, |plan| plan.commands());
    }
    let report = invocation.reporter();
    let view = tokio::task::spawn_blocking(move || lab::start(&settings, &report)).await??;
    invocation.print(&view, text)
}

/// What goes into /etc/moorage/config.toml comes first and alone on its line.
fn text(lab: &LabView) -> String {
    format!(
        "parent = \"{}\"\n# this host is {}, DHCP and DNS are {}; names are below \"{}\", leases in {}\n",
        lab.parent, lab.address, lab.server, lab.domain, lab.leases
    )
}
