//! Roles, verbs, command links.
