//! One verb on several containers: all are tried, each is reported.

use std::future::Future;

use anyhow::Result;
use clap::builder::NonEmptyStringValueParser;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::{Client, ContainerDetail, VerbResult, client};
use crate::invocation::{Format, Invocation, ProgressStyle};
use crate::report::{Event, Fault, Kind, Reporter, Table, output};
use crate::spec::plan::{Plan, Step};

/// How many containers are worked on at the same time.
const AT_ONCE: usize = 8;

/// The names a verb was given, and whether to only say what it would do.
#[derive(Debug, clap::Args)]
pub struct Names {
    /// Containers; your own also by their short names (siem-9.2)
    #[arg(value_name = "NAME", required_unless_present = "clones_of",
          value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    pub names: Vec<String>,
    /// All clones of this container, which itself may be gone, and not the container
    #[arg(long, value_name = "NAME", conflicts_with = "names", value_parser = NonEmptyStringValueParser::new(),
          add = super::complete::containers())]
    pub clones_of: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}

impl Names {
    /// The containers that are meant.
    pub async fn resolve(&self, client: &Client) -> Result<Vec<String>> {
        match &self.clones_of {
            Some(source) => clones_of(client, source).await,
            None => Ok(self.names.clone()),
        }
    }
}

/// The clones of a container.
pub async fn clones_of(client: &Client, source: &str) -> Result<Vec<String>> {
    let clones: Vec<String> = client.get(&client::container(source, "/clones")).await?;
    match clones.is_empty() {
        false => Ok(clones),
        true => Err(Fault::new(Kind::NotFound, format!("{source} has no clones"))
            .next("list-containers shows what there is")
            .into()),
    }
}

/// A verb of the daemon that takes no more than a container.
#[derive(Debug, Clone, Copy)]
pub enum Verb {
    Start,
    Stop,
    Restart,
    Remove,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Start => "start",
            Verb::Stop => "stop",
            Verb::Restart => "restart",
            Verb::Remove => "remove",
        }
    }

    fn past(self) -> &'static str {
        match self {
            Verb::Start => "started",
            Verb::Stop => "stopped",
            Verb::Restart => "restarted",
            Verb::Remove => "removed",
        }
    }
}

/// One container's part of `{"schema": 1, "containers": […]}` when it went wrong.
#[derive(Serialize)]
struct Broken<'a> {
    name: &'a str,
    #[serde(flatten)]
    error: Value,
}

/// Carries out `verb` on each name and prints what became of it.
pub async fn run(verb: Verb, wanted: &Names, invocation: &Invocation) -> Result<()> {
    let client = Client::connect(&invocation.socket).await?;
    let names = wanted.resolve(&client).await?;
    if wanted.dry_run {
        let plan = |detail: ContainerDetail| plan(verb, &detail);
        let undone = format!("cannot be {}", verb.past());
        return dry_run(&client, &names, plan, &undone, invocation).await;
    }
    let reporter = invocation.reporter();
    let outcomes = try_all(&names, |typed| {
        let reporter = of_one(&reporter, typed, names.len());
        let client = &client;
        async move {
            let path = client::container(typed, &format!("/{}", verb.word()));
            client.run::<VerbResult>(&path, &json!({}), &reporter).await
        }
    })
    .await;
    drop(reporter);
    let mut table = Table::new(&["NAME", "STATE"]);
    for result in outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().ok()) {
        let already = if result.changed { "" } else { " already" };
        table.row([result.name.as_str(), &format!("{}{already}", result.state)]);
    }
    finish(outcomes, table, &format!("not {}", verb.past()), invocation)
}

