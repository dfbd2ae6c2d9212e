//! The command line through the real binary, with a server of the test's own where the daemon would be: what is
//! tested here is the CLI's side of the wire.

#![allow(clippy::unwrap_used, reason = "a test stops at what it does not expect")]

mod checkout;
mod daemon;
mod enter;
mod make;
mod operations;
mod terminal;
mod usage;
mod world;
