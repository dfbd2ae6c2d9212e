//! Cloning: the source's state is taken once ([`source`]), and the clones start from it, each a machine of its own.
//!
//! What a clone writes is its own; the layers of `/opt` and the committed root filesystem are shared. The clones' records
//! come first, with their addresses: a daemon that is killed finds them and undoes what was not finished.

pub mod group;
pub mod member;
pub mod names;
pub mod plan;
pub mod source;

use anyhow::{Context as _, Result};
use futures_util::stream::{self, StreamExt as _};
use tokio_util::sync::CancellationToken;

use super::record::{Cloned, Peer, Root, random_hex};
use super::roots::HeldKey;
use super::snapshot::Snapshot;
use super::{Caller, Host, Intent, Record, build, identity, lifecycle, make, roots, undo, view};
use crate::api::{CloneDone, CloneFailed, CloneResult};
use crate::failpoint;
use crate::lan::LeaseView;
use crate::report::{Fault, Kind, Reporter, Unit};
use crate::spec::{Addressing, ContainerName, Mac};

/// How many clones are made at the same time.
const AT_ONCE: usize = 8;

/// The clones of one request, before they are made.
pub struct Group {
    /// The root filesystem that they start from.
    root: Root,
    /// Until the records name it.
    _held: Option<HeldKey>,
    members: Vec<(Record, Option<LeaseView>)>,
}

/// What clones start from: a container, or one as it was.
pub struct Origin {
    pub source: Record,
    pub root: Root,
    held: Option<HeldKey>,
}

impl Origin {
    /// A container whose state will be taken.
    pub async fn of(host: &Host, source: &Record) -> Result<Origin> {
        let held = host.held_roots.unused();
        let root = Root { key: held.key.clone(), image_id: image_under(host, source).await? };
        Ok(Origin { source: source.clone(), root, held: Some(held) })
    }

    pub fn of_snapshot(snapshot: &Snapshot) -> Origin {
        Origin { source: snapshot.of.clone(), root: snapshot.root.clone(), held: None }
    }
}

/// The image that a container's root filesystem is written over, by its id.
pub async fn image_under(host: &Host, record: &Record) -> Result<String> {
    match &record.root {
        Some(root) => Ok(root.image_id.clone()),
        None => Ok(lifecycle::engine_container(host, record).await?.image_id),
    }
}

/// One request to clone, by one caller.
pub struct Cloning {
    pub caller: Caller,
    pub start: bool,
    /// The run's log on the host.
    pub log: String,
    pub report: Reporter,
    pub cancel: CancellationToken,
}

pub fn interrupted(name: &str) -> Fault {
    Fault::new(Kind::Interrupted, format!("cloning {name} was interrupted"))
        .next("run the same command again")
}

/// Writes the clones down and has the LAN promise an address to each. Where it has too few, nothing is left of any.
pub async fn prepare(
    host: &Host,
    origin: Origin,
    names: &[ContainerName],
    cloning: &Cloning,
) -> Result<Group> {
    let Origin { source, root, held } = origin;
    let source = &source;
    let group_key = identity::host_key(&format!("clones-of-{}", source.spec.name))?;
    let mut members = Vec::new();
    for name in names {
        let mut spec = source.spec.clone();
        spec.name = name.clone();
        if let Addressing::Static(_) = spec.address {
            // A chosen address is one machine's.
            spec.address = Addressing::Dhcp;
        }
        let cloned = Cloned { from: source.spec.name.clone(), group: Vec::new(), key: group_key.clone() };
        let record = Record {
            id: random_hex::<6>(),
            mac: Mac::pinned(&host.config.mac_prefix, &host.host_id, &spec.network, name.as_str()),
            machine_id: random_hex::<16>(),
            host_key: identity::host_key(name.as_str())?,
            created: jiff::Timestamp::now(),
            engine_id: String::new(),
            intent: Some(Intent::Make),
            root: Some(root.clone()),
            cloned: Some(cloned),
            spec,
            ..source.clone()
        };
        make::names_are_free(host, &record).await?;
        if host.engine.inspect(name.as_str()).await?.is_some() {
            return Err(Fault::new(Kind::Differs, format!("Docker has a container {name} already"))
                .next("choose another --name")
                .into());
        }
        members.push(record);
    }
    if let Err(error) = put_all(host, &members) {
        undo(host, members.iter()).await;
        return Err(error);
    }
    failpoint::reach("clone-recorded");
    let leases = tokio::select! {
        leases = addresses(host, &members, &cloning.report) => leases,
        () = cloning.cancel.cancelled() => Err(interrupted(source.spec.name.as_str()).into()),
    };
    let leases = match leases {
        Ok(leases) => leases,
        Err(error) => {
            undo(host, members.iter()).await;
            return Err(error);
        }
    };
    let group = peers(host, source, &members, &leases);
    for record in &mut members {
        if let Some(cloned) = &mut record.cloned {
            cloned.group = group.clone();
        }
    }
    if let Err(error) = put_all(host, &members) {
        undo(host, members.iter()).await;
        return Err(error);
    }
    failpoint::reach("clone-prepared");
    Ok(Group { root, _held: held, members: members.into_iter().zip(leases).collect() })
}

