//! Progress as data: what an operation says while it runs. On the wire one JSON object a line.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Fault;

/// What `done` and `total` of [`Event::Progress`] count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    Bytes,
    Files,
    Items,
}

/// One thing an operation says. `step` names a step of the plan (`image`, `opt`, `address`, `source`, `setup`, …)
/// and is the key of its bar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A step began.
    Begin { step: String, text: String },
    /// A step got further. `total` is absent while it is unknown.
    Progress { step: String, done: u64, total: Option<u64>, unit: Unit },
    /// A step ended well; `text` says with what.
    End { step: String, text: String },
    /// One line of a child's output (a `setup` step, a build).
    Output { step: String, line: String },
    /// Something the person should know that stops nothing.
    Warning { text: String },
    /// The daemon wants the client to put its part there, as the person (see `api::source`).
    Staging { operation: String, directory: String },
    /// The operation ended well, with its result.
    Done { result: serde_json::Value },
    /// The operation failed and has undone what it could.
    Failed { fault: Fault },
}

/// Where the events of one operation go. Cheap to clone; sending never blocks and never fails.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(Event) + Send + Sync>);

impl Reporter {
    pub fn new(sink: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Reporter(Arc::new(sink))
    }

    /// For callers that nobody listens to.
    pub fn silent() -> Self {
        Reporter::new(|_| {})
    }

    pub fn send(&self, event: Event) {
        (self.0)(event);
    }

    pub fn begin(&self, step: &str, text: impl Into<String>) {
        self.send(Event::Begin { step: step.into(), text: text.into() });
    }

    pub fn progress(&self, step: &str, done: u64, total: Option<u64>, unit: Unit) {
        self.send(Event::Progress { step: step.into(), done, total, unit });
    }

    pub fn end(&self, step: &str, text: impl Into<String>) {
        self.send(Event::End { step: step.into(), text: text.into() });
    }

    pub fn output(&self, step: &str, line: impl Into<String>) {
        self.send(Event::Output { step: step.into(), line: line.into() });
    }

    pub fn warning(&self, text: impl Into<String>) {
        self.send(Event::Warning { text: text.into() });
    }
}
