//! A whole LAN inside this machine, for trying and testing: a network namespace with a DHCP server, DNS and router
//! advertisements in it, and a veth pair whose end here ([`Settings::parent`]) is a parent like any other.
//!
//! [`survey`](survey::survey) looks, [`decide`](plan::decide) says what is missing, [`start`] does that. What a lab
//! was asked to be is recorded before its first effect, so that a half-made one is completed or removed.

pub mod dnsmasq;
mod link;
mod namespace;
pub mod plan;
pub mod settings;
mod survey;

use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::report::{Fault, Kind, Reporter};
use crate::spec::plan::Plan;
use crate::state::Records;

pub use plan::Action;
pub use settings::{LeaseTime, Settings, Subnet};

/// Where labs keep their records, and each a directory for its server.
const DIRECTORY: &str = "/run/moorage/lab";
/// The key of the progress events.
const STEP: &str = "lab";

/// What is kept of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    settings: Settings,
    /// The inode of its network namespace; `None` until that was made.
    namespace: Option<u64>,
}

/// A lab that is up, and how to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LabView {
    pub name: String,
    /// What `parent =` is set to.
    pub parent: String,
    /// This host's address on it, with its prefix length.
    pub address: String,
    /// The DHCP and DNS server.
    pub server: std::net::Ipv4Addr,
    pub subnet: Subnet,
    /// What SLAAC makes addresses of; `None` where the kernel has no IPv6.
    pub prefix6: Option<String>,
    /// The names of leases are below it.
    pub domain: String,
    pub namespace: String,
    /// The server's leases, one a line.
    pub leases: String,
    /// Whether anything had to be done.
    pub changed: bool,
}

/// Starts the lab, or completes it; a running one with the same settings stays as it is. Blocks.
///
/// [`Kind::Denied`] without root, [`Kind::Missing`] without dnsmasq, [`Kind::Differs`] when a lab of this name has
/// other settings, [`Kind::Usage`] when its addresses are in use on this host.
pub fn start(settings: &Settings, report: &Reporter) -> Result<LabView> {
    let records = records()?;
    let _lock = lock()?;
    let actions = decided(Some(&records), settings)?;
    if actions.is_empty() {
        report.end(STEP, format!("the lab {:?} is up already, nothing to do", settings.name));
        return Ok(view(settings, false));
    }
    dnsmasq::find()?;
    if records.get(&settings.name)?.is_none() {
        records.put(&settings.name, &Record { settings: settings.clone(), namespace: None })?;
    }
    for action in actions {
        report.begin(STEP, action.text(settings));
        act(action, &records, settings).with_context(|| format!("the lab {:?} is not up", settings.name))?;
    }
    report.end(STEP, format!("the lab {:?} is up", settings.name));
    Ok(view(settings, true))
}

/// What [`start`] would do.
pub fn plan_start(settings: &Settings) -> Result<Plan> {
    let actions = decided(existing()?.as_ref(), settings)?;
    Ok(Plan { steps: actions.into_iter().map(|action| action.step(settings)).collect() })
}

/// Removes what [`start`] made and nothing else; `false` when there is no such lab. Goes on after a failure and tells
/// all of them.
pub fn stop(name: &str, report: &Reporter) -> Result<bool> {
    let records = records()?;
    let _lock = lock()?;
    let Some(record) = records.get(name)? else {
        report.end(STEP, format!("there is no lab {name:?}, nothing to do"));
        return Ok(false);
    };
    let settings = &record.settings;
    report.begin(STEP, format!("remove the lab {name:?}"));
    let namespace = namespace::open(&settings.namespace())?;
    let known = namespace.as_ref().map(namespace::inode).transpose()?.or(record.namespace);
    let removed = [
        dnsmasq::stop(settings, known),
        link::remove(settings),
        namespace::remove(&settings.namespace()),
        remove_directory(&settings.directory()),
    ];
    let failures: Vec<String> =
        removed.into_iter().filter_map(Result::err).map(|error| format!("{error:#}")).collect();
    if !failures.is_empty() {
        let mut fault = Fault::new(Kind::Partly, format!("the lab {name:?} is not wholly removed"))
            .next(format!("moorage stop-lab --name {name}"));
        fault.why = failures;
        return Err(fault.into());
    }
    records.remove(name)?;
    report.end(STEP, format!("the lab {name:?} is removed"));
    Ok(true)
}

