//! An archive on its way: asynchronous chunks on one side go through the spool to a blocking reader on the other.

use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::opt::spool::Spool;

/// Chunks that have come and are not in the spool yet. A killed daemon loses them: each has some hundred kilobytes at most.
const AHEAD: usize = 8;

/// What chunks go into; an empty one says that it was the last.
pub type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// How it stands with what comes.
#[derive(Default)]
struct Shared {
    /// Whether nothing more comes, and why, if that was not the end.
    over: Mutex<Option<Result<(), io::Error>>>,
    changed: Condvar,
    unwanted: Notify,
}

impl Shared {
    fn over(&self) -> MutexGuard<'_, Option<Result<(), io::Error>>> {
        self.over.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts what comes into the spool, on a thread of its own.
pub struct Pump {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    spool: Arc<Spool>,
    shared: Arc<Shared>,
}

/// The blocking end, from the archive's first byte on. It ends only where the server's last byte was; an early end is an
/// error.
pub struct Arriving {
    spool: Arc<Spool>,
    shared: Arc<Shared>,
    at: u64,
}

/// Resolves when nobody reads any more.
#[derive(Clone)]
pub struct Unwanted(Arc<Shared>);

impl Unwanted {
    pub async fn wait(&self) {
        self.0.unwanted.notified().await;
    }
}

/// The ends of a transfer into `spool`.
pub fn channel(spool: Arc<Spool>) -> (Chunks, Unwanted, Pump, Arriving) {
    let (chunks, received) = mpsc::channel(AHEAD);
    let shared = Arc::new(Shared::default());
    let pump = Pump { chunks: received, spool: spool.clone(), shared: shared.clone() };
    let unwanted = Unwanted(shared.clone());
    (chunks, unwanted, pump, Arriving { spool, shared, at: 0 })
}

impl Pump {
    /// Blocks until the last chunk came or none comes any more.
    pub fn run(mut self) {
        let over = loop {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) if chunk.is_empty() => break Ok(()),
                Some(Ok(chunk)) => {
                    if let Err(e) = self.spool.append(&chunk) {
                        break Err(e);
                    }
                    // The lock is taken, so that a reader who has just looked is asleep by now.
                    drop(self.shared.over());
                    self.shared.changed.notify_one();
                }
                Some(Err(e)) => break Err(e),
                None => {
                    break Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was given up"));
                }
            }
        };
        *self.shared.over() = Some(over);
        self.shared.changed.notify_one();
    }
}

impl Arriving {
    /// Bytes that were in the spool before.
    pub fn here(&self) -> u64 {
        self.spool.have()
    }

    /// Waits until there is more than `at`; false at the end.
    fn wait(&self) -> io::Result<bool> {
        let mut over = self.shared.over();
        loop {
            if self.spool.have() > self.at {
                return Ok(true);
            }
            match over.as_mut() {
                Some(Ok(())) => return Ok(false),
                Some(Err(e)) => {
                    let copy = match e.raw_os_error() {
                        Some(number) => io::Error::from_raw_os_error(number),
                        None => io::Error::new(e.kind(), e.to_string()),
                    };
                    return Err(copy);
                }
                None => {
                    over = self.shared.changed.wait(over).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.spool.have() <= self.at && !self.wait()? {
            return Ok(0);
        }
        let here = usize::try_from(self.spool.have() - self.at).unwrap_or(usize::MAX);
        let want = into.len().min(here);
        let n = self.spool.read_at(&mut into[..want], self.at)?;
        self.at += n as u64;
        match n {
            0 if want > 0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the spool was cut off")),
            n => Ok(n),
        }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.shared.unwanted.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Digest;

    fn spool(place: &std::path::Path) -> Arc<Spool> {
        Arc::new(Spool::open(place, &Digest([1; 32])).unwrap())
    }

    #[test]
    fn what_was_spooled_before_comes_first_and_the_end_is_said() {
        let place = tempfile::tempdir().unwrap();
        let spool = spool(place.path());
        spool.append(b"one ").unwrap();
        let (chunks, _unwanted, pump, mut arriving) = channel(spool);
        let pump = std::thread::spawn(move || pump.run());
        chunks.blocking_send(Ok(Bytes::from_static(b"two"))).unwrap();
        chunks.blocking_send(Ok(Bytes::new())).unwrap();
        let mut text = String::new();
        arriving.read_to_string(&mut text).unwrap();
        assert_eq!(text, "one two");
        pump.join().unwrap();
    }

    #[test]
    fn an_early_end_is_an_error_behind_what_came() {
        let place = tempfile::tempdir().unwrap();
        let (chunks, _unwanted, pump, mut arriving) = channel(spool(place.path()));
        let pump = std::thread::spawn(move || pump.run());
        chunks.blocking_send(Ok(Bytes::from_static(b"one"))).unwrap();
        drop(chunks);
        let mut bytes = Vec::new();
        assert_eq!(arriving.read_to_end(&mut bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert_eq!(bytes, b"one");
        pump.join().unwrap();
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let (_chunks, unwanted, _pump, arriving) = channel(spool(place.path()));
        drop(arriving);
        unwanted.wait().await;
    }
}
