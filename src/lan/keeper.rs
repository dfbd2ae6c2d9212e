//! The task that keeps one lease: it feeds the machine with what happens and does what the machine says.

use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{mpsc, oneshot, watch};

use super::clock::{Boottime, Timer};
use super::dhcp::{Ear, Port};
use super::host::Host;
use super::lease::{Action, Event, Identity, Machine, Packet};
use super::record::{Endpoint, Key, LeaseRecord, StoredLease, Tenure};
use super::sandbox::{Inside, Setting};
use super::shim::Shims;
use super::view::LeaseView;
use crate::state::Records;

/// What all keepers share.
pub struct Ground {
    pub host: Arc<Host>,
    pub shims: Arc<Shims>,
    pub records: Records<LeaseRecord>,
    /// This boot's identity.
    pub boot: String,
}

/// No server answered in time, and no lease is left that could be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered;

/// What a keeper is told.
pub enum Command {
    /// Somebody wants the address; the answer comes when it is bound, or with [`Command::Deadline`].
    Acquire(oneshot::Sender<Result<LeaseView, Unanswered>>),
    Deadline,
    /// The name or tenure it is known by from now on.
    Describe(String, Tenure),
    /// An endpoint uses the lease. Answered when that is on disk.
    Claim(Endpoint, oneshot::Sender<Result<()>>),
    /// The endpoint's link is in its sandbox, and up. The endpoint's ID.
    Arrived(String),
    /// The endpoint with this ID uses it no longer. Answered when that is on disk.
    Leave(String, oneshot::Sender<Result<()>>),
    /// What is remembered of it now.
    Record(oneshot::Sender<Result<LeaseRecord>>),
    /// Tell the server and forget it.
    Release(oneshot::Sender<Result<()>>),
    /// Forget it if nobody uses it and there is nothing to lose.
    Forget,
}

/// One lease being kept.
pub struct Keeper {
    ground: Arc<Ground>,
    key: Key,
    record: LeaseRecord,
    machine: Machine,
    /// Bound since the last container left, so that the next one needs no packet.
    fresh: bool,
    port: Arc<Port>,
    ear: Ear,
    timer: Timer,
    commands: mpsc::Receiver<Command>,
    waiting: Vec<oneshot::Sender<Result<LeaseView, Unanswered>>>,
    view: watch::Sender<LeaseView>,
    /// Whether the record differs from what is on disk.
    dirty: bool,
}

/// Whether the keeper goes on.
enum Then {
    Continue,
    End,
}

impl Keeper {
    /// A keeper at rest, and how to watch it.
    pub fn new(
        ground: Arc<Ground>,
        record: LeaseRecord,
        port: Arc<Port>,
        commands: mpsc::Receiver<Command>,
    ) -> Result<(Keeper, watch::Receiver<LeaseView>)> {
        let lease = record.lease.as_ref().map(|stored| stored.locate(&ground.boot));
        let machine = Machine::new(lease, record.wish, record.tenure == Tenure::Pinned);
        let (view, watcher) = watch::channel(view(&record, &machine, port.parent()));
        let keeper = Keeper {
            key: Key::new(&record.network, record.mac),
            ear: port.listen(record.mac),
            timer: Timer::new()?,
            fresh: false,
            waiting: Vec::new(),
            dirty: record.journal.is_empty(),
            ground,
            record,
            machine,
            port,
            commands,
            view,
        };
        Ok((keeper, watcher))
    }

    /// Keeps the lease until it is released or forgotten. `adopt`: it was kept by an earlier process.
    pub async fn run(mut self, adopt: bool) {
        if adopt {
            self.adopt().await;
            if self.record.tenure == Tenure::Invented && self.is_idle() {
                self.happen(Event::Release).await;
                let _ = self.erase().await;
                return;
            }
        }
        loop {
            // Answers to an Acquire that nobody waits for any more.
            self.waiting.retain(|waiter| !waiter.is_closed());
            let event = tokio::select! {
                expired = self.timer.expired() => match expired {
                    Ok(()) => Event::Timer,
                    Err(error) => {
                        tracing::error!(lease = %self.key.file(), "{error:#}");
                        return;
                    }
                },
                Some(reply) = self.ear.recv() => Event::Reply(Box::new(reply)),
                command = self.commands.recv() => match command {
                    // The table dropped us: this process ends, and the lease goes on.
                    None => return,
                    Some(command) => match self.obey(command).await {
                        Then::Continue => continue,
                        Then::End => return,
                    },
                },
            };
            if event == Event::Timer {
                self.look_for_the_container().await;
            }
            self.happen(event).await;
            if self.machine.deadline().is_none() && self.machine.lease().is_none() && self.is_idle() {
                // A foreign container's lease ran out while it was stopped.
                let _ = self.erase().await;
                return;
            }
        }
    }

