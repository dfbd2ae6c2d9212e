//! Parse, run, report one error, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    moorage::cli::main()
}
