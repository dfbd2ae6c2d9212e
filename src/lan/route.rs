//! The routes of a container's interface, as its lease says.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;
use nix::libc;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope,
};

use super::lease::Route;
use super::lease::grant::same_subnet;
use super::link::{is, plain};
use super::netns::Netlink;

/// The kernel's form of a route out of interface `index`, marked as of DHCP (RTPROT_DHCP): so those of the person
/// inside are told from ours.
fn message(index: u32, route: &Route) -> RouteMessageBuilder<Ipv4Addr> {
    let message = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(route.destination, route.prefix)
        .output_interface(index)
        .protocol(RouteProtocol::Dhcp);
    match route.router.is_unspecified() {
        true => message.scope(RouteScope::Link),
        false => message.gateway(route.router),
    }
}

/// Sets a route, in the place of one to the same destination. A router outside the subnet of `own` is declared to be on
/// the link: the server says so by naming it.
pub async fn set(netlink: &Netlink, index: u32, own: (Ipv4Addr, u8), route: &Route) -> Result<()> {
    let message = match route.router.is_unspecified() || same_subnet(own.0, route.router, own.1) {
        true => message(index, route),
        false => message(index, route).onlink(),
    };
    let add = netlink.handle().route().add(message.build()).replace();
    add.execute().await.map_err(plain).with_context(|| format!("set the route {route}"))
}

/// Removes a route; one that is not there any more is no error.
pub async fn delete(netlink: &Netlink, index: u32, route: &Route) -> Result<()> {
    let mut message = message(index, route).build();
    // dockerd's own default route is another protocol's.
    message.header.protocol = RouteProtocol::Unspec;
    message.header.scope = RouteScope::NoWhere;
    match netlink.handle().route().del(message).execute().await {
        Err(e) if !is(&e, libc::ESRCH) && !is(&e, libc::ENODEV) => {
            Err(plain(e)).with_context(|| format!("remove the route {route}"))
        }
        _ => Ok(()),
    }
}

async fn all(netlink: &Netlink) -> Result<Vec<RouteMessage>> {
    let _turn = netlink.list().await;
    let get = netlink.handle().route().get(RouteMessageBuilder::<Ipv4Addr>::new().build());
    get.execute().try_collect().await.map_err(plain).context("list routes")
}

/// The routes out of an interface that are marked as of DHCP.
pub async fn ours(netlink: &Netlink, index: u32) -> Result<Vec<Route>> {
    Ok(all(netlink).await?.iter().filter_map(|message| read(message, index)).collect())
}

/// Whether there is a way to everywhere, by whichever interface.
pub async fn has_default(netlink: &Netlink) -> Result<bool> {
    let main = |message: &RouteMessage| message.header.table == RouteHeader::RT_TABLE_MAIN;
    Ok(all(netlink).await?.iter().any(|route| main(route) && route.header.destination_prefix_length == 0))
}

fn read(message: &RouteMessage, index: u32) -> Option<Route> {
    let header = &message.header;
    if header.protocol != RouteProtocol::Dhcp || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut destination, mut router, mut by) = (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => destination = *address,
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => router = *address,
            RouteAttribute::Oif(index) => by = Some(*index),
            _ => {}
        }
    }
    let prefix = header.destination_prefix_length;
    (by == Some(index)).then_some(Route { destination, prefix, router })
}
