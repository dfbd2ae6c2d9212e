//! The flags every command has, whatever its role.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::report::progress::{self, Style};
use crate::report::{Fault, Kind, Reporter, Table, output};

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
    /// Set by the first signal, for verbs that end in good order
    #[arg(skip)]
    pub interrupted: CancellationToken,
    /// The commands that are links to the binary, for `setup`
    #[arg(skip)]
    pub links: Vec<&'static str>,
}

/// The version of the JSON on stdout; raised when a key changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// A value with the schema before its own keys.
#[derive(Serialize)]
struct Versioned<'a, T> {
    schema: u32,
    #[serde(flatten)]
    value: &'a T,
}

impl Invocation {
    /// Shows progress on stderr in the style the person chose.
    pub fn reporter(&self) -> Reporter {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        progress::reporter(match self.progress {
            ProgressStyle::Auto if std::io::stderr().is_terminal() && !dumb => Style::Bars,
            ProgressStyle::Bars => Style::Bars,
            ProgressStyle::Auto | ProgressStyle::Plain => Style::Plain,
            ProgressStyle::Json => Style::Json,
            ProgressStyle::None => Style::None,
        })
    }

    /// Whether a program reads what is said, so that an error has to be JSON too.
    pub fn speaks_json(&self) -> bool {
        self.format == Format::Json || self.progress == ProgressStyle::Json
    }

    /// Prints one thing: the text for people, or its own keys as JSON. `value` has to serialise to a map.
    pub fn print<T: Serialize>(&self, value: &T, text: impl FnOnce(&T) -> String) -> Result<()> {
        match self.format {
            Format::Table => output::stdout(text(value).as_bytes()),
            Format::Json => {
                let json =
                    serde_json::to_string(&Versioned { schema: SCHEMA, value }).context("write JSON")?;
                output::stdout(format!("{json}\n").as_bytes())
            }
        }
    }

    /// Prints a list: the table, or `{"schema": 1, "<key>": […]}`. An empty table prints nothing, and `nothing`
    /// is said on stderr.
    pub fn print_list<T: Serialize>(
        &self,
        key: &str,
        items: &[T],
        table: Table,
        nothing: &str,
    ) -> Result<()> {
        if items.is_empty() && self.format == Format::Table {
            output::stderr(nothing);
            return Ok(());
        }
        self.print(&json!({ key: items }), |_| table.text())
    }

    /// Asks on a terminal; `--yes` answers. Without either it fails instead of hanging. `Err` unless it is a yes.
    pub async fn confirm(&self, question: String) -> Result<()> {
        if self.yes {
            return Ok(());
        }
        if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
            let fault = Fault::new(Kind::Usage, format!("nobody is there to answer: {question}"));
            return Err(fault.next("the same command with --yes").into());
        }
        // On a thread of its own: the person may also answer with a signal.
        // A whole line, read by the terminal's own rules: libraries that read keys change it, and a signal in the middle
        // leaves it changed.
        let ask = move || {
            output::ask(&format!("{question} [y/N] "))?;
            let mut answer = String::new();
            std::io::stdin().read_line(&mut answer)?;
            Ok(["y", "yes"].contains(&answer.trim().to_lowercase().as_str()))
        };
        match tokio::task::spawn_blocking(ask).await? {
            Ok(true) => Ok(()),
            Ok(false) => Err(Fault::new(Kind::Interrupted, "not confirmed, nothing was done")
                .next("the same command, answered with y, or with --yes")
                .into()),
            Err(error) => Err::<(), std::io::Error>(error).context("ask on the terminal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_has_its_schema_first() {
        let json = serde_json::to_string(&Versioned { schema: SCHEMA, value: &json!({ "containers": [] }) });
        assert_eq!(json.unwrap(), r#"{"schema":1,"containers":[]}"#);
    }
}
