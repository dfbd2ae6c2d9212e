//! How much an archive may have us keep in memory. What describes an entry is read whole before the entry is known, and its
//! size is the archive's own word: zeros without end compress to nothing.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// Bytes that one entry may be described with: its header, long names, attributes, the extents of a sparse file. A
/// megabyte has 40,000 of those.
const OF_ONE_ENTRY: u64 = 4 << 20;

/// Reads on while there is a budget, and without bounds while there is none.
pub struct Budgeted<R> {
    source: R,
    left: Rc<Cell<Option<u64>>>,
}

/// The other end: says when the budget begins and when it is over.
pub struct Budget(Rc<Cell<Option<u64>>>);

pub fn budgeted<R>(source: R) -> (Budgeted<R>, Budget) {
    let left = Rc::default();
    (Budgeted { source, left: Rc::clone(&left) }, Budget(left))
}

impl Budget {
    /// Does `read`, which reads what describes one entry.
    pub fn within<T>(&self, read: impl FnOnce() -> T) -> T {
        self.0.set(Some(OF_ONE_ENTRY));
        let done = read();
        self.0.set(None);
        done
    }
}

impl<R> Budgeted<R> {
    pub fn into_inner(self) -> R {
        self.source
    }
}

impl<R: Read> Read for Budgeted<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.source.read(into)?;
        if let Some(left) = self.left.get() {
            let left = left.checked_sub(n as u64).ok_or_else(|| {
                let what = format!("what describes one entry is longer than {} MiB", OF_ONE_ENTRY >> 20);
                io::Error::new(io::ErrorKind::InvalidData, what)
            })?;
            self.left.set(Some(left));
        }
        Ok(n)
    }
}
