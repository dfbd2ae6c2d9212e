//! What is sent to servers, and when it is sent again.

use std::net::Ipv4Addr;

use dhcproto::v4::MessageType;

use super::{Action, Exchange, Machine, State};
use crate::lan::clock::Boottime;
use crate::lan::lease::grant::Lease;
use crate::lan::lease::packet::{Packet, To};
use crate::lan::lease::retry::{backoff, halfway};

impl Machine {
    pub(super) fn discover(&mut self, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        self.begin(State::Selecting, now, dice);
        self.transmit(now, dice, out);
    }

    pub(super) fn begin(&mut self, state: State, now: Boottime, dice: u32) {
        self.state = state;
        self.offer = None;
        self.exchange = Exchange { xid: dice, began: now, requested: now, tries: 0 };
    }

    /// Sends what the state says and sets the alarm for its answer.
    pub(super) fn transmit(&mut self, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        let Some(packet) = self.packet(now) else { return };
        out.push(Action::Send(packet));
        let expiry = self.lease.as_ref().and_then(Lease::expiry);
        let wake = match self.state {
            State::Renewing => halfway(now, self.lease.as_ref().and_then(Lease::t2)),
            State::Rebinding => halfway(now, expiry),
            // A short wait, as somebody waits for the container and an old lease will do.
            State::Rebooting => now.after(backoff(0, dice)),
            _ => now.after(backoff(self.exchange.tries, dice)),
        };
        self.wake = Some(expiry.map_or(wake, |end| wake.min(end)));
        self.exchange.tries += 1;
    }

    pub(super) fn packet(&self, now: Boottime) -> Option<Packet> {
        let held = self.lease.as_ref().map(|lease| &lease.grant);
        let base = Packet {
            kind: MessageType::Request,
            xid: self.exchange.xid,
            secs: now.since(self.exchange.began).as_secs().min(u64::from(u16::MAX)) as u16,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server: None,
            to: To::Everybody,
        };
        Some(match self.state {
            State::Init | State::Bound | State::Static => return None,
            State::Selecting => Packet { kind: MessageType::Discover, requested: self.wish, ..base },
            State::Requesting => {
                let offer = self.offer.as_ref()?;
                Packet { requested: Some(offer.address), server: Some(offer.server), ..base }
            }
            State::Rebooting => Packet { requested: Some(held?.address), ..base },
            State::Renewing | State::Rebinding if !self.attached => {
                Packet { requested: Some(held?.address), ..base }
            }
            State::Renewing => {
                let held = held?;
                let to = To::Server { address: held.server, via: held.via };
                Packet { ciaddr: held.address, to, ..base }
            }
            State::Rebinding => Packet { ciaddr: held?.address, ..base },
        })
    }
}
