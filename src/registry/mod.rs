//! The registry of this host: the distribution's server, twice on one storage, with everything around it generated.
//!
//! Everybody reads from one server, without a login; who publishes logs in to the other. So pulling goes on while the
//! writer is stopped, and a login decides who may push, which htpasswd alone cannot.

pub mod bundle;
mod certificate;
pub mod collect;
mod configuration;
pub mod contents;
mod keep;
mod name;
mod place;
mod server;
mod start;
pub mod users;

pub use certificate::read as read_certificate;
pub use keep::keep;
pub use name::Name;
pub use place::{Place, Settings};
pub use server::{SERVERS, Server};
pub use start::{CERTIFICATES, Started, Wanted, program, start, trust};
