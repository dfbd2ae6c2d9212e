//! Interfaces, their addresses and routes, by netlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use futures_util::TryStreamExt as _;
use nix::libc;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope};
use rtnetlink::packet_route::link::{
    InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use rtnetlink::packet_route::neighbour::{NeighbourAddress, NeighbourAttribute, NeighbourMessage};
use rtnetlink::packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteScope};
use rtnetlink::{AddressMessageBuilder, LinkMacVlan, LinkUnspec, RouteMessageBuilder};

use super::netns::Netlink;
use crate::spec::Mac;

/// How often, and after which wait in milliseconds each, a MAC is tried that its last user has not let go of yet.
/// Together a little over three seconds.
const BUSY_WAITS: [u64; 9] = [5, 10, 25, 50, 100, 250, 500, 1000, 1200];

/// What we know of an interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Option<Mac>,
    pub up: bool,
    pub loopback: bool,
    /// `macvlan`, `bridge`, …; nothing for a real device.
    pub kind: Option<String>,
    /// The interface it hangs on. Of another namespace perhaps.
    pub parent: Option<u32>,
    /// The bridge or bond it is a port of.
    pub master: Option<u32>,
    /// The longest packet it takes, bytes.
    pub mtu: u32,
    /// The tag of a VLAN's sub-interface.
    pub vlan: Option<u16>,
}

impl Link {
    pub fn read(message: &LinkMessage) -> Link {
        let flags = message.header.flags;
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            mac: None,
            up: flags.contains(LinkFlags::Up),
            loopback: flags.contains(LinkFlags::Loopback),
            kind: None,
            parent: None,
            master: None,
            mtu: 0,
            vlan: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
                LinkAttribute::Link(index) => link.parent = Some(*index),
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::LinkInfo(infos) => {
                    link.kind = infos.iter().find_map(|info| match info {
                        LinkInfo::Kind(kind) => Some(kind.to_string()),
                        _ => None,
                    });
                    link.vlan = infos.iter().find_map(|info| match info {
                        LinkInfo::Data(InfoData::Vlan(tags)) => tags.iter().find_map(|tag| match tag {
                            InfoVlan::Id(id) => Some(*id),
                            _ => None,
                        }),
                        _ => None,
                    });
                }
                _ => {}
            }
        }
        link
    }

    pub fn is_macvlan(&self) -> bool {
        self.kind.as_deref() == Some("macvlan")
    }
}

/// The error number of a netlink answer.
fn errno(error: &rtnetlink::Error) -> Option<i32> {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.code.map(|code| -code.get()),
        _ => None,
    }
}

/// Whether the kernel answered with this error.
pub fn is(error: &rtnetlink::Error, number: i32) -> bool {
    errno(error) == Some(number)
}

/// The kernel's words without the library's around them.
pub fn plain(error: rtnetlink::Error) -> anyhow::Error {
    match errno(&error) {
        Some(number) => anyhow!(std::io::Error::from_raw_os_error(number)),
        None => anyhow!(error),
    }
}

/// Every interface of the namespace, asked for now. [`Netlink::links`] is the same for those who are many.
pub async fn list(netlink: &Netlink) -> Result<Vec<Link>> {
    let _turn = netlink.list().await;
    let links = netlink.handle().link().get().execute();
    let links: Vec<LinkMessage> = links.try_collect().await.map_err(plain).context("list the interfaces")?;
    Ok(links.iter().map(Link::read).collect())
}

/// The interface called `name`.
pub async fn by_name(netlink: &Netlink, name: &str) -> Result<Option<Link>> {
    let mut found = std::pin::pin!(netlink.handle().link().get().match_name(name).execute());
    match found.try_next().await {
        Ok(message) => Ok(message.as_ref().map(Link::read)),
        Err(e) if is(&e, libc::ENODEV) => Ok(None),
        Err(e) => Err(plain(e)).with_context(|| format!("look for interface {name}")),
    }
}

/// The interface that carries `mac` and was made as a macvlan.
pub async fn by_mac(netlink: &Netlink, mac: Mac) -> Result<Option<Link>> {
    Ok(list(netlink).await?.into_iter().find(|link| link.mac == Some(mac) && link.is_macvlan()))
}

