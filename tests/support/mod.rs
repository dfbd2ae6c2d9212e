//! What the end-to-end tests have in common: people who type commands, scenes that clean up after themselves, and
//! waiting for events.
//!
//! Nothing here paces by time. What is waited for is an event of a stream, with a deadline.

pub mod archive;
pub mod events;
pub mod groups;
pub mod machine;
pub mod person;
pub mod registry;
pub mod scene;
pub mod served;
pub mod small;
pub mod web;

use std::path::PathBuf;

pub use events::{Following, Running};
pub use person::{Outcome, Person, ann, bob, carol, dave, root};
pub use scene::{Made, Scene};

/// What `docker` with these arguments prints; it has to succeed.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    root().run("docker", arguments).ok().stdout.trim().to_owned()
}

/// The committed root filesystems of ann's that are here, one a line.
#[track_caller]
pub fn roots() -> String {
    let filters = ["--filter", "label=moorage.root", "--filter", "label=moorage.owner=ann"];
    docker(&[&["image", "ls", "-q"], &filters[..]].concat())
}

/// The directory of the world these tests run in.
///
/// Fails where there is none: these tests kill daemons and make interfaces, which nobody wants on their machine.
pub fn world() -> PathBuf {
    let Some(world) = std::env::var_os("MOORAGE_WORLD") else {
        panic!("end-to-end tests run in a world of their own: scripts/test makes it");
    };
    world.into()
}
