//! The LAN driver in real namespaces, with the real kernel and a real DHCP server (dnsmasq). Each test is a host, a LAN
//! and a dockerd of its own; needs root, iproute2, util-linux, iputils-ping, busybox and dnsmasq.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "all of this is test code")]

mod dockerd;
mod doctor;
mod fault;
mod kernel;
mod lifetime;
mod reach;
mod renewal;
mod server;
mod world;
