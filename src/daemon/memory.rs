//! Memory that is held for nothing: what the allocator keeps back, and the program's own code once nobody runs it. The
//! only module with `unsafe` for this: the C library's knobs have no safe wrapper.
#![allow(unsafe_code, reason = "mallopt(3), malloc_trim(3), dl_iterate_phdr(3) and madvise(2)")]

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;

use nix::libc;

/// Keeps the number of arenas small: each holds memory back for good, and this daemon allocates rarely.
pub fn few_arenas() {
    // SAFETY: takes two numbers; called before threads are started.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives memory back to the kernel; worth it after the start and after an operation, which may have unpacked gigabytes
/// and has run code that a daemon at rest does not need. Code stays in the page cache: who runs it again finds it there.
pub fn trim() {
    // SAFETY: takes a number and may be called at any time from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
    for pages in unwritten_segments() {
        // SAFETY: these pages are a file's, mapped privately and never written since the file was mapped, so that a
        // thread that needs one finds the same bytes in it again.
        unsafe {
            libc::madvise(pages.start as *mut c_void, pages.len(), libc::MADV_DONTNEED);
        }
    }
}

/// Whole pages of the segments that the program and its libraries were mapped with and that nothing may write to: not
/// those that the loader adjusts before it makes them read-only, which are part of a writable segment (elf(5), `p_flags`).
fn unwritten_segments() -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    // SAFETY: `gather` only lives for the call and gets the pointer it expects.
    unsafe {
        libc::dl_iterate_phdr(Some(gather), (&raw mut found).cast());
    }
    found
}

/// Takes one loaded object's segments into the list that `found` points to.
unsafe extern "C" fn gather(object: *mut libc::dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: dl_iterate_phdr(3) gives a valid object for the time of the call, and hands `found` on from our own caller.
    let (object, found) = unsafe { (&*object, &mut *found.cast::<Vec<Range<usize>>>()) };
    // SAFETY: the same page: a string, and `dlpi_phnum` headers.
    let (name, headers) = unsafe {
        (
            CStr::from_ptr(object.dlpi_name),
            std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into()),
        )
    };
    // SAFETY: takes a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    // The program itself has no name; the kernel's own object has no file.
    if name.is_empty() || name.to_bytes().starts_with(b"/") {
        let loaded = headers
            .iter()
            .filter(|header| header.p_type == libc::PT_LOAD && header.p_flags & libc::PF_W == 0);
        found.extend(loaded.filter_map(|header| {
            let begin = object.dlpi_addr as usize + header.p_vaddr as usize;
            whole_pages(begin..begin + header.p_memsz as usize, page)
        }));
    }
    0
}

/// The pages that lie wholly inside; none when there is not one.
fn whole_pages(bytes: Range<usize>, page: usize) -> Option<Range<usize>> {
    let pages = bytes.start.next_multiple_of(page)..bytes.end / page * page;
    (!pages.is_empty()).then_some(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_lie_wholly_inside_are_taken() {
        assert_eq!(whole_pages(4096..12288, 4096), Some(4096..12288));
        assert_eq!(whole_pages(4097..12287, 4096), None);
        assert_eq!(whole_pages(4097..12288, 4096), Some(8192..12288));
        assert_eq!(whole_pages(5000..5100, 4096), None);
    }

    /// Of this process: pages of files that are mapped, kB (proc(5), `RssFile`).
    fn of_files() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse().unwrap()
    }

    #[test]
    fn code_that_nobody_runs_is_given_back_and_comes_again() {
        let code = unwritten_segments();
        let own = trim as *const () as usize;
        assert!(code.iter().any(|segment| segment.contains(&own)), "{own:x} is in none of {code:x?}");
        let sum = |segment: &Range<usize>| -> u64 {
            // SAFETY: mapped and readable, as the list is made.
            let bytes = unsafe { std::slice::from_raw_parts(segment.start as *const u8, segment.len()) };
            bytes.iter().map(|&byte| u64::from(byte)).sum()
        };
        // All of it is in memory now.
        let before: u64 = code.iter().map(sum).sum();
        let full = of_files();
        trim();
        let rest = of_files();
        assert!(rest < full / 2, "{full} kB of files before, {rest} kB after");
        assert_eq!(code.iter().map(sum).sum::<u64>(), before);
    }
}
