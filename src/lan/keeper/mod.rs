//! The task that keeps one lease: it feeds the machine with what happens and does what the machine says.
//!
//! Here is its loop and what it is told; `container` follows the container that uses the lease, `decision` carries out
//! what the machine decides, `guarding` proves the address, `interface` makes the container's interface so, `memory` writes down and shows.

mod container;
mod decision;
mod guarding;
mod interface;
mod memory;

use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::clock::{Boottime, Timer};
use super::dhcp::{Ear, Heard, Port};
use super::host::Host;
use super::lease::{Event, Guard, Machine};
use super::record::{Endpoint, Key, LeaseRecord, Tenure};
use super::sandbox::Setting;
use super::shim::Shims;
use super::view::LeaseView;
use crate::spec::Fixed;
use crate::spec::network::ConflictCheck;
use crate::state::Batched;

/// What all keepers share.
pub struct Ground {
    pub host: Arc<Host>,
    pub shims: Arc<Shims>,
    pub records: Batched<LeaseRecord>,
    /// This boot's identity.
    pub boot: String,
    pub conflict_check: ConflictCheck,
    /// Hears of every lease whose container came or went, or is to get other names or time servers.
    pub news: broadcast::Sender<LeaseView>,
}

/// No server answered in time, and no lease is left that could be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unanswered;

/// What a keeper is told.
pub enum Command {
    /// Somebody wants the address; the answer comes when it is bound, or with [`Command::Deadline`].
    Acquire(Waiter),
    Deadline,
    /// Name and tenure it is known by from now on, and the address that a person chose. Answered when that is so.
    Describe(String, Tenure, Option<Fixed>, oneshot::Sender<()>),
    /// An endpoint uses the lease. Answered when that is on disk.
    Claim(Endpoint, oneshot::Sender<Result<()>>),
    /// The endpoint's link is in its sandbox, and up. The endpoint's ID.
    Arrived(String),
    /// The endpoint with this ID uses it no longer. Answered when that is on disk.
    Leave(String, oneshot::Sender<Result<()>>),
    /// Whether the container of the endpoint with this ID is gone; `true`: one that never came counts.
    IsOver(String, bool, oneshot::Sender<Result<bool>>),
    /// What is remembered of it now.
    Record(oneshot::Sender<Result<LeaseRecord>>),
    /// Tell the server and forget it.
    Release(oneshot::Sender<Result<()>>),
    /// Forget it if nobody uses it and there is nothing to lose.
    Forget,
}

/// Who waits for an address.
pub struct Waiter {
    /// The endpoint that will use it, to be written down together with it.
    pub endpoint: Option<Endpoint>,
    pub answer: oneshot::Sender<Result<Acquired, Unanswered>>,
}

/// An address that may be used, on disk.
#[derive(Debug, Clone)]
pub struct Acquired {
    pub view: LeaseView,
    /// Whether the endpoint was written down, too. It was not where a former one has to end first.
    pub claimed: bool,
}

