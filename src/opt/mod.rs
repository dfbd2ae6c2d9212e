//! The `/opt` store: archives become immutable layers, a volume stacks them under one writable upper directory, and
//! Docker asks for the volumes through its volume driver protocol. Never calls the Engine.
//!
//! ```text
//! <root>/.store/            0700: layers, volumes and their mounts; only root enters
//! <root>/<container>/opt    what the owner sees of the volume: the same mount again, nosuid and nodev
//! <root>/staging/<random>/  where a person's own git puts a checkout: a directory of the store, nosuid and nodev
//! ```

mod archive;
mod beneath;
mod busy;
mod cache;
mod collect;
mod copy;
pub mod driver;
mod export;
mod fetch;
mod flatten;
mod frozen;
mod held;
mod large;
mod layer;
mod layer_id;
mod marker;
mod mounts;
mod person;
mod published;
mod seal;
mod settle;
mod spool;
mod staging;
mod store;
mod tree;
mod turns;
mod volume;

pub use collect::{Needs, Unneeded};
pub use export::Exported;
pub use held::Held;
pub use large::LargeFile;
pub use layer::Layer;
pub use layer_id::LayerId;
pub use person::Person;
pub use seal::{Changed, Checked};
pub use staging::Staging;
pub use store::{Config, Store};
pub use volume::{Kind, Merged, Phase, Upper, Usage, ViewOwner, VolumeRecord, VolumeRequest};

/// The step of the plan that progress is reported under.
pub const STEP: &str = "opt";
