//! What people are told of a container.

use std::collections::HashMap;

use anyhow::Result;

use super::{Host, Record, Setup, blocking, runlog};
use crate::api::{self, ContainerDetail, ContainerView, State};
use crate::engine::Found;
use crate::lan::LeaseView;
use crate::spec::{Addressing, ContainerSpec};

/// What is known of one container, put together from record, engine and lease.
pub struct Sight<'a> {
    pub record: &'a Record,
    /// `Err` when the engine could not say.
    pub found: Result<Option<&'a Found>, ()>,
    pub lease: Option<&'a LeaseView>,
    /// The operation in progress.
    pub operation: Option<String>,
}

impl Sight<'_> {
    pub fn state(&self) -> State {
        match (&self.operation, &self.record.intent, self.found) {
            (Some(_), _, _) | (None, Some(_), _) => State::Busy,
            (None, None, Err(())) => State::Unknown,
            (None, None, Ok(None)) => State::Missing,
            (None, None, Ok(Some(found))) => match (found.running, self.record.setup) {
                (true, Setup::Done) => State::Running,
                (true, _) => State::SetupFailed,
                (false, _) => State::Stopped,
            },
        }
    }

    pub fn view(&self) -> ContainerView {
        let spec = &self.record.spec;
        let state = self.state();
        let bridge = self.found.ok().flatten().and_then(|found| found.bridge);
        let bridge = bridge.filter(|_| spec.address == Addressing::Nat);
        ContainerView {
            name: spec.name.clone(),
            owner: spec.owner.clone(),
            project: spec.project.clone(),
            branch: spec.branch.clone(),
            patches: spec.patches.clone(),
            state,
            network: match spec.address {
                Addressing::Dhcp | Addressing::Static(_) => spec.network.clone(),
                elsewhere => elsewhere.to_string(),
            },
            mac: bridge.map_or(self.record.mac, |(_, mac)| mac),
            address: self.lease.and_then(|lease| lease.address).or(bridge.map(|(address, _)| address)),
            ipv6: Vec::new(),
            image: spec.image.clone(),
            outdated: false,
            created: self.record.created,
            operation: self.operation.clone(),
            opt_bytes: None,
            cloned_from: self.record.cloned.as_ref().map(|cloned| cloned.from.clone()),
        }
    }
}

/// The lease of `record`, as the LAN driver knows it.
pub fn lease(host: &Host, record: &Record) -> Option<LeaseView> {
    host.lan.leases().into_iter().find(|lease| lease.network == record.network_id && lease.mac == record.mac)
}

/// What the container made of router advertisements. A container that stops meanwhile has none.
async fn ipv6(host: &Host, record: &Record) -> Vec<std::net::Ipv6Addr> {
    host.lan.ipv6(&record.network_id, record.mac).await.unwrap_or_default()
}

/// One container as a line of the list, with its IPv6 addresses.
pub async fn view(host: &Host, record: &Record, operation: Option<String>) -> ContainerView {
    let (found, ipv6, image) = tokio::join!(
        host.engine.inspect(record.spec.name.as_str()),
        ipv6(host, record),
        current(host, &record.spec.image),
    );
    let ours = |found: Option<Found>| found.filter(|found| found.id == record.id);
    let found = found.map(ours).map_err(|error| tracing::warn!("{error:#}"));
    let lease = lease(host, record);
    let found = match &found {
        Ok(found) => Ok(found.as_ref()),
        Err(()) => Err(()),
    };
    let mut view = Sight { record, found, lease: lease.as_ref(), operation }.view();
    view.ipv6 = ipv6;
    view.outdated = outdated(record, found.ok().flatten(), image.as_deref());
    view
}

/// The id that the image's name stands for now. Silence is no id: nobody is told to act because the engine is slow.
async fn current(host: &Host, reference: &str) -> Option<String> {
    let image = host.engine.image(reference).await.map_err(|error| tracing::warn!("{error:#}"));
    image.ok().flatten().map(|image| image.id)
}

