//! Memory that the allocator holds back for nothing. The only module with `unsafe` for this: the C library's knobs have
//! no safe wrapper.
#![allow(unsafe_code, reason = "mallopt(3) and malloc_trim(3); both only take numbers")]

use nix::libc;

/// Keeps the number of arenas small: each holds memory back for good, and this daemon allocates rarely.
pub fn few_arenas() {
    // SAFETY: takes two numbers; called before threads are started.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives free memory back to the kernel; worth it after an operation, which may have unpacked gigabytes.
pub fn trim() {
    // SAFETY: takes a number and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}
