//! The one error type at the edge: what failed, why, what remains on disk, the exact next command.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What sort of failure it was; decides the exit code (docs/operations.md lists them).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It was tried and did not work.
    Failed,
    /// The command line or a file the person wrote is wrong.
    Usage,
    /// Something the host needs is missing: a daemon, a program, an interface.
    Missing,
    /// The named project, branch, image or container does not exist.
    NotFound,
    /// It exists with another specification.
    Differs,
    /// Not permitted, or over a limit.
    Denied,
    /// Some of several were done.
    Partly,
    /// It did not happen in time.
    TimedOut,
    /// The person interrupted it.
    Interrupted,
}

impl Kind {
    /// The process exit code of this kind.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Missing => 3,
            Kind::NotFound => 4,
            Kind::Differs => 5,
            Kind::Denied => 6,
            Kind::Partly => 7,
            Kind::TimedOut => 8,
            Kind::Interrupted => 130,
        }
    }
}

/// A failure a person can act on. Goes over the wire as JSON and through `anyhow` chains as an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub kind: Kind,
    /// What failed: one sentence that names the object.
    pub what: String,
    /// Why, from the nearest cause to the deepest (the engine's own last words).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub why: Vec<String>,
    /// What remains on disk or in the engine that the person may care about.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remains: Vec<String>,
    /// The exact next command, or what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Fault {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Fault { kind, what: what.into(), why: Vec::new(), remains: Vec::new(), next: None }
    }

    pub fn why(mut self, cause: impl Into<String>) -> Self {
        self.why.push(cause.into());
        self
    }

    pub fn remains(mut self, what: impl Into<String>) -> Self {
        self.remains.push(what.into());
        self
    }

    pub fn next(mut self, command: impl Into<String>) -> Self {
        self.next = Some(command.into());
        self
    }

    /// The fault inside an error chain. Contexts added above it become part of what failed; a chain without
    /// a fault is a plain failure whose causes are kept in order.
    pub fn of(error: &anyhow::Error) -> Self {
        let mut above = Vec::new();
        for cause in error.chain() {
            if let Some(fault) = cause.downcast_ref::<Fault>() {
                let mut fault = fault.clone();
                if !above.is_empty() {
                    fault.why.insert(0, fault.what);
                    fault.what = above.join(": ");
                }
                return fault;
            }
            above.push(cause.to_string());
        }
        let mut causes = above.into_iter();
        let mut fault = Fault::new(Kind::Failed, causes.next().unwrap_or_default());
        fault.why = causes.collect();
        fault.next = error.chain().find_map(|cause| mend(cause.downcast_ref()?)).map(str::to_owned);
        fault
    }
}

/// What a person can do about what the system refused.
fn mend(refused: &std::io::Error) -> Option<&'static str> {
    use std::io::ErrorKind;
    match refused.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Some("make room there (df, df -i), then run the same command again")
        }
        ErrorKind::ReadOnlyFilesystem => Some("dmesg says why the disk went read-only; mend that first"),
        _ => None,
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        for cause in &self.why {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let error = std::io::Error::from(std::io::ErrorKind::StorageFull);
        let error = Err::<(), _>(error).context("write x.json").unwrap_err();
        assert_eq!(
            Fault::of(&error).next.as_deref(),
            Some("make room there (df, df -i), then run the same command again")
        );
    }

    #[test]
    fn a_fault_keeps_its_kind_and_hint_under_context() {
        let inner = Fault::new(Kind::Missing, "dockerd does not answer").next("systemctl start docker");
        let error = Err::<(), _>(inner).context("siem-9.2-ann cannot be made").unwrap_err();
        let fault = Fault::of(&error);
        assert_eq!(fault.kind, Kind::Missing);
        assert_eq!(fault.what, "siem-9.2-ann cannot be made");
        assert_eq!(fault.why, ["dockerd does not answer"]);
        assert_eq!(fault.next.as_deref(), Some("systemctl start docker"));
    }

    #[test]
    fn a_plain_chain_keeps_its_order() {
        let error = anyhow::anyhow!("no space left").context("write layer").context("extract archive");
        let fault = Fault::of(&error);
        assert_eq!(fault.kind.exit_code(), 1);
        assert_eq!(fault.what, "extract archive");
        assert_eq!(fault.why, ["write layer", "no space left"]);
    }
}