/// A macvlan to be made.
#[derive(Debug)]
pub struct Macvlan<'a> {
    pub name: &'a str,
    /// None: the kernel invents one.
    pub mac: Option<Mac>,
    /// Index of the parent in the namespace that `netlink` is in.
    pub parent: u32,
}

/// Makes a macvlan in bridge mode, down.
pub async fn add(netlink: &Netlink, new: &Macvlan<'_>) -> Result<()> {
    let mut message = LinkMacVlan::new(new.name, new.parent, MacVlanMode::Bridge);
    if let Some(mac) = new.mac {
        message = message.address(mac.0.to_vec());
    }
    let made = netlink.handle().link().add(message.build()).execute().await;
    made.map_err(plain).with_context(|| format!("make interface {}", new.name))
}

/// Takes an interface up.
pub async fn up(netlink: &Netlink, index: u32) -> Result<()> {
    let message = LinkUnspec::new_with_index(index).up().build();
    netlink.handle().link().set(message).execute().await.map_err(plain).context("take an interface up")
}

/// Sets the longest packet of an interface, bytes.
pub async fn set_mtu(netlink: &Netlink, index: u32, mtu: u32) -> Result<()> {
    let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
    let set = netlink.handle().link().set(message).execute().await;
    set.map_err(plain).with_context(|| format!("set the MTU to {mtu}"))
}

/// Takes a macvlan up and down again: up is when the kernel finds out whether its MAC is free on the parent. Meanwhile
/// it answers no ARP, since it would answer for the host.
///
/// A container that just ended holds its MAC until the kernel has cleared its namespace away, and tells nobody when
/// that is: hence the tries with growing waits.
pub async fn prove_free(netlink: &Netlink, index: u32) -> Result<()> {
    let mut waits = BUSY_WAITS.iter();
    loop {
        let message = LinkUnspec::new_with_index(index).arp(false).up().build();
        match netlink.handle().link().set(message).execute().await {
            Ok(()) => break,
            Err(e) if is(&e, libc::EBUSY) || is(&e, libc::EADDRINUSE) => match waits.next() {
                Some(&wait) => tokio::time::sleep(Duration::from_millis(wait)).await,
                None => return Err(plain(e)),
            },
            Err(e) => return Err(plain(e)).context("take an interface up"),
        }
    }
    let message = LinkUnspec::new_with_index(index).down().arp(true).build();
    netlink.handle().link().set(message).execute().await.map_err(plain).context("take an interface down")
}

/// Deletes an interface; one that is not there any more is no error.
pub async fn delete(netlink: &Netlink, index: u32) -> Result<()> {
    match netlink.handle().link().del(index).execute().await {
        Err(e) if !is(&e, libc::ENODEV) => Err(plain(e)).context("delete an interface"),
        _ => Ok(()),
    }
}

async fn address_messages(netlink: &Netlink, index: u32) -> Result<Vec<AddressMessage>> {
    let _turn = netlink.list().await;
    let get = netlink.handle().address().get().set_link_index_filter(index);
    get.execute().try_collect().await.map_err(plain).context("list addresses")
}

/// IPv4 addresses of an interface with their prefix lengths.
pub async fn ipv4(netlink: &Netlink, index: u32) -> Result<Vec<(Ipv4Addr, u8)>> {
    let messages = address_messages(netlink, index).await?;
    let local = |message: &AddressMessage| {
        let local = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
        local.map(|address| (address, message.header.prefix_len))
    };
    Ok(messages.iter().filter_map(local).collect())
}

/// Global IPv6 addresses of an interface that may be used (duplicate detection is over).
pub async fn ipv6(netlink: &Netlink, index: u32) -> Result<Vec<Ipv6Addr>> {
    let messages = address_messages(netlink, index).await?;
    let usable = |message: &AddressMessage| {
        let flags = message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
        let pending = AddressFlags::Tentative | AddressFlags::Dadfailed;
        message.header.scope == AddressScope::Universe
            && !flags.unwrap_or(AddressFlags::empty()).intersects(pending)
    };
    let address = |message: &AddressMessage| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
            _ => None,
        })
    };
    Ok(messages.iter().filter(|m| usable(m)).filter_map(address).collect())
}

