//! Whether something keeps the kernel's clock right. The only module with `unsafe` for this: the C library's
//! adjtimex(2) has no safe form in any crate of the tree.
#![allow(unsafe_code, reason = "adjtimex(2) with modes 0 only fills in the structure it is given")]

use nix::libc;

/// Whether the kernel was told by a time service that its clock is right; none where it does not say.
pub fn synchronized() -> Option<bool> {
    // SAFETY: `timex` consists of numbers, for which zeros are valid; modes 0 changes nothing.
    let state = unsafe {
        let mut asked: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut asked)
    };
    match state {
        -1 => None,
        state => Some(state != libc::TIME_ERROR),
    }
}
