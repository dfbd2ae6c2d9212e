//! `make`: from a specification to a container that is set up and ready. What fails before the set-up begins is undone.

use std::path::Path;

use anyhow::Result;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::build::{self, Gathered};
use super::record::{SCHEMA, random_hex};
use super::{
    Caller, Host, Intent, Record, Setup, check, diff, identity, lifecycle, people, ready, runlog, settle,
    undo, view,
};
use crate::api::{MakeRequest, MakeResult, SourceDone};
use crate::report::{Fault, Kind, Reporter};
use crate::spec::{ContainerSpec, Mac};

/// One `make` by one caller.
pub struct Make {
    pub caller: Caller,
    pub request: MakeRequest,
    /// The operation's id, which the client names when its checkout is there.
    pub operation: String,
    pub staged: oneshot::Receiver<SourceDone>,
    /// The run's log on the host.
    pub log: String,
    pub report: Reporter,
    pub cancel: CancellationToken,
}

/// Bytes of `/opt` that were here already, and bytes that are new.
#[derive(Debug, Clone, Copy, Default)]
struct Bytes {
    shared: u64,
    new: u64,
}

/// Makes the container, or starts and completes the one that exists with the same specification.
pub async fn make(host: &Host, make: Make) -> Result<MakeResult> {
    let spec = &make.request.spec;
    check::check(spec, &host.config)?;
    let (log, wait, report, cancel) =
        (make.log.clone(), make.request.wait, make.report.clone(), make.cancel.clone());
    let (record, existed, bytes) = match leftover_cleared(host, spec.name.as_str()).await? {
        Some(record) => (again(host, record, &make).await?, true, Bytes::default()),
        None => {
            let (record, bytes) = fresh(host, make).await?;
            (record, false, bytes)
        }
    };
    let record = set_up(host, record, &report, &cancel).await?;
    if let (true, Some(check)) = (wait, &record.spec.ready) {
        let name = &record.spec.name;
        tokio::select! {
            ready = ready::project(host, &record, check, &report) => ready?,
            () = cancel.cancelled() => return Err(interrupted(name.as_str()).remains(format!("the container {name} runs")).into()),
        }
    }
    Ok(MakeResult {
        container: view::view(host, &record, None).await,
        existed,
        user: record.user().to_owned(),
        host_key: record.host_key.public.clone(),
        opt_directory: host.directory(record.spec.name.as_str()).join("opt").to_string_lossy().into_owned(),
        log,
        shared_bytes: bytes.shared,
        new_bytes: bytes.new,
    })
}

/// The record of a container that exists. What is left of one that was half made or half removed goes first.
async fn leftover_cleared(host: &Host, name: &str) -> Result<Option<Record>> {
    let Some(record) = host.records.get(name)? else { return Ok(None) };
    let record = settle::settle(host, &record).await?;
    if record.intent.is_none() {
        return Ok(Some(record));
    }
    let remains = undo::take_apart(host, &record).await;
    if remains.is_empty() {
        return Ok(None);
    }
    let mut fault = Fault::new(Kind::Failed, format!("what is left of an earlier {name} cannot be removed"))
        .next("run the same command again when the cause is mended");
    fault.remains = remains;
    Err(fault.into())
}

fn interrupted(name: &str) -> Fault {
    Fault::new(Kind::Interrupted, format!("making {name} was interrupted")).next("run the same command again")
}

/// The container exists: with the same specification it is started, and made anew in the engine if that lost it.
async fn again(host: &Host, mut record: Record, make: &Make) -> Result<Record> {
    let name = record.spec.name.to_string();
    let differences = diff::differences(&record.as_made(), &make.request.spec);
    if !differences.is_empty() {
        let mut fault = Fault::new(Kind::Differs, format!("{name} exists with another specification"))
            .next(format!("remove-container {name}, or choose another --name"));
        fault.why = differences;
        return Err(fault.into());
    }
    if record.spec.authorized_keys != make.request.spec.authorized_keys {
        make.report.warning("your public keys are others than when it was made; add new ones to ~/.ssh/authorized_keys inside");
    }
    // What a power cut or a hand has taken out of the store comes back under the name it had.
    build::layers(host, &record, &make.caller, &make.report).await?;
    let found = host.engine.inspect(&name).await?;
    if found.is_none_or(|found| found.engine_id != record.engine_id) {
        make.report
            .warning(format!("Docker no longer had the container {name}: it is made anew on the same /opt"));
        let origin = build::origin(host, &record, &make.report).await?;
        let lease = build::address(host, &record, &make.report).await?;
        record.engine_id = build::engine_container(host, &record, &origin, lease.as_ref()).await?;
        host.records.put(&name, &record)?;
    }
    lifecycle::start(host, &record, &make.report).await?;
    Ok(record)
}

