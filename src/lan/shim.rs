//! Host ↔ container. A macvlan cannot talk to its parent, but it can talk to its siblings: so the host gets one of its
//! own for each parent, the shim, with a route to every lease and no address.
//!
//! Without `arp_filter` the shim would answer the LAN's ARP requests for the host's own address a second time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use tokio::sync::Mutex;
use tokio::sync::broadcast::error::RecvError;

use super::host::{Happening, Host, short_hash, without_ipv6};
use super::lease::grant::same_subnet;
use super::link::{self, Link, Macvlan};

const PREFIX: &str = "mshim-";
/// IFNAMSIZ without its final zero.
const LONGEST: usize = 15;

/// The shims and the routes that should be there.
pub struct Shims {
    host: Arc<Host>,
    /// Attached addresses by parent. A parent that is here has, or gets, a shim.
    wanted: Mutex<BTreeMap<String, BTreeSet<Ipv4Addr>>>,
}

impl Shims {
    /// With what is attached now, so that settling takes nothing away from a running container.
    pub fn new(host: Arc<Host>, attached: impl IntoIterator<Item = (String, Ipv4Addr)>) -> Shims {
        let mut wanted: BTreeMap<String, BTreeSet<Ipv4Addr>> = BTreeMap::new();
        for (parent, address) in attached {
            wanted.entry(parent).or_default().insert(address);
        }
        Shims { host, wanted: Mutex::new(wanted) }
    }

    /// Lets the host reach `address`. Returns what a person should know where that cannot be.
    pub async fn reach(&self, parent: &str, address: Ipv4Addr) -> Result<Option<String>> {
        let mut wanted = self.wanted.lock().await;
        let addresses = wanted.entry(parent.to_owned()).or_default();
        addresses.insert(address);
        let skipped = self.settle(parent, addresses).await.context("make the host reach its containers")?;
        Ok(skipped.contains(&address).then(|| {
            format!("this host has no address of {address}'s subnet on {parent}, so it cannot reach {address} itself")
        }))
    }

    /// Forgets the way to `address`.
    pub async fn leave(&self, parent: &str, address: Ipv4Addr) -> Result<()> {
        let mut wanted = self.wanted.lock().await;
        let Some(addresses) = wanted.get_mut(parent) else { return Ok(()) };
        addresses.remove(&address);
        self.settle(parent, addresses).await.map(drop)
    }

    /// Removes the shim of a parent that no network uses any more.
    pub async fn remove(&self, parent: &str) -> Result<()> {
        self.wanted.lock().await.remove(parent);
        match link::by_name(&self.host.netlink, &name(parent)).await?.filter(Link::is_macvlan) {
            Some(shim) => link::delete(&self.host.netlink, shim.index).await,
            None => Ok(()),
        }
    }

    /// Removes the shims of all parents but these: of networks that were deleted while nobody looked.
    pub async fn retain(&self, parents: &BTreeSet<String>) -> Result<()> {
        let names: BTreeSet<String> = parents.iter().map(|parent| name(parent)).collect();
        for stale in link::list(&self.host.netlink).await? {
            if stale.name.starts_with(PREFIX) && stale.is_macvlan() && !names.contains(&stale.name) {
                link::delete(&self.host.netlink, stale.index).await?;
            }
        }
        Ok(())
    }

    /// Puts back, for ever, what the host's changes take away: a parent that was replaced, a host address that came or
    /// went, a shim that somebody deleted.
    pub async fn watch(self: Arc<Self>) {
        let mut happenings = self.host.happenings();
        loop {
            self.settle_all().await;
            loop {
                match happenings.recv().await {
                    Ok(Happening::Address) | Err(RecvError::Lagged(_)) => break,
                    Ok(Happening::Appeared(link) | Happening::Vanished(link))
                        if self.concerns(&link).await =>
                    {
                        break;
                    }
                    Ok(_) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    async fn concerns(&self, link: &str) -> bool {
        self.wanted.lock().await.keys().any(|parent| parent == link || name(parent) == link)
    }

    async fn settle_all(&self) {
        let wanted = self.wanted.lock().await;
        for (parent, addresses) in wanted.iter() {
            if let Err(error) = self.settle(parent, addresses).await {
                tracing::warn!(%parent, "the host may not reach its containers: {error:#}");
            }
        }
    }

    /// Makes shim and routes what they should be, changing nothing that is right. Returns the addresses that the host
    /// has no address to talk to from.
    async fn settle(&self, parent: &str, addresses: &BTreeSet<Ipv4Addr>) -> Result<Vec<Ipv4Addr>> {
        let netlink = &self.host.netlink;
        // While the parent is away so is the LAN; its return is an event.
        let Some(parent) = link::by_name(netlink, parent).await? else { return Ok(Vec::new()) };
        let ours = link::ipv4(netlink, parent.index).await?;
        let (mut routes, mut skipped) = (Vec::new(), Vec::new());
        for &address in addresses {
            match ours.iter().find(|(own, prefix)| same_subnet(*own, address, *prefix)) {
                Some((own, _)) => routes.push((address, *own)),
                None => skipped.push(address),
            }
        }
        let shim = self.shim(&parent).await?;
        let present = link::host_routes(netlink, shim.index).await?;
        for (to, from) in routes.iter().filter(|route| !present.contains(route)) {
            link::forget_neighbour(netlink, shim.index, *to).await?;
            link::add_host_route(netlink, shim.index, *to, *from).await?;
        }
        for (to, from) in present.iter().filter(|(to, _)| !routes.iter().any(|(wanted, _)| wanted == to)) {
            link::delete_host_route(netlink, shim.index, *to, *from).await?;
        }
        Ok(skipped)
    }

    /// The parent's shim, made if it is missing or hangs on an earlier parent of the same name.
    async fn shim(&self, parent: &Link) -> Result<Link> {
        let netlink = &self.host.netlink;
        let name = name(&parent.name);
        match link::by_name(netlink, &name).await? {
            Some(shim) if shim.parent == Some(parent.index) && shim.up => return Ok(shim),
            Some(shim) if shim.parent == Some(parent.index) => {}
            Some(stale) => link::delete(netlink, stale.index).await?,
            None => {}
        }
        if link::by_name(netlink, &name).await?.is_none() {
            // The kernel invents its MAC: two hosts must not come to the same one.
            let new = Macvlan { name: &name, mac: None, parent: parent.index };
            link::add(netlink, &new).await?;
        }
        let off = format!("ipv6/conf/{name}/disable_ipv6");
        self.host.netns.sysctl(off, "1").await.or_else(without_ipv6)?;
        self.host.netns.sysctl(format!("ipv4/conf/{name}/arp_filter"), "1").await?;
        let shim = link::by_name(netlink, &name).await?.context("the new shim is not there")?;
        link::up(netlink, shim.index).await?;
        Ok(shim)
    }
}

/// What the shim of a parent is called.
pub fn name(parent: &str) -> String {
    match PREFIX.len() + parent.len() <= LONGEST {
        true => format!("{PREFIX}{parent}"),
        false => format!("{PREFIX}{}", &short_hash(parent)[..LONGEST - PREFIX.len()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shim_has_an_interface_s_name() {
        assert_eq!(name("eth0"), "mshim-eth0");
        assert_eq!(name("enp0s31f6u1u2x").len(), LONGEST);
        assert_ne!(name("enp0s31f6u1u2x"), name("enp0s31f6u1u2y"));
    }
}