    /// Finds out what became of the container while no one looked.
    async fn adopt(&mut self) {
        let found = match self.record.endpoint.clone() {
            None => None,
            Some(Endpoint { sandbox: None, .. }) => None,
            Some(Endpoint { id, link, sandbox: Some(sandbox), .. }) => {
                match Inside::find(&sandbox, self.record.mac).await {
                    Ok(Some(inside)) => Some(inside),
                    Ok(None) => {
                        if !self.is_on_the_way(&link).await {
                            self.record.note("its container ended while moorage was away");
                            self.forget_endpoint().await;
                        } else {
                            tracing::debug!(endpoint = %id, "dockerd has not taken the link yet");
                        }
                        None
                    }
                    Err(error) => {
                        self.record.note(format!("cannot see its container: {error:#}"));
                        None
                    }
                }
            }
        };
        if let Some(inside) = found {
            self.settle_in(&inside).await;
            self.happen(Event::Attached).await;
        }
        self.happen(Event::Resume).await;
        self.catch_up().await;
    }

    /// Parks the lease of a container that ended without a word: after a crash dockerd says no Leave. No answer by
    /// unicast would reach it any more.
    async fn look_for_the_container(&mut self) {
        let sandbox = self.record.endpoint.as_ref().and_then(|endpoint| endpoint.sandbox.clone());
        if self.machine.attached()
            && let Some(sandbox) = sandbox
            && matches!(Inside::find(&sandbox, self.record.mac).await, Ok(None))
        {
            self.record.note("its container ended, and dockerd did not say so");
            self.forget_endpoint().await;
            self.happen(Event::Parked).await;
        }
    }

    async fn is_on_the_way(&self, link: &str) -> bool {
        matches!(super::link::by_name(&self.ground.host.netlink, link).await, Ok(Some(_)))
    }

    async fn obey(&mut self, command: Command) -> Then {
        match command {
            Command::Acquire(answer) => self.acquire(answer).await,
            Command::Deadline => {
                self.happen(Event::Deadline).await;
                for waiter in self.waiting.drain(..) {
                    let _ = waiter.send(Err(Unanswered));
                }
            }
            Command::Describe(hostname, tenure) => {
                if (&self.record.hostname, self.record.tenure) != (&hostname, tenure) {
                    (self.record.hostname, self.record.tenure) = (hostname, tenure);
                    self.machine.keep(tenure == Tenure::Pinned);
                    self.dirty = true;
                }
            }
            Command::Claim(endpoint, answer) => {
                let _ = answer.send(self.claim(endpoint).await);
            }
            Command::Arrived(endpoint) => self.arrived(&endpoint).await,
            Command::Leave(endpoint, answer) => {
                if self.record.endpoint.as_ref().is_some_and(|e| e.id == endpoint) {
                    self.record.note("its container stopped");
                    self.forget_endpoint().await;
                    self.happen(Event::Parked).await;
                }
                let _ = answer.send(self.save().await);
            }
            Command::Record(answer) => drop(answer.send(Ok(self.record.clone()))),
            Command::Release(answer) => {
                self.forget_endpoint().await;
                self.happen(Event::Release).await;
                let _ = answer.send(self.erase().await);
                return Then::End;
            }
            Command::Forget => {
                self.waiting.retain(|waiter| !waiter.is_closed());
                if self.machine.lease().is_none() && self.is_idle() {
                    let _ = self.erase().await;
                    return Then::End;
                }
            }
        }
        Then::Continue
    }

    fn is_idle(&self) -> bool {
        self.record.endpoint.is_none() && self.waiting.is_empty()
    }

    async fn acquire(&mut self, answer: oneshot::Sender<Result<LeaseView, Unanswered>>) {
        let usable = self.machine.state().is_bound() && self.machine.lease().is_some();
        if usable && (self.fresh || self.machine.attached()) {
            let _ = answer.send(Ok(self.view.borrow().clone()));
            return;
        }
        let asked = !self.waiting.is_empty();
        self.waiting.push(answer);
        if !asked {
            self.happen(Event::Start).await;
        }
    }