/// One lease being kept.
pub struct Keeper {
    ground: Arc<Ground>,
    key: Key,
    record: LeaseRecord,
    machine: Machine,
    guard: Guard,
    /// The address that nobody else was found to have.
    proved: Option<Ipv4Addr>,
    /// A chosen address that somebody else has too; to go on claiming it would help nobody.
    contested: Option<Ipv4Addr>,
    /// Bound since the last container left, so that the next one needs no packet.
    fresh: bool,
    port: Arc<Port>,
    ear: Ear,
    timer: Timer,
    commands: mpsc::Receiver<Command>,
    waiting: Vec<Waiter>,
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
        let machine = memory::machine(&record, &ground.boot);
        let (view, watcher) = watch::channel(memory::view(&record, &machine, port.parent()));
        let keeper = Keeper {
            key: Key::new(&record.network, record.mac),
            ear: port.listen(record.mac),
            timer: Timer::new()?,
            guard: Guard::new(record.mac),
            proved: None,
            contested: None,
            fresh: false,
            waiting: Vec::new(),
            // There is nothing to remember before a server grants something or a container comes.
            dirty: false,
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
            self.waiting.retain(|waiter| !waiter.answer.is_closed());
            let was_for_nothing = self.is_for_nothing();
            tokio::select! {
                expired = self.timer.expired() => match expired {
                    Ok(()) => self.wake().await,
                    Err(error) => {
                        tracing::error!(lease = %self.key.file(), "{error:#}");
                        return;
                    }
                },
                Some(heard) = self.ear.recv() => match heard {
                    Heard::Reply(reply) => self.happen(Event::Reply(reply)).await,
                    Heard::Arp(arp) => self.heard(&arp).await,
                },
                command = self.commands.recv() => match command {
                    // The table dropped us: this process ends, and the lease goes on.
                    None => return,
                    Some(command) => match self.obey(command).await {
                        Then::Continue => continue,
                        Then::End => return,
                    },
                },
            }
            // A foreign container's lease ran out while it was stopped. Whoever has just opened it will say what it is for.
            if self.is_for_nothing() && !was_for_nothing {
                let _ = self.erase().await;
                return;
            }
        }
    }

    /// The alarm has gone off: the machine's, the guard's, or both.
    async fn wake(&mut self) {
        self.look_out().await;
        if self.machine.deadline().is_some_and(|at| Boottime::now() >= at) {
            self.look_for_the_container().await;
        }
        self.happen(Event::Timer).await;
    }

    async fn obey(&mut self, command: Command) -> Then {
        match command {
            Command::Acquire(waiter) => self.acquire(waiter).await,
            Command::Deadline => {
                self.happen(Event::Deadline).await;
                // On a strict site an address that a server gave is still being proved, which ends by itself.
                if !self.is_usable() {
                    self.disappoint();
                }
            }
            Command::Describe(hostname, tenure, fixed, heard) => {
                if self.record.fixed != fixed {
                    self.rededicate(fixed).await;
                }
                if (&self.record.hostname, self.record.tenure) != (&hostname, tenure) {
                    (self.record.hostname, self.record.tenure) = (hostname, tenure);
                    self.machine.keep(tenure == Tenure::Pinned);
                    self.dirty = true;
                }
                let _ = heard.send(());
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
            Command::IsOver(endpoint, unjoined, answer) => {
                let _ = answer.send(self.is_over(&endpoint, unjoined).await);
            }
            Command::Record(answer) => drop(answer.send(Ok(self.record.clone()))),
            Command::Release(answer) => {
                self.forget_endpoint().await;
                self.happen(Event::Release).await;
                let _ = answer.send(self.erase().await);
                return Then::End;
            }
            Command::Forget => {
                self.waiting.retain(|waiter| !waiter.answer.is_closed());
                if self.machine.lease().is_none() && self.is_idle() {
                    let _ = self.erase().await;
                    return Then::End;
                }
            }
        }
        Then::Continue
    }

    /// Whether there is an address by the machine's word.
    fn is_usable(&self) -> bool {
        self.machine.state().is_bound() && self.machine.lease().is_some()
    }

    /// Whether there is no lease, nobody who wants one, and none is sought.
    fn is_for_nothing(&self) -> bool {
        self.machine.deadline().is_none() && self.machine.lease().is_none() && self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.record.endpoint.is_none() && self.waiting.is_empty()
    }

    /// From now on with another chosen address, or with one of a server.
    async fn rededicate(&mut self, fixed: Option<Fixed>) {
        self.happen(Event::Release).await;
        self.record.fixed = fixed;
        self.record.lease = None;
        self.machine = memory::machine(&self.record, &self.ground.boot);
        self.fresh = false;
        self.dirty = true;
    }

    async fn acquire(&mut self, waiter: Waiter) {
        let at_once = self.is_usable() && (self.fresh || self.machine.attached());
        let asked = !self.waiting.is_empty();
        self.waiting.push(waiter);
        if at_once {
            self.satisfy().await;
            return;
        }
        self.contested = None;
        if !asked {
            self.happen(Event::Start).await;
        }
    }

    /// Gives the address to all who wait for it, when all that they are told is on disk.
    pub(super) async fn satisfy(&mut self) {
        let set = self.setting().map(|setting| Setting { routes: Vec::new(), mtu: None, ..setting });
        let mut satisfied = Vec::new();
        self.waiting.retain(|waiter| !waiter.answer.is_closed());
        for Waiter { endpoint, answer } in std::mem::take(&mut self.waiting) {
            let claimed = endpoint.is_some_and(|endpoint| {
                let free = self.record.endpoint.as_ref().is_none_or(|former| former.id == endpoint.id);
                if free {
                    self.take_in(Endpoint { set: set.clone(), ..endpoint });
                }
                free
            });
            satisfied.push((claimed, answer));
        }
        let saved = self.save().await.map_err(|error| tracing::error!(lease = %self.key.file(), "{error:#}"));
        for (claimed, answer) in satisfied {
            // One that is not on disk is claimed again, which says why it cannot be.
            let claimed = claimed && saved.is_ok();
            let _ = answer.send(Ok(Acquired { view: self.view.borrow().clone(), claimed }));
        }
    }

    /// Nobody who waits gets an address.
    pub(super) fn disappoint(&mut self) {
        for waiter in self.waiting.drain(..) {
            let _ = waiter.answer.send(Err(Unanswered));
        }
    }
}
