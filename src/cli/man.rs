//! `man`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::report::output;

/// Write the manual pages
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage man | man -l -
  moorage man --directory /usr/local/share/man/man1")]
pub struct Args {
    /// Write one page a command into this directory instead of moorage(1) to stdout
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

pub fn run(args: Args, command: &clap::Command) -> Result<()> {
    match args.directory {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(command.clone()).render(&mut page)?;
            output::stdout(&page)
        }
        Some(directory) => {
            std::fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
            clap_mangen::generate_to(command.clone(), &directory)
                .with_context(|| format!("write pages into {}", directory.display()))
        }
    }
}
