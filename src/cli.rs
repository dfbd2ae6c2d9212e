//! Roles, verbs, command links.

pub mod completions;
mod help;
mod interrupt;
mod links;
mod man;
mod verbs;

use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::Result;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use links::links;
use verbs::{Containerauthor, Dockeruser, Registryserver, Scripthacker};

use crate::invocation::Invocation;
use crate::report::{Fault, Kind, Silent, output};

/// One command from a branch name to a full machine in a container on the company LAN
#[derive(Debug, Parser)]
#[command(name = "moorage", version, arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    invocation: Invocation,
    #[command(subcommand)]
    command: Command,
}

/// A verb, with its role or without: each role is here twice.
#[derive(Debug, Subcommand)]
enum Command {
    /// Make, use and look after dev containers
    #[command(subcommand)]
    Dockeruser(Dockeruser),
    #[command(flatten)]
    DockeruserVerb(Dockeruser),
    /// Build the images that containers are made of
    #[command(subcommand)]
    Containerauthor(Containerauthor),
    #[command(flatten)]
    ContainerauthorVerb(Containerauthor),
    /// Run the registry that images and /opt archives come from
    #[command(subcommand)]
    Registryserver(Registryserver),
    #[command(flatten)]
    RegistryserverVerb(Registryserver),
    /// Write and try out what a site defines
    #[command(subcommand)]
    Scripthacker(Scripthacker),
    #[command(flatten)]
    ScripthackerVerb(Scripthacker),
    Daemon(crate::daemon::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// The whole command line as clap knows it, made once.
static COMMAND: LazyLock<clap::Command> = LazyLock::new(|| help::by_role(Cli::command()));

/// Parses, runs, reports one error; returns the exit code.
pub fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().collect();
    match completions::answered(&args) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(error) => return end(&error, false),
    }
    let cli = match parse(&args) {
        Ok(cli) => cli,
        Err(error) => return misused(error, &args),
    };
    let json = cli.invocation.speaks_json();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => end(&error, json),
    }
}

fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let (command, args) = links::expand(COMMAND.clone(), args);
    Cli::from_arg_matches(&command.try_get_matches_from(args)?)
}

fn run(cli: Cli) -> Result<()> {
    let Cli { mut invocation, command } = cli;
    invocation.links = links();
    match command {
        Command::Dockeruser(verb) | Command::DockeruserVerb(verb) => match verb {
            // It has its own use for signals.
            Dockeruser::EnterContainer(_) => interrupt::alone(verb.run(&invocation)),
            // Following a log ends no other way.
            Dockeruser::ShowLogs(_) => {
                interrupt::stoppable(Silent(130).into(), async move || verb.run(&invocation).await)
            }
            Dockeruser::MakeDevContainer(_)
            | Dockeruser::MakeOsContainer(_)
            | Dockeruser::CloneContainer(_)
            | Dockeruser::SnapshotContainer(_) => {
                let (token, left) = (invocation.interrupted.clone(), left_by(&verb).into());
                interrupt::graceful(left, token, async move || verb.run(&invocation).await)
            }
            verb => interrupt::stoppable(left_by(&verb).into(), async move || verb.run(&invocation).await),
        },
        Command::Containerauthor(verb) | Command::ContainerauthorVerb(verb) => {
            let left = interrupted("; an image that is there already stays as it is");
            interrupt::stoppable(left.into(), async move || verb.run(&invocation).await)
        }
        Command::Registryserver(verb) | Command::RegistryserverVerb(verb) => {
            let left =
                interrupted("; the same command completes what was begun").next("moorage show-registry");
            // It has its own use for signals.
            if let Registryserver::KeepRegistry(_) = verb {
                return interrupt::alone(verb.run(&invocation));
            }
            // In the middle of it publishers stand before a closed door.
            if let Registryserver::CollectGarbage(_) = verb {
                let left = interrupted("; what is left is whole").next("moorage start-registry");
                let token = invocation.interrupted.clone();
                return interrupt::graceful(left.into(), token, async move || verb.run(&invocation).await);
            }
            interrupt::stoppable(left.into(), async move || verb.run(&invocation).await)
        }
        Command::Scripthacker(verb) | Command::ScripthackerVerb(verb) => {
            let left = interrupted("; the same command completes what was begun");
            interrupt::stoppable(left.into(), async move || verb.run(&invocation).await)
        }
        // It has a runtime of its own.
        Command::Daemon(args) => crate::daemon::run(&args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args, &COMMAND),
    }
}

