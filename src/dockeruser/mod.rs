//! The role that makes, uses and looks after containers: one file a verb, each with its `Args` and its `run`.
//! What several verbs need: [`each`] (one verb on several names), [`make`] (the
//! two verbs that make one), [`definitions`] (the site and the person), [`view`] (containers in words)
//! [`together`] (a command in several containers) and [`complete`] (what the shell completes).

mod complete;
mod definitions;
mod each;
mod from_snapshot;
mod make;
mod snapshots;
mod together;
mod view;

pub mod clone_container;
pub mod doctor;
pub mod enter_container;
pub mod list_containers;
pub mod list_leases;
pub mod list_projects;
pub mod list_snapshots;
pub mod make_dev_container;
pub mod make_os_container;
pub mod prune_containers;
pub mod publish_snapshot;
pub mod recreate_container;
pub mod remove_container;
pub mod remove_snapshot;
pub mod resize_container;
pub mod restart_container;
pub mod restore_container;
pub mod setup;
pub mod show_container;
pub mod show_logs;
pub mod snapshot_container;
pub mod start_container;
pub mod stop_container;
