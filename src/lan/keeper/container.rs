//! The container that uses the lease: it comes, is found again after our restart, and goes.

use anyhow::Result;

use super::Keeper;
use crate::lan::lease::Event;
use crate::lan::link;
use crate::lan::record::Endpoint;
use crate::lan::sandbox::Inside;

impl Keeper {
    /// Finds out what became of the container while no one looked.
    pub(super) async fn adopt(&mut self) {
        if let Some(endpoint) = self.record.endpoint.clone()
            && let Some(sandbox) = &endpoint.sandbox
        {
            match Inside::find(sandbox, self.record.mac).await {
                // One that dockerd still sets up will be told of.
                Ok(Some(inside)) => {
                    if inside.is_set_up(endpoint.is_routed()).await.unwrap_or(true) {
                        self.settle_in(&inside).await;
                        self.happen(Event::Attached).await;
                    }
                }
                Ok(None) if self.is_on_the_way(&endpoint.link).await => {
                    tracing::debug!(endpoint = %endpoint.id, "dockerd has not taken the link yet");
                }
                Ok(None) => {
                    self.record.note("its container ended while moorage was away");
                    self.forget_endpoint().await;
                }
                Err(error) => self.record.note(format!("cannot see its container: {error:#}")),
            }
        }
        self.happen(Event::Resume).await;
        self.catch_up().await;
    }

    /// Parks the lease of a container that ended without a word: after a crash dockerd says no Leave. No answer by
    /// unicast would reach it any more.
    pub(super) async fn look_for_the_container(&mut self) {
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

    /// Whether the endpoint's container is gone; `unjoined`: one that never came counts.
    pub(super) async fn is_over(&self, id: &str, unjoined: bool) -> Result<bool> {
        let Some(endpoint) = self.record.endpoint.as_ref().filter(|endpoint| endpoint.id == id) else {
            // Another one has the lease by now.
            return Ok(true);
        };
        match &endpoint.sandbox {
            None => Ok(unjoined),
            Some(sandbox) => Ok(Inside::find(sandbox, self.record.mac).await?.is_none()
                && !self.is_on_the_way(&endpoint.link).await),
        }
    }

    async fn is_on_the_way(&self, link: &str) -> bool {
        matches!(link::by_name(&self.ground.host.netlink, link).await, Ok(Some(_)))
    }

    pub(super) async fn claim(&mut self, endpoint: Endpoint) -> Result<()> {
        let taken_over = self.record.endpoint.as_ref().is_some_and(|former| former.id != endpoint.id);
        if taken_over {
            // dockerd crashed and never said that the former one ended.
            self.forget_endpoint().await;
            self.happen(Event::Parked).await;
        }
        // Already now, so that the host reaches the container as soon as the engine says that it runs.
        if let (Some(_), Some(address)) = (&endpoint.sandbox, endpoint.address()) {
            self.reach(None, Some(address)).await;
        }
        self.take_in(endpoint);
        if self.machine.deadline().is_none() && self.machine.lease().is_none() {
            // The search ended with the former container's.
            self.happen(Event::Start).await;
        }
        self.save().await
    }

    /// From now on the lease is this endpoint's.
    pub(super) fn take_in(&mut self, endpoint: Endpoint) {
        match (&endpoint.sandbox, endpoint.address()) {
            (None, Some(_)) => self.record.note("given to a container"),
            (None, None) => self.record.note("a container starts without an address, until a server answers"),
            (Some(_), _) => {}
        }
        self.record.worn |= endpoint.sandbox.is_some();
        self.record.endpoint = Some(endpoint);
        self.fresh = false;
        self.dirty = true;
    }

    pub(super) async fn arrived(&mut self, endpoint: &str) {
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

    pub(super) async fn forget_endpoint(&mut self) {
        self.fresh = false;
        if let Some(endpoint) = self.record.endpoint.take() {
            self.dirty = true;
            if let Some(address) = endpoint.address()
                && let Err(error) = self.ground.shims.leave(self.port.parent(), address).await
            {
                self.record.note(format!("{error:#}"));
            }
        }
    }
}
