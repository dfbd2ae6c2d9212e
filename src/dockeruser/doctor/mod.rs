//! `doctor`. Checks that need root are the daemon's (`daemon/doctor`); what belongs to the person who asks is in
//! [`here`].

mod here;

use anyhow::Result;
use serde::Serialize;

use crate::invocation::Invocation;
use crate::report::{Finding, Level, Silent, Table};

/// Look whether this host has what containers need, and say what to do where it has not
///
/// Looks at the daemon, the Docker Engine, clock and disks, the registries of this host's configuration, the parent interface
/// and the LAN behind it: it sends a real DHCP DISCOVER, always from the same MAC, and takes no address. Changes nothing.
/// Ends with 1 when there is a problem.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage doctor
  moorage doctor --registry registry.corp:5000
  moorage doctor --deep
  moorage doctor --format json | jq -r '.findings[] | select(.level != \"ok\") | .what'")]
pub struct Args {
    /// Only look whether this registry can be used from here, by whoever asks; may be repeated
    #[arg(long = "registry", value_name = "HOST")]
    registries: Vec<String>,
    /// Look at every file of every layer of the /opt store, too: has one been changed behind moorage's back? For admins
    #[arg(long, conflicts_with = "registries")]
    deep: bool,
}

/// What is printed as JSON.
#[derive(Debug, Serialize)]
struct Report {
    findings: Vec<Finding>,
    problems: usize,
    warnings: usize,
}

impl Report {
    fn of(findings: Vec<Finding>) -> Report {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Report { problems: count(Level::Problem), warnings: count(Level::Warning), findings }
    }
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let findings = match args.registries.as_slice() {
        [] => here::findings(invocation, args.deep).await?,
        registries => here::registries(registries).await,
    };
    let report = Report::of(findings);
    invocation.print(&report, text)?;
    match report.problems {
        0 => Ok(()),
        _ => Err(Silent(1).into()),
    }
}

/// All in a table; what is not well once more, with why and what to do.
fn text(report: &Report) -> String {
    let mut table = Table::new(&["", "AREA", "WHAT"]);
    for finding in &report.findings {
        table.row([finding.level.word(), &finding.area, &finding.what]);
    }
    let mut text = table.text();
    for finding in report.findings.iter().filter(|finding| finding.level != Level::Ok) {
        let escape = |text: &str| crate::report::escape(text).into_owned();
        text.push_str(&format!("\n{}: {}\n", finding.level.word(), escape(&finding.what)));
        for why in &finding.why {
            text.push_str(&format!("  why: {}\n", escape(why)));
        }
        if let Some(next) = &finding.next {
            text.push_str(&format!("  next: {}\n", escape(next)));
        }
    }
    let number = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    text.push_str(&match (report.problems, report.warnings) {
        (0, 0) => "\nall is well\n".to_owned(),
        (problems, warnings) => {
            format!("\n{}, {}\n", number(problems, "problem"), number(warnings, "warning"))
        }
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_comes_with_why_and_next() {
        let report = Report::of(vec![
            Finding::ok("daemon", "moorage 0.1.0 answers"),
            Finding::warning("network", "two DHCP servers answer").why("10.0.0.1\x1b[2J").next("ask"),
            Finding::problem("engine", "dockerd does not answer"),
        ]);
        insta::assert_snapshot!(text(&report), @r"
                 AREA     WHAT
        ok       daemon   moorage 0.1.0 answers
        warning  network  two DHCP servers answer
        problem  engine   dockerd does not answer

        warning: two DHCP servers answer
          why: 10.0.0.1\u{1b}[2J
          next: ask

        problem: dockerd does not answer

        1 problem, 1 warning
        ");
        assert!(text(&Report::of(vec![Finding::ok("daemon", "x")])).ends_with("\nall is well\n"));
    }
}
