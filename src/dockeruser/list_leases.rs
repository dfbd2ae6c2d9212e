//! `list-leases`.

use anyhow::Result;
use jiff::Timestamp;

use super::view;
use crate::api::{Client, LeaseView};
use crate::invocation::Invocation;
use crate::report::Table;

/// List the addresses that the LAN's DHCP server granted to this host's containers
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(_args: Args, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let leases: Vec<LeaseView> = client.get("/v1/leases").await?;
    let now = Timestamp::now();
    let mut table =
        Table::new(&["ADDRESS", "MAC", "CONTAINER", "NETWORK", "STATE", "SERVER", "EXPIRES", "LAST"]);
    for lease in &leases {
        let expires = match lease.expires {
            None if lease.address.is_none() => "-".to_owned(),
            None => "never".to_owned(),
            Some(then) if then < now => format!("{} ago", view::age(then, now)),
            Some(then) => format!("in {}", view::age(then, now)),
        };
        table.row([
            lease.address.map_or("-".to_owned(), |address| address.to_string()),
            lease.mac.to_string(),
            lease.hostname.clone().unwrap_or_else(|| "-".into()),
            lease.network.clone(),
            match lease.attached {
                true => lease.state.clone(),
                false => format!("{}, parked", lease.state),
            },
            lease.server.map_or("-".to_owned(), |server| server.to_string()),
            expires,
            lease.last_event.clone().unwrap_or_else(|| "-".into()),
        ]);
    }
    invocation.print_list("leases", &leases, table, "no leases")
}
