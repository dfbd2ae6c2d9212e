//! `completions`, and the answers to a shell that asks this binary for them.

use std::ffi::OsString;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};

use super::{COMMAND, links};
use crate::report::output;

/// Set by the shell's script when it asks for completions.
const VARIABLE: &str = "MOORAGE_COMPLETE";

/// Write the completions of a shell, which know containers, projects and branches
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  source <(moorage completions bash)
  moorage completions zsh > /usr/local/share/zsh/site-functions/_moorage
  moorage completions fish > ~/.config/fish/completions/moorage.fish")]
pub struct Args {
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub fn run(args: Args) -> Result<()> {
    let shell: &dyn EnvCompleter = match args.shell {
        Shell::Bash => &Bash,
        Shell::Zsh => &Zsh,
        Shell::Fish => &Fish,
    };
    let mut script = Vec::new();
    for name in ["moorage"].into_iter().chain(links()) {
        shell.write_registration(VARIABLE, name, name, "moorage", &mut script)?;
    }
    output::stdout(&script)
}

/// Answers a shell that asks for completions; `false` when none does. Has to come before anything is written or
/// another thread is started.
pub fn answered(args: &[OsString]) -> Result<bool> {
    // The words of the command line come after `--`; the first is what is being completed.
    let words: Vec<OsString> = args.iter().skip_while(|arg| *arg != "--").skip(1).cloned().collect();
    let command = || match links::called(&words) {
        None => COMMAND.clone(),
        Some(link) => as_link(link),
    };
    let directory = std::env::current_dir().ok();
    CompleteEnv::with_factory(command)
        .var(VARIABLE)
        .try_complete(args.iter().cloned(), directory.as_deref())
        .context("complete the command line")
}

/// A verb as a command of its own, with the flags that every verb has.
fn as_link(link: &str) -> clap::Command {
    let whole = COMMAND.clone();
    match whole.find_subcommand(link) {
        Some(verb) => verb.clone().args(whole.get_arguments().filter(|arg| arg.is_global_set()).cloned()),
        None => whole,
    }
}
