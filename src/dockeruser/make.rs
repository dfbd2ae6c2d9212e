//! What the two verbs that make a container share: their flags, and following the daemon while it makes one.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::definitions::{Person, members, public_keys};
use super::{each, view};
use crate::api::{Client, MakeRequest, MakeResult, SourceDone, client};
use crate::checkout;
use crate::invocation::Invocation;
use crate::report::table::fields;
use crate::report::{Event, Fault, Kind, Reporter};
use crate::site;
use crate::spec::plan::Plan;
use crate::spec::{Addressing, ContainerSpec, MountSpec, Owner};

/// What may be asked for of any container.
#[derive(Debug, clap::Args)]
pub struct Wishes {
    /// Call it NAME-<owner> instead
    #[arg(long)]
    pub name: Option<String>,
    /// Whose it is: a person, or a group of yours as @group; you where absent
    #[arg(long)]
    pub owner: Option<Owner>,
    /// Map a path of this host into the container; may be given several times
    #[arg(long = "mount", value_name = "HOST:INSIDE[:ro]", value_parser = site::mount)]
    pub mounts: Vec<MountSpec>,
    /// How it gets its address: dhcp (of the LAN), nat (Docker's bridge), none, or ADDRESS/PREFIX@GATEWAY of its own on
    /// the LAN; as config.toml says where absent
    #[arg(long, value_name = "KIND")]
    pub address: Option<Addressing>,
    /// Do not wait until it is ready, only until it has been started
    #[arg(long)]
    pub no_wait: bool,
    /// Print the plan, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print the plan as the commands a person could type (implies --dry-run)
    #[arg(long)]
    pub as_shell: bool,
}

/// The people a container is made for.
pub struct People {
    pub owner: Owner,
    /// Who asks.
    pub user: String,
    /// The people in the owning group.
    pub members: Vec<String>,
    /// The asking person's own public keys.
    pub keys: Vec<String>,
}

impl Wishes {
    pub fn people(&self) -> Result<People> {
        let person = Person::at_the_keyboard()?;
        let owner = match &self.owner {
            Some(owner) => owner.clone(),
            None => person.owner()?,
        };
        let home = std::env::home_dir().context("you have no home directory")?;
        Ok(People { members: members(&owner)?, keys: public_keys(&home)?, owner, user: person.name })
    }
}

/// Has the daemon make it, or say what it would do, and prints the outcome.
pub async fn run(spec: ContainerSpec, wishes: &Wishes, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let request = MakeRequest { spec, wait: !wishes.no_wait };
    if wishes.dry_run || wishes.as_shell {
        let plan: Plan = client.post("/v1/plan", &request).await?;
        return each::print_plan(&plan, wishes.as_shell, invocation);
    }
    let reporter = invocation.reporter();
    if request.spec.authorized_keys.is_empty() {
        let why = "there is no public key of yours in ~/.ssh or in the site, so ssh will not let you in";
        reporter.warning(format!("{why} (make one with ssh-keygen -t ed25519)"));
    }
    let result = follow(&client, &request, &reporter, &invocation.interrupted).await?;
    if result.container.outdated {
        reporter.warning(format!(
            "{} is older than the image {} is now; removing it and making it again takes the new one",
            result.container.name, result.container.image
        ));
    }
    // The bars have to be gone before the result is printed.
    drop(reporter);
    invocation.print(&result, text)
}

/// Follows the daemon to the end, and checks the source out when it says where. Interrupted, it has the daemon undo
/// what was begun and stays until that is done.
async fn follow(
    client: &Client,
    request: &MakeRequest,
    reporter: &Reporter,
    interrupted: &CancellationToken,
) -> Result<MakeResult> {
    let path = "/v1/containers";
    let mut events = client.stream(path, request).await?;
    let mut checkouts = FuturesUnordered::new();
    let mut cancelled = false;
    loop {
        tokio::select! {
            biased;
            () = interrupted.cancelled(), if !cancelled => {
                cancelled = true;
                checkouts.clear();
                cancel(client, events.operation.as_deref()).await?;
            }
            event = events.next() => match event? {
                Event::Done { result } => return client::result_of(path, result),
                Event::Failed { fault } => return Err(fault.into()),
                Event::Staging { .. } if cancelled => {}
                Event::Staging { operation, directory } => {
                    checkouts.push(check_out(client, request, operation, directory, reporter));
                }
                event => reporter.send(event),
            },
            Some(told) = checkouts.next(), if !checkouts.is_empty() => told?,
        }
    }
}

/// Follows an operation that needs nothing of the client to its end. Interrupted, it has the daemon undo what was begun and
/// stays until that is done.
pub async fn follow_alone<T: DeserializeOwned>(
    client: &Client,
    (path, body): (&str, &impl Serialize),
    reporter: &Reporter,
    interrupted: &CancellationToken,
) -> Result<T> {
    let mut events = client.stream(path, body).await?;
    let mut cancelled = false;
    loop {
        tokio::select! {
            biased;
            () = interrupted.cancelled(), if !cancelled => {
                cancelled = true;
                cancel(client, events.operation.as_deref()).await?;
            }
            event = events.next() => match event? {
                Event::Done { result } => return client::result_of(path, result),
                Event::Failed { fault } => return Err(fault.into()),
                event => reporter.send(event),
            },
        }
    }
}

/// Cancels the operation; one without a name is cancelled by going away. One that is over meanwhile says by its events how it ended.
async fn cancel(client: &Client, operation: Option<&str>) -> Result<()> {
    let Some(id) = operation else {
        return Err(Fault::new(Kind::Interrupted, "interrupted").next("moorage list-containers").into());
    };
    match client.post::<Value>(&format!("/v1/operations/{id}/cancel"), &Value::Null).await {
        Err(error) if Fault::of(&error).kind == Kind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// Puts the sources where the daemon wants them, and tells it how that went. It fails the operation if it went wrong.
async fn check_out(
    client: &Client,
    request: &MakeRequest,
    operation: String,
    directory: String,
    reporter: &Reporter,
) -> Result<()> {
    let done = match checkout::all(&request.spec.sources, Path::new(&directory), reporter).await {
        Ok(()) => SourceDone::Ready,
        Err(error) => SourceDone::Failed(Fault::of(&error)),
    };
    match client.post::<Value>(&format!("/v1/operations/{operation}/source"), &done).await {
        // It has ended meanwhile; its events say why.
        Err(error) if Fault::of(&error).kind == Kind::NotFound => Ok(()),
        other => other.map(drop),
    }
}

/// Where it is and what it took.
fn text(made: &MakeResult) -> String {
    let container = &made.container;
    let address = container.address.map(|address| address.to_string());
    let ssh = address.as_ref().map(|address| format!("ssh {}@{address}", made.user));
    let existed = if made.existed { " (existed already)" } else { "" };
    let all = [
        ("name", format!("{}{existed}", container.name)),
        ("state", view::state_now(container)),
        ("address", address.unwrap_or_else(|| "none yet".into())),
        ("ssh", ssh.unwrap_or_default()),
        ("files", made.opt_directory.clone()),
        ("opt", format!("{} shared, {} new", view::size(made.shared_bytes), view::size(made.new_bytes))),
        ("log", made.log.clone()),
    ];
    fields(all.into_iter().filter(|(_, value)| !value.is_empty()))
}