/// What [`stop`] would do.
pub fn plan_stop(name: &str) -> Result<Plan> {
    let record = existing()?.map(|records| records.get(name)).transpose()?.flatten();
    Ok(record.map(|record| plan::removal(&record.settings)).unwrap_or_default())
}

fn decided(records: Option<&Records<Record>>, settings: &Settings) -> Result<Vec<Action>> {
    let all = records.map(Records::all).transpose()?.unwrap_or_default();
    let record = all.iter().find(|(name, _)| *name == settings.name).map(|(_, record)| record);
    if let Some(other) = record.map(|r| &r.settings).filter(|other| *other != settings) {
        let mut fault =
            Fault::new(Kind::Differs, format!("the lab {:?} is there with other settings", settings.name))
                .next(format!("moorage stop-lab --name {}", settings.name));
        fault.why = settings.differences(other);
        return Err(fault.into());
    }
    for (name, other) in &all {
        if *name != settings.name && other.settings.subnet.overlaps(settings.subnet) {
            let what = format!("the lab {name:?} has {} already", other.settings.subnet);
            return Err(Fault::new(Kind::Usage, what).next("another --subnet").into());
        }
    }
    let seen = survey::survey(settings, record)?;
    plan::decide(settings, record.is_some(), &seen).map_err(Into::into)
}

fn act(action: Action, records: &Records<Record>, settings: &Settings) -> Result<()> {
    let known = records.get(&settings.name)?.and_then(|record| record.namespace);
    match action {
        Action::Namespace => {
            // One that was removed by hand lives on with its server.
            dnsmasq::stop(settings, known)?;
            let namespace = namespace::create(&settings.namespace())?;
            let inode = Some(namespace::inode(&namespace)?);
            records.put(&settings.name, &Record { settings: settings.clone(), namespace: inode })
        }
        Action::Links => {
            link::remove(settings)?;
            link::create(settings, &opened(settings)?)
        }
        Action::Addresses => link::set_up(settings, &opened(settings)?),
        Action::Server => {
            let namespace = opened(settings)?;
            // A server of a former version, with another configuration.
            dnsmasq::stop(settings, known)?;
            dnsmasq::start(settings, &namespace)
        }
    }
}

fn opened(settings: &Settings) -> Result<std::fs::File> {
    let name = settings.namespace();
    namespace::open(&name)?.with_context(|| format!("the network namespace {name} went away"))
}

fn view(settings: &Settings, changed: bool) -> LabView {
    LabView {
        name: settings.name.clone(),
        parent: settings.parent(),
        address: format!("{}/{}", settings.subnet.host(), settings.subnet.prefix),
        server: settings.subnet.router(),
        subnet: settings.subnet,
        prefix6: settings::kernel_has_ipv6().then(|| format!("{}/64", settings.prefix6())),
        domain: settings::DOMAIN.into(),
        namespace: settings.namespace(),
        leases: format!("{}/leases", settings.directory()),
        changed,
    }
}

/// The records, whose directory is made where it is missing.
fn records() -> Result<Records<Record>> {
    need_root()?;
    // Others must be able to pass through to the daemon's socket.
    for directory in [Path::new("/run/moorage"), Path::new(DIRECTORY)] {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .with_context(|| format!("make {}", directory.display()))?;
    }
    Records::open(DIRECTORY)
}

/// The same for who only looks.
fn existing() -> Result<Option<Records<Record>>> {
    need_root()?;
    Path::new(DIRECTORY).exists().then(|| Records::open(DIRECTORY)).transpose()
}

fn need_root() -> Result<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let what = "only root can make network interfaces and namespaces";
    Err(Fault::new(Kind::Denied, what).next("the same command with sudo").into())
}

/// Starts and stops of labs wait for each other; the lock goes with the descriptor, however the process ends.
fn lock() -> Result<std::fs::File> {
    let directory = std::fs::File::open(DIRECTORY).with_context(|| format!("open {DIRECTORY}"))?;
    directory.lock().with_context(|| format!("lock {DIRECTORY}"))?;
    Ok(directory)
}

fn remove_directory(directory: &str) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {directory}"))
        }
        _ => Ok(()),
    }
}
