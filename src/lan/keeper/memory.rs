//! What is remembered of a lease, and what is shown of it.

use anyhow::Result;

use super::Keeper;
use crate::lan::lease::{Grant, Machine};
use crate::lan::record::{LeaseRecord, StoredLease, Tenure};
use crate::lan::view::LeaseView;

impl Keeper {
    /// Puts the record on disk and shows it.
    pub(super) async fn save(&mut self) -> Result<()> {
        let mut saved = Ok(());
        if std::mem::take(&mut self.dirty) {
            saved = self.ground.records.put(&self.key.file(), self.record.clone()).await;
            self.dirty = saved.is_err();
        }
        let now = view(&self.record, &self.machine, self.port.parent());
        let mut news = false;
        self.view.send_if_modified(|view| {
            let changed = *view != now;
            news = (view.is_live(), view.handed_on()) != (now.is_live(), now.handed_on());
            view.clone_from(&now);
            changed
        });
        if news {
            // Nobody listening is no error.
            let _ = self.ground.news.send(now);
        }
        saved
    }

    pub(super) async fn erase(&mut self) -> Result<()> {
        self.ground.records.remove(&self.key.file()).await
    }
}

/// The machine of a lease as it is remembered, at rest.
pub fn machine(record: &LeaseRecord, boot: &str) -> Machine {
    match &record.fixed {
        Some(fixed) => Machine::fixed(fixed),
        None => {
            let lease = record.lease.as_ref().map(|stored| stored.locate(boot));
            Machine::new(lease, record.wish, record.tenure == Tenure::Pinned)
        }
    }
}

/// A lease as others see it.
pub fn view(record: &LeaseRecord, machine: &Machine, parent: &str) -> LeaseView {
    let usable = machine.state().is_bound();
    // A stored lease that is not confirmed yet is shown too: it is what the container will get, or had.
    let grant = machine.lease().map(|lease| &lease.grant);
    LeaseView {
        network: record.network.clone(),
        parent: parent.to_owned(),
        mac: record.mac,
        hostname: record.hostname.clone(),
        pinned: record.tenure == Tenure::Pinned,
        state: machine.state(),
        address: grant.map(|g| g.address),
        prefix: grant.map(|g| g.prefix),
        gateway: grant.and_then(|g| g.gateway()),
        dns: grant.map(|g| g.dns.clone()).unwrap_or_default(),
        domain: grant.and_then(|g| g.domain.clone()),
        search: grant.map(Grant::search_list).unwrap_or_default(),
        ntp: grant.map(|g| g.ntp.clone()).unwrap_or_default(),
        server: grant.map(|g| g.server).filter(|server| !server.is_unspecified()),
        expires: record.lease.as_ref().filter(|_| usable || grant.is_some()).and_then(StoredLease::expires),
        attached: machine.attached(),
        ipv6: Vec::new(),
        last: record.journal.last().cloned(),
    }
}
