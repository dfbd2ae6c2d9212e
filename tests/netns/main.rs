//! The LAN driver in real namespaces, with the real kernel and real DHCP servers. Each test is a host, a LAN and a
//! dockerd of its own; needs root, iproute2, util-linux, iputils-ping, busybox, dnsmasq, udhcpd and
//! kea-dhcp4.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is test code")]

mod arp;
mod dhcpd;
mod dockerd;
mod doctor;
mod fault;
mod fixed;
mod fuzz;
mod kernel;
mod lifetime;
mod matrix;
mod options;
#[path = "../../src/lan/dhcp/packet_socket.rs"]
#[allow(dead_code, unsafe_code, reason = "only its address, which no crate in the tree can make safely")]
mod packet_socket;
mod process;
mod reach;
mod renewal;
mod server;
mod takeover;
mod vlan;
mod wire;
mod world;
