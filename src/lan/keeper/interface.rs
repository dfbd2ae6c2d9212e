//! The container's interface, and the host's way to it, as the lease says.

use std::net::Ipv4Addr;

use anyhow::Result;

use super::Keeper;
use crate::lan::link;
use crate::lan::sandbox::{Inside, Setting};

impl Keeper {
    /// What the interface should have now.
    pub(super) fn setting(&self) -> Option<Setting> {
        let usable = self.machine.state().is_bound();
        self.machine.lease().filter(|_| usable).map(|lease| Setting {
            address: (lease.grant.address, lease.grant.prefix),
            routes: lease.grant.ways(),
            mtu: lease.grant.mtu,
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
        let old = endpoint.set;
        if old != new
            && let Some(sandbox) = &endpoint.sandbox
        {
            match self.change(sandbox, (old.as_ref(), new.as_ref())).await {
                Ok(false) => return,
                Ok(true) => {
                    let now = new.as_ref().map_or_else(|| "no address".to_owned(), Setting::says);
                    self.record.note(format!("the container's interface has {now}"));
                    if let Some(endpoint) = &mut self.record.endpoint {
                        endpoint.set.clone_from(&new);
                    }
                    self.dirty = true;
                }
                // The next renewal tries again.
                Err(error) => self.complain(format!("the container's interface was not changed: {error:#}")),
            }
        }
        self.reach(old.map(|old| old.address.0), new.map(|new| new.address.0)).await;
    }

    /// False: there is no such interface any more.
    async fn change(
        &mut self,
        sandbox: &str,
        (old, new): (Option<&Setting>, Option<&Setting>),
    ) -> Result<bool> {
        let Some(inside) = Inside::find(sandbox, self.record.mac).await? else { return Ok(false) };
        let parent = link::by_name(&self.ground.host.netlink, self.port.parent()).await?;
        let most = parent.map_or(u32::from(u16::MAX), |parent| parent.mtu);
        if let Some(mtu) = new.and_then(|new| new.mtu).filter(|mtu| u32::from(*mtu) > most) {
            self.complain(format!("the server wants an MTU of {mtu}, and {} has {most}", self.port.parent()));
        }
        inside.change(old, new, most).await?;
        Ok(true)
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