/// Makes the container and starts it; on failure or interruption nothing of it is left.
async fn fresh(host: &Host, make: Make) -> Result<(Record, Bytes)> {
    let mut record = new_record(host, &make).await?;
    let name = record.spec.name.to_string();
    let name = name.as_str();
    runlog::give(Path::new(&make.log), record.reader())?;
    let ((), other) = tokio::try_join!(names_are_free(host, &record), host.engine.inspect(name))?;
    if let Some(other) = other {
        // Ours, without a record and without its volumes: an engine finished creating it after it was undone.
        if !other.id.is_empty() {
            host.engine.remove(&other.engine_id).await?;
            return Box::pin(fresh(host, make)).await;
        }
        return Err(Fault::new(
            Kind::Differs,
            format!("Docker has a container {name} that is not moorage's"),
        )
        .why(format!("its id is {}", other.engine_id))
        .next("choose another --name")
        .into());
    }
    host.records.put(name, &record)?;
    let (report, cancel) = (make.report.clone(), make.cancel.clone());
    match build_and_start(host, &mut record, make).await {
        Ok(bytes) => Ok((record, bytes)),
        Err(error) => {
            report.warning(format!("undoing what was done for {name}"));
            let remains = taken_back(host, &mut record).await;
            let mut fault = match cancel.is_cancelled() {
                true => interrupted(name),
                false => Fault::of(&error.context(format!("{name} could not be made"))),
            };
            if !remains.is_empty() {
                fault.remains.extend(remains);
                fault.remains.push("the daemon removes the rest when it can".to_owned());
            }
            Err(fault.into())
        }
    }
}

/// Undoing removes what has the names of this container's volumes: nobody else's may have them when it begins.
pub(super) async fn names_are_free(host: &Host, record: &Record) -> Result<()> {
    let opt = host.opt.clone();
    let kept = build::blocking(move || opt.volumes()).await?;
    for volume in record.volumes() {
        if host.engine.volume(&volume).await?.is_some() || kept.iter().any(|(name, _)| *name == volume) {
            return Err(Fault::new(
                Kind::Differs,
                format!("there is a volume {volume} that belongs to nothing of this name"),
            )
            .next(format!("docker volume inspect {volume}, or choose another --name"))
            .into());
        }
    }
    Ok(())
}

/// What somebody who wants Docker in Docker is told.
const NO_DOCKER: &str = "the image has a Docker Engine, which does not start inside a container: it may not mount, and its \
    layers would be an overlay on an overlay. What it would run, run beside the container: docker run --network lan on the host";

async fn build_and_start(host: &Host, record: &mut Record, make: Make) -> Result<Bytes> {
    let Make { caller, request, operation, staged, report, cancel, .. } = make;
    let known: Vec<bool> = request.spec.opt.iter().map(|archive| host.opt.find(archive).is_some()).collect();
    let name = record.spec.name.to_string();
    let name = name.as_str();
    let gathered: Gathered = tokio::select! {
        gathered = build::gather(host, record, (&caller, &operation), staged, &report) => gathered?,
        () = cancel.cancelled() => return Err(interrupted(name).into()),
    };
    if gathered.facts.docker {
        report.warning(NO_DOCKER);
    }
    report.begin("create", format!("creating {name}"));
    let (layers, engine_id) = build::create(host, record, &caller, gathered).await?;
    record.engine_id = engine_id;
    report.end("create", format!("{name} is created"));
    // Cancelled between two calls to the engine, never inside one: half a call cannot be undone.
    if cancel.is_cancelled() {
        return Err(interrupted(name).into());
    }
    tokio::select! {
        started = started(host, record, &report) => started?,
        () = cancel.cancelled() => return Err(interrupted(name).into()),
    };
    let mut bytes = Bytes::default();
    for (layer, known) in layers.iter().zip(known) {
        match known {
            true => bytes.shared += layer.bytes,
            false => bytes.new += layer.bytes,
        }
    }
    Ok(bytes)
}

/// Starts the container. From the moment it runs it is made: its record is written while it boots, and whoever is killed
/// after that leaves a container that the same command only waits for.
async fn started(host: &Host, record: &mut Record, report: &Reporter) -> Result<()> {
    let name = record.spec.name.as_str();
    report.begin("start", format!("starting {name}"));
    host.engine.start(name).await?;
    let made = Record { intent: None, ..record.clone() };
    let (records, written) = (&host.records, &made);
    tokio::try_join!(lifecycle::up(host, record), async { records.put(name, written) })?;
    report.end("start", format!("{name} is up"));
    *record = made;
    Ok(())
}

