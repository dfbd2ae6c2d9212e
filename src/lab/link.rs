//! The veth pair and its addresses.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::namespace::inside;
use super::settings::{Settings, Subnet, kernel_has_ipv6};
use crate::spec::Mac;

/// The end of the pair that is in the namespace.
const LAN: &str = "lan0";

/// What there is of one end.
#[derive(Debug, Clone, Copy)]
pub struct End {
    pub mac: Option<Mac>,
    /// Up, and with the address it should have.
    pub set_up: bool,
}

/// The end on this host and the one in the namespace, as they are.
pub fn find(settings: &Settings, namespace: Option<&File>) -> Result<(Option<End>, Option<End>)> {
    let host = netlink(None, async |handle| end(&handle, &settings.parent(), &host(settings)).await)?;
    let lab = match namespace {
        Some(namespace) => {
            netlink(Some(namespace), async |handle| end(&handle, LAN, &inner(settings)).await)?
        }
        None => None,
    };
    Ok((host, lab))
}

/// The interface other than the lab's own whose addresses overlap with the lab's, and its network.
pub fn in_use(settings: &Settings) -> Result<Option<(String, Subnet)>> {
    netlink(None, async |handle| {
        let mut addresses = handle.address().get().execute();
        while let Some(message) = addresses.try_next().await.context("list addresses")? {
            let address = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(IpAddr::V4(address)) => Some(*address),
                _ => None,
            });
            let network = address.and_then(|address| Subnet::of(address, message.header.prefix_len));
            let Some(network) = network.filter(|network| network.overlaps(settings.subnet)) else { continue };
            let link = handle.link().get().match_index(message.header.index).execute().try_next().await;
            let link = link.context("look at an interface")?.and_then(|link| name(&link));
            if let Some(link) = link.filter(|link| *link != settings.parent()) {
                return Ok(Some((link, network)));
            }
        }
        Ok(None)
    })
}

/// Makes both ends at once, the second right in the namespace.
pub fn create(settings: &Settings, namespace: &File) -> Result<()> {
    let parent = settings.parent();
    netlink(None, async |handle| {
        let peer = LinkUnspec::new_with_name(LAN)
            .address(settings.mac("lab").0.to_vec())
            .setns_by_fd(namespace.as_raw_fd())
            .build();
        let pair = LinkMessageBuilder::<LinkVeth>::new_with_info_kind(InfoKind::Veth)
            .name(parent.clone())
            .address(settings.mac("host").0.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        handle.link().add(pair).execute().await.with_context(|| format!("make the interface {parent}"))
    })
}

/// The addresses of this host's end, with their prefix lengths.
fn host(settings: &Settings) -> [(IpAddr, u8); 1] {
    [(IpAddr::V4(settings.subnet.host()), settings.subnet.prefix)]
}

/// The addresses of the lab's own end.
fn inner(settings: &Settings) -> Vec<(IpAddr, u8)> {
    let six = kernel_has_ipv6().then(|| (IpAddr::V6(settings.router6()), 64));
    [(IpAddr::V4(settings.subnet.router()), settings.subnet.prefix)].into_iter().chain(six).collect()
}

/// Gives both ends their addresses and sets them up.
pub fn set_up(settings: &Settings, namespace: &File) -> Result<()> {
    netlink(Some(namespace), async |handle| {
        // A router: what has no way out is answered "unreachable" at once instead of being dropped.
        sysctl("ipv4/ip_forward", "1")?;
        if kernel_has_ipv6() {
            // Nobody else is there whose address it could be; router advertisements start at once.
            sysctl(&format!("ipv6/conf/{LAN}/accept_dad"), "0")?;
            sysctl("ipv6/conf/all/forwarding", "1")?;
        }
        up(&handle, "lo", &[]).await?;
        up(&handle, LAN, &inner(settings)).await
    })?;
    netlink(None, async |handle| up(&handle, &settings.parent(), &host(settings)).await)
}

/// Removes the host's end, and with it the other; none is no error. An interface with another MAC is not ours.
pub fn remove(settings: &Settings) -> Result<()> {
    netlink(None, async |handle| {
        let Some(link) = link(&handle, &settings.parent()).await? else { return Ok(()) };
        if mac(&link) != Some(settings.mac("host")) {
            return Ok(());
        }
        let removed = handle.link().del(link.header.index).execute().await;
        removed.with_context(|| format!("remove the interface {}", settings.parent()))
    })
}

/// Runs `work` with a netlink connection in `namespace`, or here.
fn netlink<T: Send>(
    namespace: Option<&File>,
    work: impl AsyncFnOnce(Handle) -> Result<T> + Send,
) -> Result<T> {
    inside(namespace, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a runtime for netlink")?;
        runtime.block_on(async {
            let (connection, handle, _) = rtnetlink::new_connection().context("open a netlink socket")?;
            let connection = tokio::spawn(connection);
            let result = work(handle).await;
            connection.abort();
            result
        })
    })
}

async fn link(handle: &Handle, name: &str) -> Result<Option<LinkMessage>> {
    match handle.link().get().match_name(name).execute().try_next().await {
        Ok(link) => Ok(link),
        Err(rtnetlink::Error::NetlinkError(error))
            if error.raw_code() == -rustix::io::Errno::NODEV.raw_os_error() =>
        {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("look for the interface {name}")),
    }
}

async fn end(handle: &Handle, name: &str, wanted: &[(IpAddr, u8)]) -> Result<Option<End>> {
    let Some(link) = link(handle, name).await? else { return Ok(None) };
    let mut addresses = handle.address().get().set_link_index_filter(link.header.index).execute();
    let mut missing: Vec<IpAddr> = wanted.iter().map(|(address, _)| *address).collect();
    while let Some(message) = addresses.try_next().await.context("list addresses")? {
        missing.retain(|address| !message.attributes.contains(&AddressAttribute::Address(*address)));
    }
    let set_up = missing.is_empty() && link.header.flags.contains(LinkFlags::Up);
    Ok(Some(End { mac: mac(&link), set_up }))
}

async fn up(handle: &Handle, name: &str, addresses: &[(IpAddr, u8)]) -> Result<()> {
    let index =
        link(handle, name).await?.with_context(|| format!("there is no interface {name}"))?.header.index;
    for (address, prefix) in addresses {
        let added = handle.address().add(index, *address, *prefix).replace().execute().await;
        added.with_context(|| format!("give {name} the address {address}"))?;
    }
    let message = LinkUnspec::new_with_index(index).up().build();
    handle.link().set(message).execute().await.with_context(|| format!("set {name} up"))
}

fn mac(link: &LinkMessage) -> Option<Mac> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })
}

fn name(link: &LinkMessage) -> Option<String> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })
}

/// Writes `/proc/sys/net/<key>` of the thread's network namespace.
fn sysctl(key: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/net/{key}");
    std::fs::write(&path, value).with_context(|| format!("write {path}"))
}
