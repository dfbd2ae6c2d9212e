//! Containers in words.

use humansize::{BINARY, format_size};
use indicatif::HumanDuration;

use crate::api::{CloneResult, ContainerDetail, ContainerView, State};
use crate::report::Table;
use crate::spec::plan::Plan;

/// The state as it is written in tables, filters and JSON.
pub fn state(state: State) -> &'static str {
    match state {
        State::Busy => "busy",
        State::Running => "running",
        State::Stopped => "stopped",
        State::SetupFailed => "setup-failed",
        State::Missing => "missing",
        State::Unknown => "unknown",
    }
}

/// The state, and the verb in progress where one is.
pub fn state_now(container: &ContainerView) -> String {
    match &container.operation {
        Some(verb) => format!("{} ({verb})", state(container.state)),
        None => state(container.state).to_owned(),
    }
}

/// How long ago that was, in its largest unit: `3 hours`.
pub fn age(created: jiff::Timestamp, now: jiff::Timestamp) -> String {
    HumanDuration(now.duration_since(created).unsigned_abs()).to_string()
}

pub fn size(bytes: u64) -> String {
    format_size(bytes, BINARY)
}

/// What a person loses with this container.
pub fn loss(detail: &ContainerDetail) -> String {
    let address = match detail.container.address {
        Some(address) => format!(" and its address {address}"),
        None => String::new(),
    };
    format!(
        "{} with its root filesystem, {} of its own files in {}{address}",
        detail.container.name,
        size(detail.opt_bytes),
        detail.opt_directory,
    )
}

/// The clones that were made, as a table.
pub fn clones(result: &CloneResult) -> String {
    let mut table = Table::new(&["NAME", "STATE", "ADDRESS", "SSH"]);
    for clone in &result.clones {
        let container = &clone.container;
        let address = container.address.map(|address| address.to_string()).unwrap_or_default();
        table.row([
            container.name.as_str(),
            &state_now(container),
            &address,
            &format!("ssh {}@{address}", result.user),
        ]);
    }
    table.text()
}

/// A plan as numbered steps; steps with the same number run side by side.
pub fn plan(plan: &Plan) -> String {
    if plan.steps.is_empty() {
        return "nothing to do\n".into();
    }
    let mut number = 0;
    let mut stage = None;
    let mut text = String::new();
    for step in &plan.steps {
        if stage.replace(step.stage) != Some(step.stage) || step.stage == 0 {
            number += 1;
        }
        let cost = step.bytes.map(|bytes| format!(" ({})", size(bytes))).unwrap_or_default();
        text.push_str(&format!("{number}. {}{cost}\n", crate::report::escape(&step.text)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::plan::Step;

    #[test]
    fn steps_side_by_side_have_one_number() {
        let step = |stage, text: &str, bytes| Step {
            stage,
            step: "image".into(),
            text: text.into(),
            bytes,
            shell: vec![],
        };
        let steps = vec![step(1, "pull", Some(400 << 20)), step(1, "reserve", None), step(2, "create", None)];
        assert_eq!(plan(&Plan { steps }), "1. pull (400 MiB)\n1. reserve\n2. create\n");
        assert_eq!(plan(&Plan::default()), "nothing to do\n");
    }

    #[test]
    fn states_are_written_as_on_the_wire() {
        for one in
            [State::Busy, State::Running, State::Stopped, State::SetupFailed, State::Missing, State::Unknown]
        {
            assert_eq!(serde_json::to_value(one).unwrap(), state(one));
        }
    }
}
