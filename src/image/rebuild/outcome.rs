//! What a rebuild came to, in one error.

use super::promotion::candidate;
use super::{Outcome, Rebuilt};
use crate::report::{Fault, Kind};

/// One error for all that failed; none where nothing did.
pub fn fault(rebuilt: &[Rebuilt]) -> Option<Fault> {
    let failed = |one: &&Rebuilt| matches!(one.outcome, Outcome::Failed { .. } | Outcome::Blocked { .. });
    let bad: Vec<&Rebuilt> = rebuilt.iter().filter(failed).collect();
    if bad.is_empty() {
        return None;
    }
    let promoted = rebuilt.iter().any(|one| matches!(one.outcome, Outcome::Rebuilt { .. }));
    let names: Vec<&str> = bad.iter().map(|one| one.name.as_str()).collect();
    let kind = if promoted { Kind::Partly } else { Kind::Failed };
    let mut fault = Fault::new(kind, format!("not rebuilt: {}", names.join(", ")));
    for one in &bad {
        match &one.outcome {
            Outcome::Failed { why } => fault.why.push(format!("{}: {}", one.name, why.join(": "))),
            Outcome::Blocked { by } => {
                fault.why.push(format!("{}: {by}, which it is built on, failed", one.name))
            }
            _ => {}
        }
    }
    let kept = |one: &&Rebuilt| matches!(one.outcome, Outcome::Kept { .. });
    for one in rebuilt.iter().filter(kept) {
        fault.remains.push(format!(
            "{} is good and waits as {} until its line is",
            one.name,
            candidate(&one.image)
        ));
    }
    if let Some(log) = bad.iter().find_map(|one| one.log.as_ref()) {
        fault.remains.push(format!("the log {log}"));
    }
    Some(fault.next("correct what failed, then: moorage rebuild-images builds only what is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_told_with_what_waits() {
        let one = |name: &str, outcome| Rebuilt {
            name: name.into(),
            image: format!("moorage/{name}:latest"),
            why: Vec::new(),
            outcome,
            log: None,
        };
        assert!(fault(&[one("a", Outcome::Unchanged)]).is_none());
        let failed = fault(&[
            one("a", Outcome::Kept { id: "sha256:1".into() }),
            one("b", Outcome::Failed { why: vec!["b fails its test".into(), "exit 1".into()] }),
            one("c", Outcome::Blocked { by: "b".into() }),
        ]);
        insta::assert_debug_snapshot!(failed);
    }
}
