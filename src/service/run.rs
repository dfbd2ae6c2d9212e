//! Running a program to its end.

use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::report::{Fault, Kind, Reporter};

/// Runs a program to its end; its words go to the reporter as those of `step`, and its last ones into the error.
pub async fn run(step: &str, program: &str, arguments: &[&str], reporter: &Reporter) -> Result<()> {
    let mut child = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {program}"))?;
    let mut last = Vec::new();
    if let Some(errors) = child.stderr.take() {
        let mut lines = BufReader::new(errors).lines();
        while let Some(line) = lines.next_line().await? {
            reporter.output(step, line.as_str());
            last.push(line);
            if last.len() > 5 {
                last.remove(0);
            }
        }
    }
    let status = child.wait().await?;
    if status.success() {
        return Ok(());
    }
    let mut fault = Fault::new(Kind::Failed, format!("{program} {} failed: {status}", arguments.join(" ")));
    fault.why = last;
    fault.next = Some("mend that, then run the same command again: it does what is missing".to_owned());
    Err(fault.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_fails_says_its_last_words() {
        let arguments = ["-c", "echo broken >&2; exit 3"];
        let error = run("test", "sh", &arguments, &Reporter::silent()).await.unwrap_err();
        assert_eq!(Fault::of(&error).why, ["broken"]);
    }
}
