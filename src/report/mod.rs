//! What people see: errors, progress, tables. The lowest module: it knows nothing of containers.

pub mod event;
pub mod fault;

pub use event::{Event, Reporter, Unit};
pub use fault::{Fault, Kind};
