//! How an address goes: given back, refused by its server, found to be somebody else's, run out.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::MessageType;

use super::{Action, Machine, State};
use crate::lan::clock::Boottime;
use crate::lan::lease::grant::Lease;
use crate::lan::lease::packet::{Packet, To};
use crate::lan::lease::reply::Reply;
use crate::lan::lease::retry::backoff;
use crate::spec::Mac;

/// RFC 2131, 3.1.5, and RFC 5227, 1.1.
const AFTER_DECLINE: Duration = Duration::from_secs(10);
const MAX_CONFLICTS: u32 = 10;
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);

impl Machine {
    pub(super) fn release(&mut self, dice: u32, out: &mut Vec<Action>) {
        if let Some(Lease { grant, .. }) = self.lease.take() {
            out.push(Action::Send(Packet {
                kind: MessageType::Release,
                xid: dice,
                secs: 0,
                ciaddr: grant.address,
                requested: None,
                server: Some(grant.server),
                to: To::Server { address: grant.server, via: grant.via },
            }));
        }
        self.state = State::Init;
        self.wake = None;
    }

    pub(super) fn refused(&mut self, reply: Reply, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        let said = reply.message.map(|text| format!(": {text}")).unwrap_or_default();
        let why = format!("refused by the DHCP server{said}");
        match self.lease.take() {
            Some(lease) => out.push(Action::Lost { address: lease.grant.address, why }),
            None => out.push(Action::Note(why)),
        }
        self.wish = None;
        self.offer = None;
        self.naks += 1;
        if self.naks == 1 {
            return self.discover(now, dice, out);
        }
        // A server that offers and then refuses must not be asked as fast as it answers.
        self.state = State::Init;
        self.wake = Some(now.after(backoff(self.naks - 2, dice)));
    }

    /// Somebody else uses the address (RFC 2131, 3.1.5): the server learns it and grants another.
    pub(super) fn conflict(&mut self, by: Mac, now: Boottime, dice: u32, out: &mut Vec<Action>) {
        let Some(Lease { grant, .. }) = self.lease.take() else { return };
        out.push(Action::Send(Packet {
            kind: MessageType::Decline,
            xid: dice,
            secs: 0,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: Some(grant.address),
            server: Some(grant.server),
            to: To::Everybody,
        }));
        out.push(Action::Lost { address: grant.address, why: format!("{by} uses it too") });
        self.wish = None;
        self.offer = None;
        self.conflicts += 1;
        if self.conflicts == 1 {
            return self.discover(now, dice, out);
        }
        // "SHOULD wait a minimum of ten seconds" against loops; RFC 5227, 2.1.1: after ten, a minute.
        self.state = State::Init;
        let wait = if self.conflicts < MAX_CONFLICTS { AFTER_DECLINE } else { RATE_LIMIT_INTERVAL };
        self.wake = Some(now.after(wait));
    }

    pub(super) fn drop_expired(&mut self, now: Boottime, out: &mut Vec<Action>) {
        if self.lease.as_ref().is_some_and(|lease| lease.expired(now))
            && let Some(lease) = self.lease.take()
        {
            let why = "its lease ran out and no server renewed it".into();
            out.push(Action::Lost { address: lease.grant.address, why });
        }
    }
}
