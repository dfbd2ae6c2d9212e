//! What people see: errors, progress, tables. The lowest module: it knows nothing of containers.

pub mod event;
pub mod fault;
pub mod finding;
pub mod output;
pub mod progress;
pub mod render;
pub mod table;
pub mod terminal;

pub use event::{Event, Reporter, Unit};
pub use fault::{Fault, Kind};
pub use finding::{Finding, Level};
pub use output::{Silent, escape};
pub use table::Table;