/// Does the same to every name, several at once; outcomes in the order of the names, each name once.
async fn try_all<'a, T, F>(
    names: &'a [String],
    one: impl Fn(&'a str) -> F,
) -> Vec<(&'a str, Result<T, Fault>)>
where
    F: Future<Output = Result<T>>,
{
    let mut unique: Vec<&str> = Vec::new();
    for name in names {
        if !unique.contains(&name.as_str()) {
            unique.push(name);
        }
    }
    stream::iter(unique)
        .map(|typed| {
            let work = one(typed);
            async move { (typed, work.await.map_err(|error| Fault::of(&error))) }
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// Prints what was done and what was not, and returns the failure of the whole.
fn finish<T: Serialize>(
    outcomes: Vec<(&str, Result<T, Fault>)>,
    table: Table,
    undone: &str,
    invocation: &Invocation,
) -> Result<()> {
    let whole = verdict(&outcomes, undone);
    if let ([(_, Err(_))], Err(fault)) = (outcomes.as_slice(), &whole) {
        return Err(fault.clone().into());
    }
    say_faults(&outcomes, invocation);
    let items: Vec<Value> = outcomes
        .iter()
        .map(|(name, outcome)| match outcome {
            Ok(result) => serde_json::to_value(result),
            Err(fault) => serde_json::to_value(Broken { name, error: fault.json() }),
        })
        .collect::<Result<_, _>>()?;
    invocation.print_list("containers", &items, table, "")?;
    Ok(whole?)
}

/// All well, some not, or none: what the exit code says. One name: its own fault.
/// `undone` ends the sentence on those that were not: `not stopped`.
fn verdict<T>(outcomes: &[(&str, Result<T, Fault>)], undone: &str) -> Result<(), Fault> {
    let faults: Vec<_> = outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err()).collect();
    match (faults.as_slice(), outcomes) {
        ([], _) => Ok(()),
        ([fault], [_]) => Err((*fault).clone()),
        ([first, others @ ..], _) => {
            let what = format!("{} of {} containers {undone}", faults.len(), outcomes.len());
            let kind = match (faults.len() < outcomes.len(), others.iter().all(|f| f.kind == first.kind)) {
                (true, _) => Kind::Partly,
                (false, true) => first.kind,
                (false, false) => Kind::Failed,
            };
            let failed = outcomes.iter().filter(|(_, outcome)| outcome.is_err()).map(|(name, _)| *name);
            Err(Fault::new(kind, what)
                .why(failed.collect::<Vec<_>>().join(", "))
                .next("see what is said of each of them"))
        }
    }
}

/// A reporter for one of several: its steps carry the container's name.
fn of_one(reporter: &Reporter, name: &str, count: usize) -> Reporter {
    if count == 1 {
        return reporter.clone();
    }
    let (reporter, name) = (reporter.clone(), name.to_owned());
    Reporter::new(move |mut event| {
        if let Event::Begin { step, .. }
        | Event::Progress { step, .. }
        | Event::End { step, .. }
        | Event::Output { step, .. } = &mut event
        {
            *step = format!("{name} {step}");
        }
        reporter.send(event);
    })
}

async fn dry_run(
    client: &Client,
    names: &[String],
    plan: impl Fn(ContainerDetail) -> Plan,
    undone: &str,
    invocation: &Invocation,
) -> Result<()> {
    let details: Vec<(&str, Result<ContainerDetail, Fault>)> =
        try_all(names, |typed| async move { client.get(&client::container(typed, "")).await }).await;
    let whole = verdict(&details, undone);
    if let ([(_, Err(_))], Err(fault)) = (details.as_slice(), &whole) {
        return Err(fault.clone().into());
    }
    say_faults(&details, invocation);
    let (mut steps, mut errors) = (Vec::new(), Vec::new());
    for (name, detail) in details {
        match detail {
            Ok(detail) => steps.extend(plan(detail).steps),
            Err(fault) => errors.push(Broken { name, error: fault.json() }),
        }
    }
    let tried = Tried { plan: Plan { steps }, errors };
    if !tried.plan.steps.is_empty() || tried.errors.is_empty() || invocation.format == Format::Json {
        invocation.print(&tried, |tried| super::view::plan(&tried.plan))?;
    }
    Ok(whole?)
}

/// The plan for several containers, and those that it has nothing for.
#[derive(Serialize)]
struct Tried<'a> {
    #[serde(flatten)]
    plan: Plan,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Broken<'a>>,
}

/// Says on stderr what went wrong with each; in JSON that is among the data.
fn say_faults<T>(outcomes: &[(&str, Result<T, Fault>)], invocation: &Invocation) {
    for fault in outcomes.iter().filter_map(|(_, outcome)| outcome.as_ref().err()) {
        match (invocation.format, invocation.progress) {
            (Format::Json, _) => {}
            (_, ProgressStyle::Json) => output::stderr(&fault.json().to_string()),
            _ => output::stderr(&fault.text()),
        }
    }
}

/// Prints a plan: its steps, or the commands a person could type instead.
pub fn print_plan(plan: &Plan, as_shell: bool, invocation: &Invocation) -> Result<()> {
    invocation.print(plan, |plan| match as_shell {
        true => plan.steps.iter().flat_map(|step| &step.shell).map(|line| format!("{line}\n")).collect(),
        false => super::view::plan(plan),
    })
}

/// What `verb` would do to this container.
fn plan(verb: Verb, detail: &ContainerDetail) -> Plan {
    use crate::api::State;
    let name = &detail.container.name;
    let running = matches!(detail.container.state, State::Running | State::SetupFailed);
    let step = |step: &str, text: String, shell: String| Step {
        stage: 0,
        step: step.to_owned(),
        text,
        bytes: None,
        shell: vec![shell],
    };
    let start = || step("start", format!("start {name}"), format!("docker start {name}"));
    let stop = || step("stop", format!("stop {name}"), format!("docker stop {name}"));
    let remove = || {
        let text = format!("remove {}", super::view::loss(detail));
        step("remove", text, format!("docker rm --force {name}"))
    };
    let steps = match (verb, running) {
        (Verb::Start, true) | (Verb::Stop, false) => vec![],
        (Verb::Start, false) | (Verb::Restart, false) => vec![start()],
        (Verb::Stop, true) => vec![stop()],
        (Verb::Restart, true) => vec![stop(), start()],
        (Verb::Remove, true) => vec![stop(), remove()],
        (Verb::Remove, false) => vec![remove()],
    };
    Plan { steps }
}

/// Asks before the containers are lost, saying what each of them has.
pub async fn confirm_loss(wanted: &Names, invocation: &Invocation) -> Result<()> {
    if invocation.yes {
        return Ok(());
    }
    let client = Client::connect(&invocation.socket).await?;
    let names = &wanted.resolve(&client).await?;
    let client = &client;
    let details: Vec<(&str, Result<ContainerDetail, Fault>)> =
        try_all(names, |typed| async move { client.get(&client::container(typed, "")).await }).await;
    let mut losses = Vec::new();
    for (_, detail) in &details {
        match detail {
            Ok(detail) => losses.push(super::view::loss(detail)),
            // Reported when it is tried; unless there is nothing else to ask about.
            Err(fault) if details.len() == 1 => return Err(fault.clone().into()),
            Err(_) => {}
        }
    }
    if losses.is_empty() {
        return Ok(());
    }
    invocation.confirm(format!("Remove {}?", losses.join("; "))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: Kind) -> Result<(), Fault> {
        Err(Fault::new(kind, "no"))
    }

    #[test]
    fn the_verdict_on_several() {
        let kind =
            |outcomes: &[(&str, Result<(), Fault>)]| verdict(outcomes, "not stopped").map_err(|f| f.kind);
        assert_eq!(kind(&[("a", Ok(())), ("b", Ok(()))]), Ok(()));
        assert_eq!(kind(&[("a", fault(Kind::NotFound))]), Err(Kind::NotFound));
        assert_eq!(kind(&[("a", Ok(())), ("b", fault(Kind::NotFound))]), Err(Kind::Partly));
        assert_eq!(kind(&[("a", fault(Kind::Denied)), ("b", fault(Kind::Denied))]), Err(Kind::Denied));
        assert_eq!(kind(&[("a", fault(Kind::Denied)), ("b", fault(Kind::Failed))]), Err(Kind::Failed));
    }

    #[tokio::test]
    async fn every_name_is_tried_once_and_in_order() {
        let names = ["b", "a", "b"].map(String::from);
        let outcomes = try_all(&names, |typed| async move {
            match typed {
                "b" => Err(Fault::new(Kind::NotFound, "b").into()),
                _ => Ok(typed.len()),
            }
        })
        .await;
        let names: Vec<_> = outcomes.iter().map(|(name, outcome)| (*name, outcome.is_ok())).collect();
        assert_eq!(names, [("b", false), ("a", true)]);
    }
}
