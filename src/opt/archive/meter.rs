//! What passes from the archive's source to the decoder: hashed, counted, reported, and stopped on request.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use super::Watch;
use crate::opt::STEP;
use crate::report::Unit;
use crate::spec::Digest;

/// Bytes between two reports.
const REPORT_EVERY: u64 = 4 << 20;

pub struct Meter<'a, R> {
    source: R,
    watch: &'a Watch,
    hash: Sha256,
    done: u64,
    reported: u64,
}

impl<'a, R: Read> Meter<'a, R> {
    pub fn new(source: R, watch: &'a Watch) -> Self {
        Meter { source, watch, hash: Sha256::new(), done: 0, reported: 0 }
    }

    /// Reads what the decoder left, which counts for the digest, and says the digest of all.
    pub fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        self.report();
        Ok(Digest(self.hash.finalize().into()))
    }

    fn report(&mut self) {
        self.reported = self.done;
        self.watch.reporter.progress(STEP, self.done, self.watch.total, Unit::Bytes);
    }
}

impl<R: Read> Read for Meter<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = loop {
            self.watch.cancel.check()?;
            match self.source.read(into) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        self.hash.update(&into[..n]);
        self.done += n as u64;
        if self.done - self.reported >= REPORT_EVERY {
            self.report();
        }
        Ok(n)
    }
}
