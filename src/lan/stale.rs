//! Endpoints that dockerd has forgotten: it was killed, and the next one says neither Leave nor DeleteEndpoint.
//!
//! A container's own MAC finds its stale endpoint when it starts again. Here is what ends those that never do.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::{Lan, driver};
use crate::spec::Mac;

/// How long the kernel may take to clear a container's namespace away, and so its interface and its MAC.
const LET_GO: Duration = Duration::from_secs(60);

impl Lan {
    /// A container with this MAC ends.
    pub(super) fn leaves(&self, mac: Mac) {
        let mut left = self.left();
        left.retain(|_, at| at.elapsed() < LET_GO);
        left.insert(mac, Instant::now());
    }

    /// Whether a container that just ended may still have this MAC, though nothing else is known of it any more.
    pub(super) fn has_just_left(&self, mac: Mac) -> bool {
        self.left().get(&mac).is_some_and(|at| at.elapsed() < LET_GO)
    }

    /// dockerd's process made a call. When it is another one than before, [`Lan::engines`] hears of it.
    pub fn called_by(&self, pid: i32) {
        self.dockerd.send_if_modified(|known| known.replace(pid) != Some(pid));
    }

    /// The process id of the dockerd that called last, as it changes. None: none has called yet.
    pub fn engines(&self) -> watch::Receiver<Option<i32>> {
        self.dockerd.subscribe()
    }

    /// Lets go of every endpoint whose container is gone. Of use when a new dockerd has cleared away what the old one left.
    pub async fn collect_stale(self: &Arc<Self>) {
        let known: Vec<String> = self.endpoints().keys().cloned().collect();
        for endpoint in known {
            self.collect(&endpoint, false).await;
        }
    }

    /// Lets go of an endpoint unless dockerd takes its link in time.
    pub(super) fn expect_join(self: &Arc<Self>, endpoint: &str) {
        let (lan, id, patience) = (Arc::downgrade(self), endpoint.to_owned(), self.config.join_timeout);
        let wait = async move {
            tokio::time::sleep(patience).await;
            if let Some(lan) = lan.upgrade() {
                // On its own: the end of the endpoint ends this wait.
                tokio::spawn(async move { lan.collect(&id, true).await });
            }
        };
        self.arrivals().insert(endpoint.to_owned(), AbortOnDropHandle::new(tokio::spawn(wait)));
    }

    /// Does what dockerd would have said, if the endpoint's container is gone; or, with `unjoined`, never came.
    async fn collect(self: &Arc<Self>, endpoint: &str, unjoined: bool) {
        let collected = async {
            let Ok((handle, _)) = self.endpoint(endpoint) else { return anyhow::Ok(()) };
            if handle.is_over(endpoint, unjoined).await? {
                tracing::info!(%endpoint, "dockerd has forgotten it");
                driver::end(self.clone(), endpoint).await?;
            }
            Ok(())
        };
        let collected: Result<()> = collected.await;
        if let Err(error) = collected {
            tracing::warn!(%endpoint, "a stale endpoint stays: {error:#}");
        }
    }
}