/// What an interrupted verb leaves behind. Of the daemon's operations only a make ends with its client.
fn left_by(verb: &Dockeruser) -> Fault {
    match verb {
        Dockeruser::MakeDevContainer(_) | Dockeruser::MakeOsContainer(_) => {
            interrupted("; the daemon undoes what was begun, unless the set-up inside had started")
                .next("moorage list-containers")
        }
        Dockeruser::CloneContainer(_) => interrupted(
            "; the daemon undoes the clones that were not finished, and their source runs as before",
        )
        .next("moorage list-containers"),
        Dockeruser::SnapshotContainer(_) => {
            interrupted("; there is no snapshot, and the container runs as before")
                .next("moorage list-snapshots")
        }
        Dockeruser::PublishSnapshot(_) => {
            interrupted("; the same command sends what is missing").next("moorage list-snapshots")
        }
        Dockeruser::StartContainer(_)
        | Dockeruser::StopContainer(_)
        | Dockeruser::RestartContainer(_)
        | Dockeruser::RestoreContainer(_)
        | Dockeruser::RecreateContainer(_)
        | Dockeruser::ResizeContainer(_)
        | Dockeruser::PruneContainers(_)
        | Dockeruser::RemoveSnapshot(_)
        | Dockeruser::RemoveContainer(_) => {
            interrupted("; what the daemon was asked for already, it does to the end")
                .next("moorage list-containers")
        }
        Dockeruser::Setup(_) => interrupted("; what was done stays, the same command goes on from there"),
        Dockeruser::ListProjects(_)
        | Dockeruser::ListContainers(_)
        | Dockeruser::ShowContainer(_)
        | Dockeruser::EnterContainer(_)
        | Dockeruser::ShowLogs(_)
        | Dockeruser::ListLeases(_)
        | Dockeruser::ListSnapshots(_)
        | Dockeruser::Doctor(_) => interrupted(""),
    }
}

fn interrupted(what_is_left: &str) -> Fault {
    Fault::new(Kind::Interrupted, format!("interrupted{what_is_left}"))
}

/// Reports what went wrong, once.
fn end(error: &anyhow::Error, json: bool) -> ExitCode {
    if let Some(Silent(code)) = error.downcast_ref() {
        return ExitCode::from(*code);
    }
    let fault = Fault::of(error);
    output::stderr(&if json { fault.json().to_string() } else { fault.text() });
    ExitCode::from(fault.kind.exit_code())
}

/// Says what clap says: help and version on stdout, else a usage error.
fn misused(mut error: clap::Error, args: &[OsString]) -> ExitCode {
    // clap names everything that is a little alike, the most alike last.
    if let Some(ContextValue::Strings(alike)) = error.get(ContextKind::SuggestedSubcommand)
        && let Some(most) = alike.last().cloned()
    {
        error.insert(ContextKind::SuggestedSubcommand, ContextValue::String(most));
    }
    let json =
        args.windows(2).any(|pair| (pair[0] == "--format" || pair[0] == "--progress") && pair[1] == "json")
            || args.iter().any(|arg| arg == "--format=json" || arg == "--progress=json");
    if error.use_stderr() && json && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        let text = error.render().to_string();
        let mut paragraphs = text.trim().trim_start_matches("error: ").split("\n\n").map(str::trim);
        let mut fault = Fault::new(Kind::Usage, paragraphs.next().unwrap_or_default());
        fault.why = paragraphs.filter(|text| !text.starts_with("For more ")).map(str::to_owned).collect();
        return end(&fault.into(), true);
    }
    // Nobody can be told when even this cannot be written.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { Kind::Usage.exit_code() } else { 0 })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        super::COMMAND.clone().debug_assert();
    }
}
