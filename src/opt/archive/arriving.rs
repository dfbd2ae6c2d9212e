//! An archive on its way: asynchronous chunks on one side, a blocking reader on the other, and the spool beside them. What has
//! just come is handed on in memory; what came earlier is read from the spool.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use crate::opt::spool::Spool;

/// Chunks that have come and are not in the spool yet. A killed daemon loses them: each has some hundred kilobytes at most.
const AHEAD: usize = 2;
/// Bytes in memory for the reader. A sender who is faster waits, unless the reader is still busy with what came earlier.
const WINDOW: u64 = 16 << 20;

/// What chunks go into; an empty one says that it was the last.
pub type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// What has come and is not read, without a gap behind what can be read from the spool.
struct Window {
    chunks: VecDeque<Bytes>,
    /// Where in the archive the first chunk begins. All before it is in the spool, or read.
    begin: u64,
    /// Where in the archive the last chunk ends.
    end: u64,
    /// How far the reader is.
    at: u64,
    /// Nobody reads any more.
    gone: bool,
    /// Whether nothing more comes, and why, if that was not the end.
    over: Option<Result<(), io::Error>>,
}

/// How it stands with what comes.
struct Shared {
    window: Mutex<Window>,
    /// For the reader: there is more.
    more: Condvar,
    /// For the pump: there is room.
    room: Condvar,
    unwanted: Notify,
}

impl Shared {
    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what comes into the spool and to the reader, on a thread of its own.
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
    /// Bytes that were in the spool before.
    here: u64,
    /// What is left of the chunk that is being read.
    chunk: Bytes,
}

/// Where the reader finds what is next.
enum Next {
    Chunk(Bytes),
    /// In the spool, so many bytes from there on.
    Spooled(u64, u64),
    End,
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
    let here = spool.have();
    let window = Window { chunks: VecDeque::new(), begin: here, end: here, at: 0, gone: false, over: None };
    let shared = Arc::new(Shared {
        window: Mutex::new(window),
        more: Condvar::new(),
        room: Condvar::new(),
        unwanted: Notify::new(),
    });
    let pump = Pump { chunks: received, spool: spool.clone(), shared: shared.clone() };
    let unwanted = Unwanted(shared.clone());
    (chunks, unwanted, pump, Arriving { spool, shared, here, chunk: Bytes::new() })
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
                    self.hand_on(chunk);
                }
                Some(Err(e)) => break Err(e),
                None => {
                    break Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was given up"));
                }
            }
        };
        let over = over.and(self.spool.flush());
        self.shared.window().over = Some(over);
        self.shared.more.notify_one();
    }

    /// Waits for room, unless the reader can read from the spool what has no room here.
    fn hand_on(&self, chunk: Bytes) {
        let mut window = self.shared.window();
        while !window.gone && !window.chunks.is_empty() && window.end - window.begin >= WINDOW {
            if window.at == window.begin {
                window = self.shared.room.wait(window).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let first = window.chunks.front().map_or(0, Bytes::len) as u64;
            if window.begin + first > self.spool.have() {
                break;
            }
            window.begin += first;
            window.chunks.pop_front();
        }
        window.end += chunk.len() as u64;
        match window.gone {
            true => window.begin = window.end,
            false => window.chunks.push_back(chunk),
        }
        drop(window);
        self.shared.more.notify_one();
    }
}

impl Arriving {
    /// Bytes that were in the spool before.
    pub fn here(&self) -> u64 {
        self.here
    }

    /// Waits for more.
    fn next(&self) -> io::Result<Next> {
        let mut window = self.shared.window();
        loop {
            if window.at < window.begin {
                return Ok(Next::Spooled(window.at, window.begin - window.at));
            }
            if let Some(chunk) = window.chunks.pop_front() {
                window.begin += chunk.len() as u64;
                window.at = window.begin;
                self.shared.room.notify_one();
                return Ok(Next::Chunk(chunk));
            }
            match window.over.as_ref() {
                Some(Ok(())) => return Ok(Next::End),
                Some(Err(e)) => {
                    let copy = match e.raw_os_error() {
                        Some(number) => io::Error::from_raw_os_error(number),
                        None => io::Error::new(e.kind(), e.to_string()),
                    };
                    return Err(copy);
                }
                None => {
                    window = self.shared.more.wait(window).unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }
}

impl Read for Arriving {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            match self.next()? {
                Next::Chunk(chunk) => self.chunk = chunk,
                Next::Spooled(at, bytes) => {
                    let want = into.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
                    let n = self.spool.read_at(&mut into[..want], at)?;
                    if n == 0 && want > 0 {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the spool was cut off"));
                    }
                    self.shared.window().at += n as u64;
                    return Ok(n);
                }
                Next::End => return Ok(0),
            }
        }
        let n = into.len().min(self.chunk.len());
        into[..n].copy_from_slice(&self.chunk.split_to(n));
        Ok(n)
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.shared.window().gone = true;
        self.shared.room.notify_one();
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
        spool.flush().unwrap();
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

    #[test]
    fn a_fast_sender_waits_for_the_reader_and_nothing_is_lost() {
        let place = tempfile::tempdir().unwrap();
        let spool = spool(place.path());
        let (chunks, _unwanted, pump, mut arriving) = channel(spool.clone());
        let pump = std::thread::spawn(move || pump.run());
        let sender = std::thread::spawn(move || {
            for number in 0..200u32 {
                let chunk = Bytes::from(number.to_le_bytes().repeat(64 << 10));
                chunks.blocking_send(Ok(chunk)).unwrap();
            }
            chunks.blocking_send(Ok(Bytes::new())).unwrap();
        });
        let mut number = [0; 4];
        for expected in 0..200u32 {
            for _ in 0..64 << 10 {
                arriving.read_exact(&mut number).unwrap();
                assert_eq!(u32::from_le_bytes(number), expected);
            }
            let window = arriving.shared.window();
            assert!(window.end - window.begin <= WINDOW + (256 << 10), "at {expected}");
        }
        assert_eq!(arriving.read(&mut number).unwrap(), 0);
        sender.join().unwrap();
        pump.join().unwrap();
        assert_eq!(spool.have(), 200 * (256 << 10));
    }

    #[test]
    fn a_sender_does_not_wait_for_a_reader_of_what_came_earlier() {
        let place = tempfile::tempdir().unwrap();
        let spool = spool(place.path());
        spool.append(&[7]).unwrap();
        spool.flush().unwrap();
        let (chunks, _unwanted, pump, mut arriving) = channel(spool);
        let pump = std::thread::spawn(move || pump.run());
        let mebibyte = Bytes::from(vec![9; 1 << 20]);
        // More than the window holds, and nobody has read.
        for _ in 0..40 {
            chunks.blocking_send(Ok(mebibyte.clone())).unwrap();
        }
        chunks.blocking_send(Ok(Bytes::new())).unwrap();
        pump.join().unwrap();
        assert!(arriving.shared.window().begin > 1);
        let mut bytes = Vec::new();
        arriving.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), 1 + (40 << 20));
        assert!(bytes[0] == 7 && bytes[1..].iter().all(|byte| *byte == 9));
    }

    #[tokio::test]
    async fn a_reader_that_goes_away_is_noticed() {
        let place = tempfile::tempdir().unwrap();
        let (_chunks, unwanted, _pump, arriving) = channel(spool(place.path()));
        drop(arriving);
        unwanted.wait().await;
    }
}
