//! The host's side of the LAN: its namespace, the links that wait there for dockerd, and what happens to its interfaces.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use rtnetlink::MulticastGroup;
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::packet_route::RouteNetlinkMessage;
use sha2::{Digest as _, Sha256};
use tokio::sync::broadcast::{self, error::TryRecvError};
use tokio_util::task::AbortOnDropHandle;

use super::link::{self, Link, Macvlan};
use super::netns::{Messages, Netlink, Netns};
use crate::report::{Fault, Kind};
use crate::spec::Mac;

/// How our links are called until dockerd renames them; nobody else's are.
const PREFIX: &str = "moor-";
/// Events that a slow listener may fall behind; after more it looks for itself.
const BACKLOG: usize = 64;

/// What happened to an interface of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Happening {
    Appeared(String),
    Vanished(String),
    /// Some interface got or lost an IPv4 address.
    Address,
}

/// What has happened to the host's interfaces since somebody looked.
pub struct Changes(broadcast::Receiver<Happening>);

impl Changes {
    /// Whether the interface `name` may be another one than when this was asked last.
    pub fn changed(&mut self, name: &str) -> bool {
        let mut changed = false;
        loop {
            match self.0.try_recv() {
                Ok(Happening::Appeared(other) | Happening::Vanished(other)) => changed |= other == name,
                Ok(Happening::Address) => {}
                Err(TryRecvError::Lagged(_)) => changed = true,
                Err(TryRecvError::Empty) => return changed,
                // Nobody tells any more.
                Err(TryRecvError::Closed) => return true,
            }
        }
    }
}

/// The host's network namespace, where dockerd looks for links and the parents are.
pub struct Host {
    pub netns: Netns,
    pub netlink: Arc<Netlink>,
    happenings: broadcast::Sender<Happening>,
    _listener: AbortOnDropHandle<()>,
}

impl Host {
    /// The namespace of the calling thread is taken for the host's.
    pub async fn open() -> Result<Host> {
        let netns = Netns::current()?;
        let (netlink, messages) = netns
            .netlink(&[MulticastGroup::Link, MulticastGroup::Ipv4Ifaddr])
            .await
            .context("connect to the kernel's network configuration")?;
        let (happenings, _) = broadcast::channel(BACKLOG);
        let listener = AbortOnDropHandle::new(tokio::spawn(listen(messages, happenings.clone())));
        Ok(Host { netns, netlink: Arc::new(netlink), happenings, _listener: listener })
    }

    /// What happens from now on.
    pub fn happenings(&self) -> broadcast::Receiver<Happening> {
        self.happenings.subscribe()
    }

    /// Whether something has happened to an interface since it was looked at, from now on.
    pub fn changes(&self) -> Changes {
        Changes(self.happenings())
    }

    /// The parent interface, if it is there and may carry macvlans now.
    pub async fn parent(&self, name: &str) -> Result<Link> {
        Host::fit(name, link::by_name(&self.netlink, name).await?)
    }

    fn fit(name: &str, found: Option<Link>) -> Result<Link> {
        let missing = || {
            Fault::new(Kind::Missing, format!("the parent interface {name} does not exist on this host"))
                .next("ip -brief link   # then: docker network create … -o parent=<one of these>")
        };
        let parent = found.ok_or_else(missing)?;
        if let Some(why) = link::unfit_as_parent(&parent) {
            let fault = Fault::new(Kind::Missing, format!("containers cannot be put on {name}")).why(why);
            let fault = fault.next(match parent.up {
                true => {
                    "moorage setup --parent with another interface: a wired one, a bond or a VLAN".to_owned()
                }
                false => format!("ip link set {name} up"),
            });
            return Err(fault.into());
        }
        Ok(parent)
    }

