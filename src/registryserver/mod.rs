//! Verbs of who runs the registry. They run in the caller's own process, as root.

pub mod add_user;
pub mod apply_bundle;
pub mod collect_garbage;
pub mod create_bundle;
pub mod keep_registry;
pub mod remove_user;
pub mod show_registry;
pub mod start_registry;
pub mod stop_registry;

use anyhow::Result;

use crate::report::{Fault, Kind};

/// The registry's files are root's.
fn only_root(verb: &str) -> Result<()> {
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Fault::new(Kind::Denied, "only root can look after the registry")
            .next(format!("sudo moorage {verb} …, with the same words"))
            .into()),
    }
}
