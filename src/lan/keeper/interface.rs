//! The container's interface, and the host's way to it, as the lease says.

use std::net::Ipv4Addr;

use super::Keeper;
use crate::lan::sandbox::{Inside, Setting};

impl Keeper {
    /// What the interface should have now.
    pub(super) fn setting(&self) -> Option<Setting> {
        let usable = self.machine.state().is_bound();
        self.machine.lease().filter(|_| usable).map(|lease| Setting {
            address: (lease.grant.address, lease.grant.prefix),
            gateway: lease.grant.gateway(),
        })
    }

    /// Makes the container's interface, and the host's way to it, what the lease says.
    pub(super) async fn catch_up(&mut self) {
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

    pub(super) async fn reach(&mut self, old: Option<Ipv4Addr>, new: Option<Ipv4Addr>) {
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
}
