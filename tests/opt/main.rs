//! The `/opt` store against the real kernel: overlay and bind mounts in a private mount namespace, archives of every hostile
//! sort, a real HTTP server on the loopback, people who are only numbers. Needs root, and fails without.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod binds;
mod driver;
mod fetching;
mod freeze;
mod hostile;
mod pack;
mod registry;
mod server;
mod spool;
mod trust;
mod volumes;
mod waiting;
mod world;
