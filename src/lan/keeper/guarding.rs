//! The address is proved to be ours alone, announced and defended, while a container has it (RFC 5227).

use std::net::Ipv4Addr;

use super::Keeper;
use crate::lan::clock::Boottime;
use crate::lan::lease::{Arp, Event, State, Step};
use crate::spec::network::ConflictCheck;

impl Keeper {
    /// Puts the guard where it belongs now: to the address that a container has or, on a strict site, is to get.
    pub(super) async fn stand_guard(&mut self) {
        let address = self.setting().map(|setting| setting.address.0);
        if self.proved.is_some() && self.proved != address {
            self.proved = None;
        }
        let check = self.ground.conflict_check;
        let awaited = check == ConflictCheck::Before && !self.waiting.is_empty();
        let free = address.filter(|address| self.contested != Some(*address));
        let wanted = free.filter(|_| self.machine.attached() || awaited);
        let probe = check != ConflictCheck::Off && self.proved != wanted;
        self.guard.post(wanted, probe, Boottime::now());
        let watched = wanted.filter(|_| check != ConflictCheck::Off);
        if let Err(error) = self.ear.watch(watched).await {
            self.complain(format!("conflicts of addresses are not noticed: {error:#}"));
        }
    }

    /// Whether those who wait for the address may have it.
    pub(super) fn may_be_used(&self, address: Ipv4Addr) -> bool {
        self.ground.conflict_check != ConflictCheck::Before || self.proved == Some(address)
    }

    /// Its alarm may have gone off.
    pub(super) async fn look_out(&mut self) {
        for step in self.guard.on_timer(self.machine.attached(), Boottime::now(), rand::random()) {
            self.take(step).await;
        }
    }

    pub(super) async fn heard(&mut self, arp: &Arp) {
        let in_use = self.machine.attached();
        if let Some(step) = self.guard.heard(arp, in_use, Boottime::now()) {
            self.take(step).await;
            if let Err(error) = self.save().await {
                tracing::error!(lease = %self.key.file(), "{error:#}");
            }
        }
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Probe(address) => self.ask(Ipv4Addr::UNSPECIFIED, address).await,
            Step::Announce(address) => self.ask(address, address).await,
            Step::Clear(address) => {
                self.proved = Some(address);
                self.happen(Event::Clear).await;
            }
            Step::Conflict(address, by) => {
                tracing::warn!(lease = %self.key.file(), %address, %by, "the address is in use by another machine");
                if self.machine.state() == State::Static {
                    self.contested = Some(address);
                }
                self.happen(Event::Conflict(by)).await;
                if self.contested.is_some() {
                    // On a strict site it must not be used.
                    self.disappoint();
                }
            }
            Step::Defended(address, by) => {
                self.ask(address, address).await;
                self.complain(format!("{by} said that {address} is its own; it was told that it is not"));
            }
        }
    }

    async fn ask(&mut self, sender: Ipv4Addr, target: Ipv4Addr) {
        if let Err(error) = self.port.ask(self.record.mac, sender, target).await {
            self.complain(format!("{error:#}"));
        }
    }
}