fn put_all(host: &Host, members: &[Record]) -> Result<()> {
    members.iter().try_for_each(|record| host.records.put(record.spec.name.as_str(), record))
}

/// An address for each, where a DHCP server grants them. The first that it has none for ends the others.
async fn addresses(host: &Host, members: &[Record], report: &Reporter) -> Result<Vec<Option<LeaseView>>> {
    if members.iter().all(|record| record.spec.address != Addressing::Dhcp) {
        return Ok(vec![None; members.len()]);
    }
    let count = members.len();
    report.begin("address", format!("asking the LAN's DHCP server for {count} address(es)"));
    let silent = Reporter::silent();
    let silent = &silent;
    let ask = |(index, record)| async move { (index, build::address(host, record, silent).await) };
    let asking: Vec<_> = members.iter().enumerate().map(ask).collect();
    let mut asked = stream::iter(asking).buffer_unordered(AT_ONCE);
    let mut leases: Vec<Option<LeaseView>> = vec![None; count];
    let mut done = 0;
    while let Some((index, lease)) = asked.next().await {
        match lease {
            Ok(lease) => leases[index] = lease,
            Err(error) => {
                let fault = Fault::of(&error);
                let what = format!("the LAN has an address for {done} of {count} clones only");
                let mut short = Fault::new(fault.kind, what).why(fault.what);
                short.why.extend(fault.why);
                let next = "ask for fewer --count, or have the DHCP server's range made larger";
                return Err(short.next(next).into());
            }
        }
        done += 1;
        report.progress("address", done, Some(count as u64), Unit::Items);
    }
    drop(asked);
    report.end("address", format!("{count} address(es)"));
    Ok(leases)
}

/// What the members know of each other: the source first.
fn peers(host: &Host, source: &Record, members: &[Record], leases: &[Option<LeaseView>]) -> Vec<Peer> {
    let of_source = view::lease(host, source).and_then(|lease| lease.address);
    let addresses = leases.iter().map(|lease| lease.as_ref().and_then(|lease| lease.address));
    std::iter::once((source, of_source))
        .chain(members.iter().zip(addresses))
        .filter_map(|(record, address)| {
            Some(Peer {
                name: record.spec.name.clone(),
                address: address?,
                host_key: record.host_key.public.clone(),
            })
        })
        .collect()
}

/// Takes the source's state, for the group to start from. On failure nothing of the group is left.
pub async fn take(host: &Host, source: &Record, group: &Group, cloning: &Cloning) -> Result<source::Taken> {
    let taken = source::take(host, source, &group.root.key, (&cloning.report, &cloning.cancel)).await;
    if taken.is_err() {
        undo(host, group.members.iter().map(|(record, _)| record)).await;
    }
    taken
}

/// Makes containers from a snapshot; nothing is stopped for that.
pub async fn from_snapshot(
    host: &Host,
    snapshot: &Snapshot,
    names: &[ContainerName],
    cloning: &Cloning,
) -> Result<CloneResult> {
    let taken = source::Taken::of_snapshot(host, snapshot.layers.clone()).await?;
    let group = prepare(host, Origin::of_snapshot(snapshot), names, cloning).await?;
    make_all(host, &snapshot.of, (group, taken), cloning).await
}

/// Has nothing left of a group that cannot be made.
pub async fn give_up(host: &Host, group: &Group) {
    undo(host, group.members.iter().map(|(record, _)| record)).await;
}

/// Makes the clones side by side. One that fails is undone, the others stay. Fails where none was made.
pub async fn make_all(
    host: &Host,
    source: &Record,
    (group, taken): (Group, source::Taken),
    cloning: &Cloning,
) -> Result<CloneResult> {
    let name = source.spec.name.as_str();
    let count = group.members.len();
    let started = async {
        // It was started already: this waits until it can be used.
        match taken.stopped_ms > 0 {
            // A snapshot's container is let alone.
            true => lifecycle::start(host, source, &Reporter::silent()).await.map(drop),
            false => Ok(()),
        }
    };
    let (made, again) = tokio::join!(members(host, &group, &taken, cloning), started);
    if let Err(error) = again {
        cloning.report.warning(format!("{name} does not come up again: {error:#}"));
    }
    let made = made?;
    if made.iter().any(|(_, outcome)| outcome.is_err())
        && let Err(error) = roots::collect(host).await
    {
        tracing::warn!("what the failed clones of {name} left stays: {error:#}");
    }
    result(host, source, (made, count, taken.stopped_ms), cloning).await
}

