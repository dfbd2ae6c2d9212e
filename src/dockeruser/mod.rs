//! What a person at the keyboard does with containers, one verb a file (see docs/architecture.md).

pub mod setup;