/// Undoes a make. The record says so first, in case it was written as made: whoever is killed here is gone on for.
async fn taken_back(host: &Host, record: &mut Record) -> Vec<String> {
    record.intent = Some(Intent::Make);
    match host.records.put(record.spec.name.as_str(), record) {
        Ok(()) => undo::take_apart(host, record).await,
        Err(error) => vec![format!("the container {}: {error:#}", record.spec.name)],
    }
}

/// Docker's ID of the LAN's network.
async fn lan(host: &Host, name: &str) -> Result<String> {
    let network = host.engine.network(name).await?.ok_or_else(|| {
        Fault::new(Kind::Missing, format!("there is no network {name} on this host"))
            .next("moorage setup --parent INTERFACE; without a LAN that can be used: --address nat")
    })?;
    if network.driver != crate::engine::DRIVER {
        let what = format!("the network {name} is Docker's {}, not moorage's", network.driver);
        return Err(Fault::new(Kind::Missing, what).next("moorage setup --parent INTERFACE").into());
    }
    Ok(network.id)
}

async fn new_record(host: &Host, make: &Make) -> Result<Record> {
    record_of(host, make.request.spec.clone(), &make.caller).await
}

/// The record of a container that is to be made for `caller`.
pub(super) async fn record_of(host: &Host, spec: ContainerSpec, caller: &Caller) -> Result<Record> {
    let network_id = match spec.address.is_on_lan() {
        true => lan(host, &spec.network).await?,
        false => String::new(),
    };
    let (owner, caller) = (spec.owner.clone(), caller.clone());
    let (people, gid) = build::blocking(move || people::inside(&owner, &caller)).await?;
    Ok(Record {
        schema: SCHEMA,
        id: random_hex::<6>(),
        mac: Mac::pinned(&host.config.mac_prefix, &host.host_id, &spec.network, spec.name.as_str()),
        network_id,
        machine_id: random_hex::<16>(),
        host_key: identity::host_key(spec.name.as_str())?,
        created: jiff::Timestamp::now(),
        engine_id: String::new(),
        setup: if spec.setup.is_empty() { Setup::Done } else { Setup::Pending },
        intent: Some(Intent::Make),
        root: None,
        lent: None,
        made_with: None,
        cloned: None,
        people,
        gid,
        spec,
    })
}

/// What the shell of a set-up step calls itself (`$0`), and how the next daemon finds one that was left.
const SET_UP: &str = "moorage-set-up";

/// Runs the project's set-up steps once. A step that fails leaves the container for its owner to look at; the same
/// command retries all steps.
async fn set_up(
    host: &Host,
    record: Record,
    report: &Reporter,
    cancel: &CancellationToken,
) -> Result<Record> {
    if record.setup == Setup::Done {
        return Ok(record);
    }
    let name = record.spec.name.to_string();
    if record.setup == Setup::Failed {
        // A daemon that was killed left its step running: two at once would tread on each other.
        host.engine.end_left_over(&name, SET_UP).await?;
    }
    // Written first: a daemon killed from here on leaves a container whose set-up is to be retried.
    let mut record = Record { setup: Setup::Failed, ..record };
    host.records.put(&name, &record)?;
    for step in &record.spec.setup {
        report.begin("setup", format!("running: {step}"));
        let mut exec = ready::as_person(&record, step);
        exec.command.push(SET_UP.to_owned());
        let mut last = String::new();
        let said = |line: &str| {
            report.output("setup", line);
            last = line.to_owned();
        };
        let code = tokio::select! {
            code = host.engine.run(&name, &exec, said) => code?,
            () = cancel.cancelled() => return Err(interrupted(&name).remains(format!("the container {name} runs, its set-up is not done")).into()),
        };
        if code != 0 {
            return Err(Fault::new(Kind::Failed, format!("the set-up step {step:?} failed in {name}"))
                .why(format!("it ended with exit code {code}: {last}"))
                .remains(format!("the container {name} runs, its set-up is not done"))
                .next(format!("enter-container {name} to look; the same command retries the set-up"))
                .into());
        }
        report.end("setup", format!("done: {step}"));
    }
    record.setup = Setup::Done;
    host.records.put(&name, &record)?;
    Ok(record)
}
