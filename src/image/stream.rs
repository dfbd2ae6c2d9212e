//! What a build says while it runs, and the last of it for when it fails.

use std::collections::VecDeque;

use crate::report::{Fault, Kind, Reporter};

use super::STEP;

/// How many of the last lines a failure keeps.
const KEPT: usize = 12;

/// Passes lines on and keeps the last ones.
#[derive(Debug, Default)]
pub(super) struct Tail {
    last: VecDeque<String>,
    /// The begin of a line whose end has not come yet.
    open: String,
}

impl Tail {
    pub fn line(&mut self, report: &Reporter, line: String) {
        // The builder colours what a step says on stderr.
        let line = console::strip_ansi_codes(&line).trim_end().to_owned();
        if line.is_empty() {
            return;
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line.clone());
        report.output(STEP, line);
    }

    /// Takes a piece of output, wherever it was cut.
    pub fn piece(&mut self, report: &Reporter, piece: &str) {
        self.open.push_str(piece);
        while let Some((line, rest)) = self.open.split_once('\n') {
            let (line, rest) = (line.to_owned(), rest.to_owned());
            self.open = rest;
            self.line(report, line);
        }
    }

    /// A failure, with why where that is known, and the last that was said before it.
    pub fn fault(self, what: String, why: Option<String>) -> Fault {
        let mut fault = Fault::new(Kind::Failed, what);
        let open = Some(self.open).filter(|open| !open.is_empty());
        fault.why = why.into_iter().chain(self.last).chain(open).collect();
        fault.next(
            "correct what is named above, then run the same command again: it goes on from what is there",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_put_together_and_the_last_are_kept() {
        let report = Reporter::silent();
        let mut tail = Tail::default();
        for number in 0..20 {
            tail.piece(&report, "li");
            tail.piece(&report, &format!("ne {number}\n\n\u{1b}[91m"));
        }
        tail.piece(&report, "end");
        let fault = tail.fault("x".into(), Some("y".into()));
        assert_eq!(fault.why.len(), 1 + KEPT + 1);
        assert_eq!((fault.why[0].as_str(), fault.why[KEPT].as_str()), ("y", "line 19"));
    }
}
