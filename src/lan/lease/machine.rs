//! The lease state machine of RFC 2131, 4.4, for an address that may be in use (attached to a container) or kept for
//! one that is stopped (parked).
//!
//! A parked lease is renewed too, in the form of INIT-REBOOT: nobody answers ARP for a parked address, so a server's
//! unicast answer would not arrive, and a server may check.
//!
//! Here is what it does on each event; `asking` has what it sends, `ending` how an address goes.

mod asking;
mod ending;

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::grant::{Grant, Lease};
use super::packet::Packet;
use super::reply::{Answer, Reply};
use super::retry::{backoff, halfway};
use crate::lan::clock::Boottime;
use crate::spec::{Fixed, Mac};

/// Unanswered transmissions before a REQUEST for an offer is given up for a new DISCOVER (RFC 2131, 3.1: "four times,
/// for a total delay of 60 seconds").
const REQUEST_TRIES: u32 = 4;
/// Unanswered INIT-REBOOT requests before a lease that is still good is used as it is (RFC 2131, 3.2).
const REBOOT_TRIES: u32 = 2;

/// Where a lease stands (RFC 2131, figure 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    Init,
    Selecting,
    Requesting,
    Rebooting,
    Bound,
    Renewing,
    Rebinding,
    /// A person chose the address: no server knows of it.
    Static,
}

impl State {
    /// Whether the address may be used.
    pub fn is_bound(self) -> bool {
        matches!(self, State::Bound | State::Renewing | State::Rebinding | State::Static)
    }
}

/// What happens to a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants the address: confirm the one we have, or find one.
    Start,
    /// This process took the lease over from its predecessor; no one waits.
    Resume,
    /// A server answered.
    Reply(Box<Reply>),
    /// [`Machine::deadline`] has come.
    Timer,
    /// Who waits for the address waits no longer: use what may be used.
    Deadline,
    /// A container has the address.
    Attached,
    /// No container has it now.
    Parked,
    /// The address turned out to be used by this other machine.
    Conflict(Mac),
    /// The address turned out to be used by nobody else.
    Clear,
    /// Nobody will want it again.
    Release,
}

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    Send(Packet),
    /// [`Machine::lease`] is new, or renewed, and may be used.
    Bound,
    /// [`Machine::lease`] may be used as it is: no server answered, and its time is not over.
    Kept,
    /// The address must not be used any more.
    Lost {
        address: Ipv4Addr,
        why: String,
    },
    /// For the journal.
    Note(String),
}

/// One request and its retransmissions.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    xid: u32,
    began: Boottime,
    /// When the message whose answer grants was first sent.
    requested: Boottime,
    tries: u32,
}

/// One lease. `dice` in its calls is a fresh random number.
#[derive(Debug, Clone)]
pub struct Machine {
    state: State,
    lease: Option<Lease>,
    offer: Option<Grant>,
    /// The address to ask for when discovering.
    wish: Option<Ipv4Addr>,
    attached: bool,
    /// Whether it is renewed while parked.
    keeps: bool,
    exchange: Exchange,
    /// NAKs since the last ACK.
    naks: u32,
    /// Addresses that others used, since the last one that was ours alone.
    conflicts: u32,
    wake: Option<Boottime>,
}

impl Machine {
    /// A machine at rest with what is remembered. `keeps`: renew while parked; otherwise a parked lease just ends.
    pub fn new(lease: Option<Lease>, wish: Option<Ipv4Addr>, keeps: bool) -> Machine {
        let zero = Boottime(Duration::ZERO);
        Machine {
            state: State::Init,
            wish: lease.as_ref().map(|l| l.grant.address).or(wish),
            lease,
            offer: None,
            attached: false,
            keeps,
            exchange: Exchange { xid: 0, began: zero, requested: zero, tries: 0 },
            naks: 0,
            conflicts: 0,
            wake: None,
        }
    }

    /// A machine for an address that needs no server, ever.
    pub fn fixed(fixed: &Fixed) -> Machine {
        let lease =
            Lease { grant: Grant::fixed(fixed), granted: Boottime(Duration::ZERO), spent: Duration::ZERO };
        Machine { state: State::Static, lease: Some(lease), ..Machine::new(None, None, true) }
    }

    pub fn state(&self) -> State {
        self.state
    }

    /// The lease, to be used only while [`State::is_bound`].
    pub fn lease(&self) -> Option<&Lease> {
        self.lease.as_ref()
    }

    pub fn attached(&self) -> bool {
        self.attached
    }

    /// Whether it is renewed while parked from now on.
    pub fn keep(&mut self, keeps: bool) {
        self.keeps = keeps;
    }

    /// When [`Event::Timer`] is due.
    pub fn deadline(&self) -> Option<Boottime> {
        self.wake
    }

    pub fn on(&mut self, event: Event, now: Boottime, dice: u32) -> Vec<Action> {
        let mut out = Vec::new();
        if self.state == State::Static {
            self.stay(event, &mut out);
            return out;
        }
        match event {
            Event::Start => self.start(now, dice, &mut out),
            Event::Resume => self.resume(now, dice, &mut out),
            Event::Reply(reply) => self.answered(*reply, now, dice, &mut out),
            Event::Timer if self.wake.is_some_and(|wake| now >= wake) => self.timer(now, dice, &mut out),
            Event::Timer => {}
            Event::Deadline => self.hurry(now, dice, &mut out),
            Event::Attached | Event::Parked => {
                self.attached = event == Event::Attached;
                if self.state == State::Bound {
                    self.rest(now, dice, &mut out);
                } else if !self.attached && !self.keeps && self.lease.is_none() {
                    // It was still looking for an address, for a container that nobody will tell it of again.
                    self.state = State::Init;
                    self.wake = None;
                }
            }
            Event::Conflict(by) => self.conflict(by, now, dice, &mut out),
            Event::Clear => self.conflicts = 0,
            Event::Release => self.release(dice, &mut out),
        }
        out
    }

