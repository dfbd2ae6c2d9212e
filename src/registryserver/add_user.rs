//! `add-user`.

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::registry::Place;
use crate::registry::users::{self, User};
use crate::report::{Fault, Kind, output, terminal};

/// More than a password can be.
const LONGEST: u64 = 4096;

/// Let somebody publish to the registry, or give them another password
///
/// The password is asked for on a terminal, else it is the line on stdin. It is kept as bcrypt. The registry goes on
/// serving, and knows it from the next request on. They log in with docker login at the push address (show-registry).
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage add-user ann
  head -c 24 /dev/urandom | base64 | tee ci.password | moorage add-user ci")]
pub struct Args {
    /// What they log in as
    name: User,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Added {
    dry_run: bool,
    name: String,
    /// Whether they were there: then they have another password.
    existed: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    super::only_root("add-user")?;
    let place = Place::of_this_host();
    place.started()?;
    let hash = match args.dry_run {
        true => String::new(),
        false => {
            let password = password(&args.name).await?;
            tokio::task::spawn_blocking(move || users::hash(&password)).await??
        }
    };
    let _lock = place.lock().await?;
    let file = place.text(&place.users())?.unwrap_or_default();
    let existed = users::names(&file).contains(&args.name.as_str());
    if !args.dry_run {
        crate::state::replace(&place.users(), users::with(&file, &args.name, &hash).as_bytes())?;
    }
    let added = Added { dry_run: args.dry_run, name: args.name.to_string(), existed };
    invocation.print(&added, |added| {
        let would = if added.dry_run { "would have" } else { "has" };
        match added.existed {
            true => format!("{} {would} another password.\n", added.name),
            false => format!("{} {would} the right to publish.\n", added.name),
        }
    })
}

async fn password(user: &User) -> Result<String> {
    if !std::io::stdin().is_terminal() {
        let read = || -> std::io::Result<String> {
            let mut text = String::new();
            std::io::stdin().lock().take(LONGEST).read_to_string(&mut text)?;
            Ok(text)
        };
        let text = tokio::task::spawn_blocking(read).await?.context("read the password from stdin")?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        return Ok(line.strip_suffix('\r').unwrap_or(line).to_owned());
    }
    // It is of this future: a signal drops that, and the terminal echoes again.
    let kept = terminal::Kept::now()?;
    kept.hide()?;
    let first = typed(format!("Password of {user}: ")).await?;
    let second = typed("Again: ".to_owned()).await?;
    drop(kept);
    match first == second {
        true => Ok(first),
        false => Err(Fault::new(Kind::Usage, "the two passwords are not the same")
            .next(format!("moorage add-user {user}"))
            .into()),
    }
}

/// A line that the terminal does not show.
async fn typed(question: String) -> Result<String> {
    // On a thread of its own: the person may also answer with a signal.
    let ask = move || -> std::io::Result<String> {
        output::ask(&question)?;
        let mut line = String::new();
        std::io::stdin().read_line(&mut line)?;
        output::stderr("");
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    };
    tokio::task::spawn_blocking(ask).await?.context("ask on the terminal")
}