/// The committed root filesystem, looked into once for all.
async fn base(host: &Host, group: &Group) -> Result<build::Origin> {
    let (first, _) = group.members.first().context("a group has members")?;
    let base = build::origin(host, first, &Reporter::silent()).await?;
    anyhow::ensure!(base.is_root, "the committed root filesystem {} is gone from Docker", group.root.key);
    Ok(base)
}

/// A clone that was made may not be ready.
type Outcome<'a> = (&'a Record, Result<Option<Fault>, Fault>);

async fn members<'a>(
    host: &Host,
    group: &'a Group,
    taken: &source::Taken,
    cloning: &Cloning,
) -> Result<Vec<Outcome<'a>>> {
    let count = group.members.len() as u64;
    cloning.report.begin("clones", format!("making {count} clone(s)"));
    let base = match base(host, group).await {
        Ok(base) => base,
        Err(error) => {
            undo(host, group.members.iter().map(|(record, _)| record)).await;
            return Err(error);
        }
    };
    let (base, layers) = (&base, &taken.layers);
    let one = |(record, lease): &'a (Record, Option<LeaseView>)| async move {
        let done = member::make(host, (record, lease.as_ref()), (base, layers), cloning).await;
        match done {
            Ok(()) => (record, Ok(member::ready(host, record, cloning).await)),
            Err(error) => (record, Err(Fault::of(&error))),
        }
    };
    let all: Vec<_> = group.members.iter().map(one).collect();
    let mut making = stream::iter(all).buffered(AT_ONCE);
    let mut made = Vec::new();
    while let Some((record, outcome)) = making.next().await {
        match &outcome {
            Err(fault) => cloning.report.warning(format!("{} could not be made: {fault}", record.spec.name)),
            Ok(Some(fault)) => cloning.report.warning(format!("{} is not ready: {fault}", record.spec.name)),
            Ok(None) => {}
        }
        made.push((record, outcome));
        failpoint::reach("clone-made");
        cloning.report.progress("clones", made.len() as u64, Some(count), Unit::Items);
    }
    Ok(made)
}

async fn result(
    host: &Host,
    source: &Record,
    (made, count, stopped_ms): (Vec<Outcome<'_>>, usize, u64),
    cloning: &Cloning,
) -> Result<CloneResult> {
    let name = &source.spec.name;
    let mut views = view::all(host, |_| None).await?;
    let (mut clones, mut failed, mut not_ready) = (Vec::new(), Vec::new(), Vec::new());
    for (record, outcome) in made {
        let own = &record.spec.name;
        match outcome {
            Ok(fault) => {
                not_ready.extend(fault.map(|fault| CloneFailed { name: own.clone(), fault }));
                let at = views.iter().position(|view| view.name == *own);
                clones.push(CloneDone {
                    container: views.swap_remove(at.with_context(|| format!("{own} is not listed"))?),
                    host_key: record.host_key.public.clone(),
                    opt_directory: host.directory(own.as_str()).join("opt").to_string_lossy().into_owned(),
                });
            }
            Err(fault) => failed.push(CloneFailed { name: own.clone(), fault }),
        }
    }
    if clones.is_empty() {
        let first = failed.into_iter().next().context("no clone was asked for")?.fault;
        let fault = match cloning.cancel.is_cancelled() {
            true => interrupted(name.as_str()),
            false => Fault::of(
                &anyhow::Error::from(first)
                    .context(format!("none of {count} clones of {name} could be made")),
            ),
        };
        return Err(fault.into());
    }
    cloning.report.end("clones", format!("{} of {count} clone(s) of {name} are made", clones.len()));
    Ok(CloneResult {
        source: name.clone(),
        clones,
        failed,
        not_ready,
        user: source.user().to_owned(),
        stopped_ms,
        log: cloning.log.clone(),
    })
}

/// Takes apart what was written down or made of clones; what remains is tried again later.
async fn undo(host: &Host, members: impl Iterator<Item = &Record>) {
    let all: Vec<_> = members.map(|record| undo::take_apart(host, record)).collect();
    futures_util::future::join_all(all).await;
    if let Err(error) = roots::collect(host).await {
        tracing::warn!("what was made for clones stays: {error:#}");
    }
}
