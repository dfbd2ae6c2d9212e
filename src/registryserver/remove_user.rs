//! `remove-user`.

use anyhow::Result;
use serde::Serialize;

use crate::invocation::Invocation;
use crate::registry::Place;
use crate::registry::users::{self, User};
use crate::report::{Fault, Kind};

/// Take the right to publish to the registry away from somebody
///
/// The registry goes on serving, and refuses their next request. What they have published stays.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What they log in as
    name: User,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Removed {
    dry_run: bool,
    name: String,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    super::only_root("remove-user")?;
    let place = Place::of_this_host();
    place.started()?;
    let _lock = place.lock().await?;
    let file = place.text(&place.users())?.unwrap_or_default();
    let names = users::names(&file);
    if !names.contains(&args.name.as_str()) {
        let why = match names.as_slice() {
            [] => "it has no users".to_owned(),
            names => format!("it has {}", names.join(", ")),
        };
        return Err(Fault::new(Kind::NotFound, format!("the registry has no user {}", args.name))
            .why(why)
            .next("moorage show-registry")
            .into());
    }
    if !args.dry_run {
        crate::state::replace(&place.users(), users::without(&file, &args.name).as_bytes())?;
    }
    let removed = Removed { dry_run: args.dry_run, name: args.name.to_string() };
    invocation.print(&removed, |removed| {
        let word = if removed.dry_run { "would lose" } else { "has lost" };
        format!("{} {word} the right to publish.\n", removed.name)
    })
}
