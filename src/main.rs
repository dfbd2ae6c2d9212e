//! Parse, run, report one error, exit code.

fn main() {}
