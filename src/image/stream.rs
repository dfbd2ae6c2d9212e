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
        let line = line.trim_end().to_owned();
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

    pub fn fault(self, what: String) -> Fault {
        let mut fault = Fault::new(Kind::Failed, what);
        fault.why = self.last.into_iter().chain(Some(self.open).filter(|open| !open.is_empty())).collect();
        fault
    }
}