/// Gives an interface an address; one it has already is no error.
pub async fn add_ipv4(netlink: &Netlink, index: u32, (address, prefix): (Ipv4Addr, u8)) -> Result<()> {
    let add = netlink.handle().address().add(index, address.into(), prefix).replace();
    add.execute().await.map_err(plain).with_context(|| format!("set address {address}/{prefix}"))
}

/// Takes an address away; one that is not there any more is no error.
pub async fn delete_ipv4(netlink: &Netlink, index: u32, (address, prefix): (Ipv4Addr, u8)) -> Result<()> {
    let message = AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(address, prefix).build();
    match netlink.handle().address().del(message).execute().await {
        Err(e) if !is(&e, libc::EADDRNOTAVAIL) && !is(&e, libc::ENODEV) => {
            Err(plain(e)).with_context(|| format!("remove address {address}/{prefix}"))
        }
        _ => Ok(()),
    }
}

fn host_route(index: u32, to: Ipv4Addr, from: Ipv4Addr) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(to, 32)
        .output_interface(index)
        .pref_source(from)
        .scope(RouteScope::Link)
        .build()
}

/// Routes the single address `to` out of an interface, with our own address `from`.
pub async fn add_host_route(netlink: &Netlink, index: u32, to: Ipv4Addr, from: Ipv4Addr) -> Result<()> {
    let add = netlink.handle().route().add(host_route(index, to, from)).replace();
    add.execute().await.map_err(plain).with_context(|| format!("route {to}"))
}

/// Removes such a route; one that is not there any more is no error.
pub async fn delete_host_route(netlink: &Netlink, index: u32, to: Ipv4Addr, from: Ipv4Addr) -> Result<()> {
    match netlink.handle().route().del(host_route(index, to, from)).execute().await {
        Err(e) if !is(&e, libc::ESRCH) && !is(&e, libc::ENODEV) => {
            Err(plain(e)).with_context(|| format!("remove the route to {to}"))
        }
        _ => Ok(()),
    }
}

/// The single-address routes out of an interface: where to, and from which address of ours.
pub async fn host_routes(netlink: &Netlink, index: u32) -> Result<Vec<(Ipv4Addr, Ipv4Addr)>> {
    let _turn = netlink.list().await;
    let get = netlink.handle().route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
    let messages: Vec<RouteMessage> =
        get.execute().try_collect().await.map_err(plain).context("list routes")?;
    let mut routes = Vec::new();
    for message in messages.iter().filter(|m| m.header.destination_prefix_length == 32) {
        let (mut to, mut from, mut by) = (None, None, None);
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(*address),
                RouteAttribute::PrefSource(RouteAddress::Inet(address)) => from = Some(*address),
                RouteAttribute::Oif(index) => by = Some(*index),
                _ => {}
            }
        }
        // The kernel's own routes for local addresses are in another table.
        let main = message.header.table == rtnetlink::packet_route::route::RouteHeader::RT_TABLE_MAIN;
        if let (Some(to), Some(from), true) = (to, from, main && by == Some(index)) {
            routes.push((to, from));
        }
    }
    Ok(routes)
}

/// What a parent may not be, as the reason why.
pub fn unfit_as_parent(link: &Link) -> Option<String> {
    let name = &link.name;
    match link.kind.as_deref() {
        _ if link.loopback => Some(format!("{name} is the loopback interface")),
        Some(kind @ ("macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "bridge")) => {
            Some(format!("{name} is a {kind}, and a macvlan needs an interface that leads to the LAN itself"))
        }
        _ if link.master.is_some() => Some(format!("{name} is a port of a bridge or bond")),
        _ if !link.up => Some(format!("{name} is down")),
        _ => None,
    }
}

/// Forgets the MAC that the host remembers for an address: another container had it before. None is no error.
pub async fn forget_neighbour(netlink: &Netlink, index: u32, address: Ipv4Addr) -> Result<()> {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.attributes.push(NeighbourAttribute::Destination(NeighbourAddress::Inet(address)));
    match netlink.handle().neighbours().del(message).execute().await {
        Err(e) if !is(&e, libc::ENOENT) => {
            Err(plain(e)).with_context(|| format!("forget the MAC of {address}"))
        }
        _ => Ok(()),
    }
}
