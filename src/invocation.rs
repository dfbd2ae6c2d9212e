//! The flags every command has, whatever its role.

use std::path::PathBuf;

use clap::ValueEnum;

/// How data goes to stdout.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

/// How progress goes to stderr.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressStyle {
    /// Bars on a terminal, plain lines elsewhere.
    #[default]
    Auto,
    Bars,
    Plain,
    /// One JSON event a line.
    Json,
    None,
}

/// What the person said beside the verb and its own arguments.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Invocation {
    /// How to print data
    #[arg(long, global = true, value_enum, default_value_t)]
    pub format: Format,
    /// How to show progress
    #[arg(long, global = true, value_enum, default_value_t)]
    pub progress: ProgressStyle,
    /// Answer every question with yes
    #[arg(long, short, global = true)]
    pub yes: bool,
    /// Directory of the site's definitions, laid over the built-in ones
    #[arg(long, global = true, env = "MOORAGE_SITE", value_name = "DIR")]
    pub site: Option<PathBuf>,
    /// The daemon's socket
    #[arg(long, global = true, env = "MOORAGE_SOCKET", hide = true, default_value = crate::api::SOCKET)]
    pub socket: PathBuf,
}
