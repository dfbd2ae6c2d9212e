//! Verbs of who writes and tries out what a site defines.

pub mod start_lab;
pub mod stop_lab;