    /// What happens to an address that a person chose.
    fn stay(&mut self, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Attached | Event::Parked => self.attached = event == Event::Attached,
            Event::Conflict(by) => {
                let address =
                    self.lease.as_ref().map(|lease| lease.grant.address.to_string()).unwrap_or_default();
                out.push(Action::Note(format!(
                    "{by} uses {address} too, which was chosen by hand: one of the two has to change"
                )));
            }
            Event::Release => {
                self.lease = None;
                self.state = State::Init;
            }
            _ => {}
        }
    }

    fn start(&mut self, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        self.drop_expired(now, out);
        match self.lease {
            Some(_) => {
                self.begin(State::Rebooting, now, dice);
                self.transmit(now, dice, out);
            }
            None => self.discover(now, dice, out),
        }
    }

    fn resume(&mut self, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        self.drop_expired(now, out);
        match (&self.lease, self.attached) {
            // Its container runs and uses the address: ask at once whether that is still right.
            (Some(_), true) => {
                self.begin(State::Renewing, now, dice);
                self.transmit(now, dice, out);
            }
            (Some(_), false) => self.rest(now, dice, out),
            (None, true) => self.discover(now, dice, out),
            (None, false) if self.keeps => self.discover(now, dice, out),
            (None, false) => {}
        }
    }

    fn hurry(&mut self, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        if self.state == State::Rebooting && self.lease.is_some() {
            self.fall_back(now, dice, out);
        }
    }

    fn timer(&mut self, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        if self.lease.as_ref().is_some_and(|lease| lease.expired(now)) {
            self.drop_expired(now, out);
            if !self.attached && !self.keeps {
                self.state = State::Init;
                self.wake = None;
                return;
            }
            return self.discover(now, dice, out);
        }
        match self.state {
            State::Init => self.discover(now, dice, out),
            State::Selecting => self.transmit(now, dice, out),
            State::Requesting if self.exchange.tries >= REQUEST_TRIES => {
                out.push(Action::Note("the server offered an address and then fell silent".into()));
                self.discover(now, dice, out);
            }
            State::Rebooting if self.exchange.tries >= REBOOT_TRIES => self.fall_back(now, dice, out),
            State::Requesting | State::Rebooting => self.transmit(now, dice, out),
            State::Bound => self.rest(now, dice, out),
            State::Renewing if self.past_t2(now) => self.rest(now, dice, out),
            State::Renewing | State::Rebinding => self.transmit(now, dice, out),
            State::Static => {}
        }
    }

    fn answered(&mut self, reply: Reply, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        if reply.xid != self.exchange.xid {
            return;
        }
        match (self.state, reply.answer) {
            (State::Selecting, Answer::Offer) => {
                if let Some(offer) = reply.grant {
                    self.offer = Some(offer);
                    self.state = State::Requesting;
                    self.exchange.tries = 0;
                    self.exchange.requested = now;
                    self.transmit(now, dice, out);
                }
            }
            (State::Requesting | State::Rebooting | State::Renewing | State::Rebinding, Answer::Ack) => {
                if let Some(grant) = reply.grant {
                    self.bind(grant, now, dice, out);
                }
            }
            (State::Requesting, Answer::Nak) => {
                let chosen = self.offer.as_ref().map(|o| o.server);
                // Another server may say no to what it did not offer.
                if reply.server.is_unspecified() || chosen == Some(reply.server) {
                    self.refused(reply, now, dice, out);
                }
            }
            (State::Rebooting | State::Renewing | State::Rebinding, Answer::Nak) => {
                self.refused(reply, now, dice, out);
            }
            _ => {}
        }
    }

    fn bind(&mut self, grant: Grant, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        self.wish = Some(grant.address);
        self.lease = Some(Lease { grant, granted: self.exchange.requested, spent: Duration::ZERO });
        self.offer = None;
        self.naks = 0;
        self.state = State::Bound;
        out.push(Action::Bound);
        self.rest(now, dice, out);
    }

    /// No server answers, and the lease is still good.
    fn fall_back(&mut self, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        self.state = State::Bound;
        out.push(Action::Kept);
        // Not `rest`: after T1 it would only repeat at once what nobody answered.
        let end = self.lease.as_ref().and_then(Lease::expiry);
        self.wake = match self.lease.as_ref().and_then(Lease::t1) {
            Some(t1) if t1 > now => Some(t1),
            _ => end.map(|end| halfway(now, Some(end))).or(Some(now.after(backoff(4, dice)))),
        };
    }

    fn past_t2(&self, now: Boottime) -> bool {
        self.lease.as_ref().and_then(Lease::t2).is_some_and(|t2| now >= t2)
    }

    /// Goes to where a good lease stands at `now`: bound, renewing or rebinding.
    fn rest(&mut self, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        let Some(lease) = &self.lease else { return };
        if !self.attached && !self.keeps {
            self.state = State::Bound;
            self.wake = lease.expiry();
            return;
        }
        let next = match lease.t1() {
            Some(t1) if now >= t1 && self.past_t2(now) => State::Rebinding,
            Some(t1) if now >= t1 => State::Renewing,
            t1 => {
                self.state = State::Bound;
                self.wake = t1;
                return;
            }
        };
        self.begin(next, now, dice);
        self.transmit(now, dice, out);
    }
}
