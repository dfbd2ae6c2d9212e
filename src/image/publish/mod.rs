//! From this host to a registry: images by the engine, `/opt` trees by ourselves.

pub mod image;
pub mod opt;
mod pack;
pub mod snapshot;
