//! The CLI's side of the wire.
