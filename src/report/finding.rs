//! What a check found: `doctor` is a list of these. Checks are pure: what is seen goes in, findings come out.

use serde::{Deserialize, Serialize};

use super::Fault;

/// How bad it is. The worst is the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Ok,
    /// It works, and may not always.
    Warning,
    /// Something does not work.
    Problem,
}

impl Level {
    /// As it is written in tables and JSON.
    pub fn word(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    pub level: Level,
    /// What it belongs to: `daemon`, `engine`, `network`, `opt`, `registry`.
    pub area: String,
    /// One sentence that names the object.
    pub what: String,
    /// What it was concluded from, or leads to.
    #[serde(default)]
    pub why: Vec<String>,
    /// The exact next command, or what to do.
    #[serde(default)]
    pub next: Option<String>,
}

impl Finding {
    pub fn new(level: Level, area: &str, what: impl Into<String>) -> Finding {
        Finding { level, area: area.to_owned(), what: what.into(), why: Vec::new(), next: None }
    }

    pub fn ok(area: &str, what: impl Into<String>) -> Finding {
        Finding::new(Level::Ok, area, what)
    }

    pub fn warning(area: &str, what: impl Into<String>) -> Finding {
        Finding::new(Level::Warning, area, what)
    }

    pub fn problem(area: &str, what: impl Into<String>) -> Finding {
        Finding::new(Level::Problem, area, what)
    }

    /// A check that failed, as its error tells it.
    pub fn of(area: &str, error: &anyhow::Error) -> Finding {
        let Fault { what, why, next, .. } = Fault::of(error);
        Finding { why, next, ..Finding::problem(area, what) }
    }

    pub fn why(mut self, cause: impl Into<String>) -> Finding {
        self.why.push(cause.into());
        self
    }

    pub fn next(mut self, command: impl Into<String>) -> Finding {
        self.next = Some(command.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Kind;

    #[test]
    fn a_failed_check_keeps_its_hint() {
        let fault = Fault::new(Kind::Missing, "dockerd does not answer").next("systemctl start docker");
        let finding = Finding::of("engine", &anyhow::Error::from(fault).context("cannot look"));
        assert_eq!((finding.level, finding.what.as_str()), (Level::Problem, "cannot look"));
        assert_eq!(finding.why, ["dockerd does not answer"]);
        assert_eq!(finding.next.as_deref(), Some("systemctl start docker"));
        assert!(Level::Problem > Level::Warning && Level::Warning > Level::Ok);
    }
}
