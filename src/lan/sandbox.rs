//! A container's network namespace, entered from the host.

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use rtnetlink::MulticastGroup;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use super::host::{Happening, Host, without_ipv6};
use super::lease::Route;
use super::link::{self, Link};
use super::netns::{Netlink, Netns};
use super::route;
use crate::spec::Mac;

/// The longest that a default route is waited for which dockerd was told of: by then root inside has taken it away.
const ROUTED: Duration = Duration::from_secs(10);

/// What an interface is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    pub address: (Ipv4Addr, u8),
    /// Beside the kernel's own to the subnet.
    pub routes: Vec<Route>,
    /// Bytes; none: the parent's.
    pub mtu: Option<u16>,
}

impl Setting {
    /// In words.
    pub fn says(&self) -> String {
        let mtu = self.mtu.map(|mtu| format!("MTU {mtu}"));
        let routes = self.routes.iter().map(Route::to_string);
        let parts = [format!("{}/{}", self.address.0, self.address.1)].into_iter().chain(routes).chain(mtu);
        parts.collect::<Vec<_>>().join(", ")
    }
}

/// A container's interface on the LAN, by its MAC, as Docker renames it.
pub struct Inside {
    netns: Netns,
    netlink: Netlink,
    link: Link,
}

impl Inside {
    /// The interface with `mac` in the namespace at `path`; none where one of the two is not there.
    pub async fn find(path: &str, mac: Mac) -> Result<Option<Inside>> {
        let Some(netns) = Netns::open(Path::new(path))? else { return Ok(None) };
        let (netlink, _) = netns.netlink(&[]).await?;
        let link = link::by_mac(&netlink, mac).await?;
        Ok(link.map(|link| Inside { netns, netlink, link }))
    }

    /// Whether dockerd has done all it does: the interface is up and, where it was told of a router, there is a default
    /// route. With several networks that may be another one's.
    pub async fn is_set_up(&self, routed: bool) -> Result<bool> {
        Ok(self.link.up && (!routed || route::has_default(&self.netlink).await?))
    }

    /// Waits until dockerd has taken `link` from the host into the namespace at `path` and set it up: an address that
    /// goes earlier takes the subnet away through which dockerd's route leads, and the container would not start.
    /// `happenings` must be older than the link's arrival on the host; `routed`: dockerd was told of a router.
    ///
    /// False: the link never came there.
    pub async fn arrival(
        host: &Host,
        mut happenings: broadcast::Receiver<Happening>,
        (name, mac): (&str, Mac),
        path: &str,
        routed: bool,
    ) -> Result<bool> {
        while link::by_name(&host.netlink, name).await?.is_some() {
            loop {
                match happenings.recv().await {
                    Ok(Happening::Vanished(gone)) if gone == name => break,
                    Ok(_) => {}
                    Err(RecvError::Lagged(_) | RecvError::Closed) => break,
                }
            }
        }
        let Some(netns) = Netns::open(Path::new(path))? else { return Ok(false) };
        let (netlink, mut messages) =
            netns.netlink(&[MulticastGroup::Link, MulticastGroup::Ipv4Route]).await?;
        let silent = "the kernel says no more about a container's interfaces";
        while !link::by_mac(&netlink, mac).await?.is_some_and(|link| link.up) {
            messages.next().await.context(silent)?;
        }
        let set_up = async {
            while routed && !route::has_default(&netlink).await? {
                messages.next().await.context(silent)?;
            }
            anyhow::Ok(())
        };
        if let Ok(set_up) = tokio::time::timeout(ROUTED, set_up).await {
            set_up?;
        }
        Ok(true)
    }

    /// Turns IPv6 on, which Docker turns off on an interface that it gives no IPv6 address: the kernel then finds the
    /// LAN's prefix by itself (SLAAC).
    pub async fn enable_ipv6(&self) -> Result<()> {
        let setting = format!("ipv6/conf/{}/disable_ipv6", self.link.name);
        self.netns.sysctl(setting, "0").await.or_else(without_ipv6)
    }

    /// Replaces what was set by what is to be, without a moment in which the container has no address. May be repeated
    /// after it failed half-way. `parent_mtu`: what the interface has where the lease says nothing, and never more.
    pub async fn change(&self, old: Option<&Setting>, new: Option<&Setting>, parent_mtu: u32) -> Result<()> {
        let (netlink, index) = (&self.netlink, self.link.index);
        if let Some(new) = new {
            // Else a second address of the same subnet goes with the first.
            let promote = format!("ipv4/conf/{}/promote_secondaries", self.link.name);
            self.netns.sysctl(promote, "1").await?;
            link::add_ipv4(netlink, index, new.address).await?;
            if new.mtu != old.and_then(|old| old.mtu) {
                let mtu = new.mtu.map_or(parent_mtu, |mtu| parent_mtu.min(mtu.into()));
                link::set_mtu(netlink, index, mtu).await?;
            }
            for route in &new.routes {
                route::set(netlink, index, new.address, route).await?;
            }
            let told = old.map(|old| old.routes.as_slice()).unwrap_or_default();
            let present = route::ours(netlink, index).await?;
            let to = |route: &Route| (route.destination, route.prefix);
            for stale in present.iter().chain(told) {
                match new.routes.iter().find(|wanted| to(wanted) == to(stale)) {
                    // Replaced above.
                    Some(_) => {}
                    None => route::delete(netlink, index, stale).await?,
                }
            }
        }
        if let Some(old) = old
            && new.is_none_or(|new| new.address != old.address)
        {
            // With its last address the kernel takes the interface's routes away too.
            link::delete_ipv4(netlink, index, old.address).await?;
        }
        Ok(())
    }

    /// The IPv6 addresses that routers of the LAN made it choose.
    pub async fn ipv6(&self) -> Result<Vec<std::net::Ipv6Addr>> {
        link::ipv6(&self.netlink, self.link.index).await
    }
}
