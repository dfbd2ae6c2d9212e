//! A command in several containers at once: `enter-container --clones-of`.

use anyhow::{Context as _, Result};
use futures_util::future::join_all;

use super::each;
use crate::api::frame::{self, Frame};
use crate::api::{Client, EnterRequest};
use crate::invocation::Invocation;
use crate::report::output::{self, Lines};
use crate::report::{Fault, Kind};

/// Runs the command in all clones of `source`, without input. Each line is shown as it comes, with the clone's name before
/// it.
///
/// # Errors
/// [`Kind::Partly`] when it failed in some of them, [`Kind::Failed`] in all.
pub async fn run(
    source: &str,
    command: &[String],
    user: Option<&str>,
    invocation: &Invocation,
) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let names = each::clones_of(&client, source).await?;
    let request = EnterRequest {
        command: command.to_owned(),
        user: user.map(str::to_owned),
        terminal: None,
        env: Vec::new(),
    };
    let width = names.iter().map(String::len).max().unwrap_or_default();
    let ended = join_all(names.iter().map(|name| one(&client, name, width, &request))).await;
    let mut bad = Vec::new();
    for (name, ended) in names.iter().zip(ended) {
        match ended {
            Ok(0) => {}
            Ok(code) => bad.push(format!("{name}: it ended with exit code {code}")),
            Err(error) => bad.push(format!("{name}: {}", Fault::of(&error))),
        }
    }
    if bad.is_empty() {
        return Ok(());
    }
    let kind = if bad.len() < names.len() { Kind::Partly } else { Kind::Failed };
    let mut fault = Fault::new(
        kind,
        format!("the command failed in {} of {} clones of {source}", bad.len(), names.len()),
    )
    .next(format!("enter-container {} -- {}", names[0], command.join(" ")));
    fault.why = bad;
    Err(fault.into())
}

/// Runs it in one container, and answers its exit code.
async fn one(client: &Client, name: &str, width: usize, request: &EnterRequest) -> Result<i32> {
    let (mut from, mut to) = tokio::io::split(client.enter(name, request).await?);
    // What has ended by now reads nothing, and says below why.
    let _ = frame::write(&mut to, &Frame::Input(Vec::new())).await;
    let (mut out, mut err) = (Lines::default(), Lines::default());
    let prefixed = |lines: String| -> String {
        lines.split_inclusive('\n').map(|line| format!("{name:width$}  {line}")).collect()
    };
    loop {
        match frame::read(&mut from).await.context("read from the daemon")? {
            Some(Frame::Output(bytes)) => output::stdout(prefixed(out.take(&bytes)).as_bytes())?,
            Some(Frame::ErrorOutput(bytes)) => say(prefixed(err.take(&bytes))),
            Some(Frame::Exit(code)) => {
                output::stdout(prefixed(out.finish()).as_bytes())?;
                say(prefixed(err.finish()));
                return Ok(code);
            }
            Some(Frame::Failed(fault)) => return Err((*fault).into()),
            other => anyhow::bail!("the daemon went away, or sent {other:?}"),
        }
    }
}

fn say(lines: String) {
    lines.lines().for_each(output::stderr);
}
