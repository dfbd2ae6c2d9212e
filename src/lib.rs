//! moorage: every project or branch its own full machine in a container on the company LAN.
//!
//! Edges point down only; `tests/layers.rs` keeps it so:
//! `report`, `state` ← `spec` ← `oci` ← `opt` and `spec` ← `site`, `lan`, `opt`, `engine`, `api` ← `image`, `container` ← `daemon`, verbs ← `cli`.
//! `service` ← `registry` ← verbs.
//! `lan` and `opt` never use `engine`: dockerd calls them while it holds its own locks.

pub mod apart;
pub mod api;
pub mod checkout;
pub mod cli;
pub mod container;
pub mod containerauthor;
pub mod daemon;
pub mod dockeruser;
pub mod engine;
pub mod failpoint;
pub mod image;
pub mod invocation;
pub mod lab;
pub mod lan;
pub mod oci;
pub mod opt;
pub mod registry;
pub mod registryserver;
pub mod report;
pub mod scripthacker;
pub mod service;
pub mod site;
pub mod spec;
pub mod state;
