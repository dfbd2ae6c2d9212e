//! Verbs of who writes and tries out what a site defines.

pub mod check_site;
pub mod new_project;
pub mod new_site;
pub mod start_lab;
pub mod stop_lab;
