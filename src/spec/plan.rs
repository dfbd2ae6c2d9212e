//! What will be done, in order, as data: what `--dry-run` prints and what `make` carries out.

use serde::{Deserialize, Serialize};

/// One step of a plan. Steps with the same `stage` run side by side; stages run in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub stage: u8,
    /// The key of the step's progress events: `image`, `opt`, `address`, `source`, `create`, `start`, `setup`, `ready`.
    pub step: String,
    /// What it does, for a person.
    pub text: String,
    /// Bytes it has to fetch or write, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The commands a person could type instead.
    pub shell: Vec<String>,
}

/// The ordered steps, empty when there is nothing to do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub steps: Vec<Step>,
}

impl Plan {
    /// The steps with the commands a person could type instead, one a line.
    pub fn commands(&self) -> String {
        let lines = self.steps.iter().map(|step| {
            let commands: String = step.shell.iter().map(|command| format!("    {command}\n")).collect();
            format!("{}\n{commands}", step.text)
        });
        match self.steps.is_empty() {
            true => "nothing to do\n".into(),
            false => lines.collect(),
        }
    }
}