    async fn claim(&mut self, mut endpoint: Endpoint) -> Result<()> {
        let taken_over = self.record.endpoint.as_ref().is_some_and(|former| former.id != endpoint.id);
        if taken_over {
            // dockerd crashed and never said that the former one ended.
            self.forget_endpoint().await;
            self.happen(Event::Parked).await;
        }
        let known = self.record.endpoint.take();
        // What dockerd was told at CreateEndpoint is what it will set.
        let told = known.as_ref().and_then(|e| e.address).or(self.setting().map(|s| s.address));
        let gateway = known.and_then(|e| e.gateway).or(self.setting().and_then(|s| s.gateway));
        (endpoint.address, endpoint.gateway) = (told, gateway);
        match (&endpoint.sandbox, told) {
            (None, _) => self.record.note("given to a container"),
            // Already now, so that the host reaches the container as soon as the engine says that it runs.
            (Some(_), Some((address, _))) => self.reach(None, Some(address)).await,
            (Some(_), None) => {}
        }
        self.record.endpoint = Some(endpoint);
        self.fresh = false;
        self.dirty = true;
        self.save().await
    }

    async fn arrived(&mut self, endpoint: &str) {
        let Some(Endpoint { id, sandbox: Some(sandbox), .. }) = self.record.endpoint.clone() else { return };
        if id != endpoint {
            return;
        }
        match Inside::find(&sandbox, self.record.mac).await {
            Ok(Some(inside)) => self.settle_in(&inside).await,
            Ok(None) => return,
            Err(error) => self.record.note(format!("cannot see its container: {error:#}")),
        }
        self.record.note("its container runs");
        self.dirty = true;
        self.happen(Event::Attached).await;
    }

    async fn settle_in(&mut self, inside: &Inside) {
        if let Err(error) = inside.enable_ipv6().await {
            self.record.note(format!("no IPv6: {error:#}"));
        }
    }

    async fn forget_endpoint(&mut self) {
        self.fresh = false;
        if let Some(endpoint) = self.record.endpoint.take() {
            self.dirty = true;
            if let Some((address, _)) = endpoint.address
                && let Err(error) = self.ground.shims.leave(self.port.parent(), address).await
            {
                self.record.note(format!("{error:#}"));
            }
        }
    }

    /// Lets the machine decide and does what it says.
    async fn happen(&mut self, event: Event) {
        let attached = event == Event::Attached;
        let actions = self.machine.on(event, Boottime::now(), rand::random());
        let mut moved = attached;
        for action in actions {
            match action {
                Action::Send(packet) => self.send(&packet).await,
                Action::Bound => {
                    self.bound();
                    moved = true;
                }
                Action::Kept => {
                    self.record.note("no DHCP server answered; the address is used as its lease still runs");
                    self.dirty = true;
                    moved = true;
                }
                Action::Lost { address, why } => {
                    self.record.note(format!("{address} lost: {why}"));
                    self.record.lease = None;
                    self.fresh = false;
                    self.dirty = true;
                    moved = true;
                }
                Action::Note(text) => {
                    self.record.note(text);
                    self.dirty = true;
                }
            }
        }
        if let Err(error) = self.timer.set(self.machine.deadline()) {
            tracing::error!(lease = %self.key.file(), "{error:#}");
        }
        if moved {
            self.catch_up().await;
        }
        if let Err(error) = self.save().await {
            tracing::error!(lease = %self.key.file(), "{error:#}");
        }
        if self.machine.state().is_bound() && self.machine.lease().is_some() {
            let view = self.view.borrow().clone();
            for waiter in self.waiting.drain(..) {
                let _ = waiter.send(Ok(view.clone()));
            }
        }
    }

    async fn send(&mut self, packet: &Packet) {
        let identity = Identity { mac: self.record.mac, hostname: self.record.hostname.clone() };
        let sent = self.port.send(&identity, packet).await;
        tracing::debug!(lease = %self.key.file(), ?packet, ok = sent.is_ok(), "sent");
        if let Err(error) = sent {
            let text = format!("{error:#}");
            // A parent that is away stays away for many tries.
            if self.record.journal.last().is_none_or(|last| last.text != text) {
                self.record.note(text);
                self.dirty = true;
            }
        }
    }

