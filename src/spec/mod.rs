//! The words of moorage as types: names, MACs, sizes, archives, the container's specification and the plan. Pure.

pub mod address;
pub mod archive;
pub mod container;
pub mod in_use;
pub mod limits;
pub mod mac;
pub mod name;
pub mod network;
pub mod plan;
pub mod reference;
pub mod size;
pub mod snapshot;
mod text;

pub use address::{Addressing, Fixed};
pub use archive::{Archive, Digest};
pub use container::{ContainerSpec, FileSpec, MountSpec, SourceSpec, Ulimit};
pub use in_use::InUse;
pub use limits::{Io, Limits};
pub use mac::{Mac, MacPrefix};
pub use name::{BadName, ContainerName, Owner};
pub use reference::Reference;
pub use size::ByteSize;
pub use snapshot::SnapshotName;
pub(crate) use text::checked_text;
