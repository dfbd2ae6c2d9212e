//! Garbage of the registry: what is there ([`inventory`]), what may go ([`plan`], pure), and making it go ([`apply`]).
//!
//! The blobs are swept by the server's own program, which knows its storage. What it lacks is decided here: which tags and
//! manifests nobody needs, that nothing goes which is needed elsewhere, and that pulls and pushes under way come to no harm.

mod apply;
mod door;
pub mod in_use;
mod inventory;
mod links;
mod manifest;
mod plan;

pub use apply::{Collected, Collection, Record, last};
pub use inventory::{Inventory, read};
pub use links::Storage;
pub use plan::{DroppedBlob, DroppedTag, Keep, Kept, Later, Plan, Policy, Used, plan};