/// Whether the container's image has been replaced. One whose image is not known under its name any more is not.
fn outdated(record: &Record, found: Option<&Found>, current: Option<&str>) -> bool {
    // A committed root filesystem has an image of its own, which no name stands for.
    let of_root = record.root.as_ref().map(|root| root.image_id.as_str());
    let own = of_root.or(found.map(|found| found.image_id.as_str()));
    matches!((found, own, current), (Some(_), Some(own), Some(current)) if !own.is_empty() && own != current)
}

/// All containers. The engine's silence makes states unknown; it never makes containers vanish.
pub async fn all(host: &Host, operation: impl Fn(&str) -> Option<String>) -> Result<Vec<ContainerView>> {
    let found = host.engine.list().await.map_err(|error| tracing::warn!("{error:#}"));
    let leases = host.lan.leases();
    let mut images: HashMap<String, Option<String>> = HashMap::new();
    let mut views = Vec::new();
    let records = host.records.clone();
    for (name, record) in blocking(move || records.all()).await? {
        let found = match &found {
            Ok(all) => Ok(all.iter().find(|found| found.id == record.id)),
            Err(()) => Err(()),
        };
        let image = &record.spec.image;
        if !images.contains_key(image) {
            images.insert(image.clone(), current(host, image).await);
        }
        let current = images.get(image).and_then(Option::as_deref);
        let outdated = outdated(&record, found.ok().flatten(), current);
        let lease = leases.iter().find(|l| l.network == record.network_id && l.mac == record.mac);
        let mut view = Sight { record: &record, found, lease, operation: operation(&name) }.view();
        view.outdated = outdated;
        if view.state == State::Running {
            view.ipv6 = ipv6(host, &record).await;
        }
        views.push(view);
    }
    Ok(views)
}

/// All about one container, for the user `uid`.
pub async fn detail(
    host: &Host,
    record: &Record,
    (uid, operation): (u32, Option<String>),
) -> Result<ContainerDetail> {
    let name = record.spec.name.as_str();
    let engine_id = host.engine.inspect(name).await.ok().flatten().map(|found| found.engine_id);
    let mut lease = lease(host, record).map(serde_json::to_value).transpose()?;
    if let Some(serde_json::Value::Object(lease)) = &mut lease {
        let journal = host.lan.journal(&record.network_id, record.mac).await.unwrap_or_default();
        lease.insert("journal".to_owned(), serde_json::to_value(journal)?);
    }
    let (opt, volume) = (host.opt.clone(), record.opt_volume().to_owned());
    let usage = host.walks.walk(uid, move || opt.usage(&volume)).await;
    Ok(ContainerDetail {
        container: view(host, record, operation).await,
        spec: shown(&record.spec),
        user: record.user().to_owned(),
        host_key: record.host_key.public.clone(),
        opt_directory: host.directory(name).join("opt").to_string_lossy().into_owned(),
        logs_directory: runlog::directory(&host.config.storage, name).to_string_lossy().into_owned(),
        engine_id,
        opt_bytes: usage.map(|usage| usage.upper_bytes).unwrap_or_default(),
        lease,
    })
}

/// A specification without the content of its files: a licence is not for every terminal and log.
fn shown(spec: &ContainerSpec) -> ContainerSpec {
    let mut spec = spec.clone();
    spec.files.iter_mut().for_each(|file| file.content.clear());
    spec
}

/// A lease as a line of the list, with its network's name where that is known.
pub fn lease_line(lease: LeaseView, networks: &HashMap<String, String>) -> api::LeaseView {
    api::LeaseView {
        network: networks.get(&lease.network).cloned().unwrap_or(lease.network),
        parent: lease.parent,
        mac: lease.mac,
        hostname: Some(lease.hostname).filter(|name| !name.is_empty()),
        state: format!("{:?}", lease.state).to_lowercase(),
        address: lease.address,
        server: lease.server,
        dns: lease.dns,
        search: lease.search,
        ntp: lease.ntp,
        expires: lease.expires,
        attached: lease.attached,
        last_event: lease.last.map(|entry| entry.text),
    }
}
