//! A lease, purely: what a server grants, what we say to it, and the machine that decides. No sockets, no clock, no
//! disk: events and the time go in, actions come out.

pub mod grant;
pub mod guard;
pub mod machine;
pub mod packet;
pub mod reply;
mod retry;
#[cfg(test)]
mod tests;

pub use grant::{Grant, Lease, Route};
pub use guard::{Arp, Guard, Step};
pub use machine::{Action, Event, Machine, State};
pub use packet::{Identity, Packet, To};
pub use reply::{Answer, Reply};