    fn bound(&mut self) {
        let Some(lease) = self.machine.lease() else { return };
        let grant = &lease.grant;
        let before = self.record.lease.as_ref().map(|stored| stored.grant.address);
        let address = format!("{}/{}", grant.address, grant.prefix);
        let text = match before {
            Some(before) if before == grant.address => format!("{address} renewed by {}", grant.server),
            Some(before) => format!("{address} granted by {} instead of {before}", grant.server),
            None => format!("{address} granted by {}", grant.server),
        };
        // One line for all renewals in a row, else they are all the journal remembers.
        if self.record.journal.last().is_some_and(|last| last.text == text) {
            self.record.journal.pop();
        }
        self.record.wish = Some(grant.address);
        self.record.lease = Some(StoredLease::of(lease, &self.ground.boot));
        self.record.note(text);
        self.fresh = self.record.endpoint.is_none();
        self.dirty = true;
    }

    /// What the interface should have now.
    fn setting(&self) -> Option<Setting> {
        let usable = self.machine.state().is_bound();
        self.machine.lease().filter(|_| usable).map(|lease| Setting {
            address: (lease.grant.address, lease.grant.prefix),
            gateway: lease.grant.gateway(),
        })
    }

    /// Makes the container's interface, and the host's way to it, what the lease says.
    async fn catch_up(&mut self) {
        if !self.machine.attached() {
            return;
        }
        // While a lease is being confirmed its address stays.
        let new = match (self.setting(), self.machine.lease()) {
            (None, Some(_)) => return,
            (new, _) => new,
        };
        let Some(endpoint) = self.record.endpoint.clone() else { return };
        let old = endpoint.address.map(|address| Setting { address, gateway: endpoint.gateway });
        if old != new
            && let Some(sandbox) = &endpoint.sandbox
        {
            let changed = match Inside::find(sandbox, self.record.mac).await {
                Ok(Some(inside)) => inside.change(old, new).await,
                Ok(None) => return,
                Err(error) => Err(error),
            };
            match changed {
                Ok(()) => self.record.note("the container's interface was changed to it"),
                Err(error) => {
                    self.record.note(format!("the container's interface was not changed: {error:#}"))
                }
            }
            if let Some(endpoint) = &mut self.record.endpoint {
                endpoint.address = new.map(|new| new.address);
                endpoint.gateway = new.and_then(|new| new.gateway);
            }
            self.dirty = true;
        }
        self.reach(old.map(|old| old.address.0), new.map(|new| new.address.0)).await;
    }

    async fn reach(&mut self, old: Option<std::net::Ipv4Addr>, new: Option<std::net::Ipv4Addr>) {
        let parent = self.port.parent().to_owned();
        if let Some(old) = old.filter(|_| old != new)
            && let Err(error) = self.ground.shims.leave(&parent, old).await
        {
            self.record.note(format!("{error:#}"));
        }
        if let Some(new) = new {
            let note = match self.ground.shims.reach(&parent, new).await {
                Ok(note) => note,
                Err(error) => Some(format!("{error:#}")),
            };
            if let Some(note) = note
                && !self.record.journal.iter().any(|entry| entry.text == note)
            {
                tracing::warn!(lease = %self.key.file(), "{note}");
                self.record.note(note);
                self.dirty = true;
            }
        }
    }

    /// Puts the record on disk and shows it.
    async fn save(&mut self) -> Result<()> {
        let mut saved = Ok(());
        if std::mem::take(&mut self.dirty) {
            let (records, file, record) = (self.ground.records.clone(), self.key.file(), self.record.clone());
            saved = tokio::task::spawn_blocking(move || records.put(&file, &record))
                .await
                .unwrap_or_else(|error| Err(error.into()));
            self.dirty = saved.is_err();
        }
        let now = view(&self.record, &self.machine, self.port.parent());
        self.view.send_if_modified(|view| {
            let changed = *view != now;
            *view = now;
            changed
        });
        saved
    }

    async fn erase(&mut self) -> Result<()> {
        let (records, file) = (self.ground.records.clone(), self.key.file());
        tokio::task::spawn_blocking(move || records.remove(&file))
            .await
            .unwrap_or_else(|error| Err(error.into()))
    }
}

fn view(record: &LeaseRecord, machine: &Machine, parent: &str) -> LeaseView {
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
        server: grant.map(|g| g.server),
        expires: record.lease.as_ref().filter(|_| usable || grant.is_some()).and_then(StoredLease::expires),
        attached: machine.attached(),
        ipv6: Vec::new(),
        last: record.journal.last().cloned(),
    }
}