    /// Makes the link of an endpoint, or finds it. It waits in the host's namespace, down: a namespace of its own would
    /// hide it a little better from network managers, and cost some 30 ms for each start, since the kernel lets all
    /// processors come to rest when an interface moves. `worn`: a container had the MAC before and may not have let go of
    /// it yet. Then the link was up for a moment, deaf to ARP and without addresses, so the MAC is free on the parent;
    /// that costs some 10 ms, in which no other interface of the host can be changed.
    pub async fn hold(&self, name: &str, mac: Mac, parent: &str, worn: bool) -> Result<()> {
        let links = self.netlink.links().await?;
        let parent = Host::fit(parent, links.iter().find(|link| link.name == parent).cloned())?;
        let in_use = |why: String| {
            let fault = Fault::new(Kind::Failed, format!("the MAC {mac} is in use on {}", parent.name));
            fault.why(why).next(format!("docker ps -q | xargs docker inspect | grep -i {mac}"))
        };
        for other in links.iter().filter(|link| link.mac == Some(mac)) {
            if other.name == name {
                return Ok(());
            }
            if is_ours(other) {
                // Of an endpoint that dockerd has forgotten.
                link::delete(&self.netlink, other.index).await?;
            } else if other.parent == Some(parent.index) || other.index == parent.index {
                return Err(in_use(format!("{} has it", other.name)).into());
            }
        }
        link::add(&self.netlink, &Macvlan { name, mac: Some(mac), parent: parent.index }).await?;
        if !worn {
            return Ok(());
        }
        let held = link::by_name(&self.netlink, name).await?.context("the new interface is not there")?;
        // A link that is up must not ask routers for IPv6 addresses.
        let quiet = format!("ipv6/conf/{name}/disable_ipv6");
        self.netns.sysctl(quiet, "1").await.or_else(without_ipv6)?;
        if let Err(error) = link::prove_free(&self.netlink, held.index).await {
            let _ = link::delete(&self.netlink, held.index).await;
            return Err(in_use(format!("{error:#}")).into());
        }
        Ok(())
    }

    /// Whether a link is there for dockerd to take.
    pub async fn has(&self, name: &str) -> Result<bool> {
        Ok(link::by_name(&self.netlink, name).await?.is_some())
    }

    /// Deletes the link of an endpoint. One that is gone is no error.
    pub async fn discard(&self, name: &str) -> Result<()> {
        if let Some(link) = link::by_name(&self.netlink, name).await?.filter(is_ours) {
            link::delete(&self.netlink, link.index).await?;
        }
        Ok(())
    }

    /// Deletes every link of ours in the host's namespace that `known` does not claim.
    pub async fn collect(&self, known: impl Fn(&str) -> bool) -> Result<()> {
        for stale in link::list(&self.netlink).await?.into_iter().filter(|l| is_ours(l) && !known(&l.name)) {
            tracing::info!(link = %stale.name, "deleting an interface that no endpoint claims");
            link::delete(&self.netlink, stale.index).await?;
        }
        Ok(())
    }
}

/// The name of an endpoint's link: at most 15 bytes, the same for the same endpoint.
pub fn link_name(endpoint: &str) -> String {
    format!("{PREFIX}{}", short_hash(endpoint))
}

/// Ten hexadecimal digits of a name too long for an interface's.
pub fn short_hash(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..5].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn is_ours(link: &Link) -> bool {
    link.name.starts_with(PREFIX) && link.is_macvlan()
}

/// A kernel without IPv6 has no such settings, and needs none.
pub fn without_ipv6(error: anyhow::Error) -> Result<()> {
    match error.downcast_ref::<std::io::Error>() {
        Some(io) if io.kind() == std::io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

async fn listen(mut messages: Messages, happenings: broadcast::Sender<Happening>) {
    while let Some(message) = messages.next().await {
        let NetlinkPayload::InnerMessage(message) = message.payload else { continue };
        let happening = match message {
            RouteNetlinkMessage::NewLink(link) => Happening::Appeared(Link::read(&link).name),
            RouteNetlinkMessage::DelLink(link) => Happening::Vanished(Link::read(&link).name),
            RouteNetlinkMessage::NewAddress(_) | RouteNetlinkMessage::DelAddress(_) => Happening::Address,
            _ => continue,
        };
        // Nobody listening is no error.
        let _ = happenings.send(happening);
    }
}
