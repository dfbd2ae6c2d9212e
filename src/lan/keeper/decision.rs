//! An event goes to the machine, and what it decides is done.

use super::Keeper;
use crate::lan::clock::Boottime;
use crate::lan::lease::{Action, Event, Identity, Packet};
use crate::lan::record::StoredLease;

impl Keeper {
    /// Lets the machine decide and does what it says.
    pub(super) async fn happen(&mut self, event: Event) {
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
                Action::Note(text) => self.complain(text),
            }
        }
        if moved {
            self.catch_up().await;
        }
        self.stand_guard().await;
        let next = [self.machine.deadline(), self.guard.deadline()].into_iter().flatten().min();
        if let Err(error) = self.timer.set(next) {
            tracing::error!(lease = %self.key.file(), "{error:#}");
        }
        let usable = self.setting().is_some_and(|setting| self.may_be_used(setting.address.0));
        if usable && !self.waiting.is_empty() {
            self.satisfy().await;
        } else if let Err(error) = self.save().await {
            tracing::error!(lease = %self.key.file(), "{error:#}");
        }
    }

    async fn send(&mut self, packet: &Packet) {
        let identity = Identity { mac: self.record.mac, hostname: self.record.hostname.clone() };
        let sent = self.port.send(&identity, packet).await;
        tracing::debug!(lease = %self.key.file(), ?packet, ok = sent.is_ok(), "sent");
        if let Err(error) = sent {
            self.complain(format!("{error:#}"));
        }
    }

    /// Notes what is wrong, once in a row: a parent that is away stays away for many tries.
    pub(super) fn complain(&mut self, text: String) {
        if self.record.journal.last().is_none_or(|last| last.text != text) {
            self.record.note(text);
            self.dirty = true;
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
        let before = self.record.lease.as_ref().map(|stored| stored.grant.handed_on());
        let now = grant.handed_on();
        // One line for all renewals in a row, else they are all the journal remembers.
        if self.record.journal.last().is_some_and(|last| last.text == text) {
            self.record.journal.pop();
        }
        self.record.wish = Some(grant.address);
        self.record.lease = Some(StoredLease::of(lease, &self.ground.boot));
        if before.is_some_and(|before| before != now) {
            tracing::info!(lease = %self.key.file(), "{now}");
            self.record.note(now);
        }
        self.record.note(text);
        self.fresh = self.record.endpoint.is_none();
        self.dirty = true;
    }
}
