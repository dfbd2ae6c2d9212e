//! The engine's socket, with somebody in between who does not let one request through.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The longest that a test waits for the request.
const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Clone, Copy)]
enum Then {
    Hold,
    HangUp,
}

pub struct Relay {
    pub socket: String,
    held: Receiver<()>,
}

impl Relay {
    /// To the engine at `engine`; of the requests that have `word` in their head, the one after `passed` of them never
    /// gets there.
    pub fn holding(engine: &Path, at: &Path, word: &'static str, passed: usize) -> Relay {
        Relay::new(engine, at, word, passed, Then::Hold)
    }

    /// Who makes a request with `word` in its head is hung up on.
    pub fn hanging_up(engine: &Path, at: &Path, word: &'static str) -> Relay {
        Relay::new(engine, at, word, 0, Then::HangUp)
    }

    fn new(engine: &Path, at: &Path, word: &'static str, passed: usize, then: Then) -> Relay {
        let listener = UnixListener::bind(at).unwrap();
        let (tell, held) = channel();
        let (engine, left) = (engine.to_owned(), Arc::new(Mutex::new(passed)));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = UnixStream::connect(&engine) else { continue };
                let (left, tell) = (Arc::clone(&left), tell.clone());
                std::thread::spawn(move || relay(client, server, (word, then), &left, &tell));
            }
        });
        Relay { socket: format!("unix://{}", at.display()), held }
    }

    pub fn until_held(&self) {
        self.held.recv_timeout(PATIENCE).expect("the request is made");
    }
}

/// A connection that breaks is no error here.
fn relay(
    client: UnixStream,
    server: UnixStream,
    (word, then): (&str, Then),
    left: &Mutex<usize>,
    tell: &Sender<()>,
) -> Option<()> {
    let (mut from, mut to) = (server.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Both)
    });
    let (mut from, mut to) = (client, server);
    let mut chunk = [0; 64 << 10];
    loop {
        let count = from.read(&mut chunk).ok().filter(|count| *count > 0);
        let Some(count) = count else { return to.shutdown(Shutdown::Write).ok() };
        // A head without a body comes in one piece.
        let head = String::from_utf8_lossy(&chunk[..count.min(1024)]).into_owned();
        if head.lines().next().is_some_and(|line| line.contains(word)) {
            let mut left = left.lock().unwrap();
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => {
                    tell.send(()).ok()?;
                    // Until whoever asked is gone.
                    while matches!(then, Then::Hold) && from.read(&mut chunk).is_ok_and(|count| count > 0) {}
                    from.shutdown(Shutdown::Both).ok();
                    return to.shutdown(Shutdown::Both).ok();
                }
            }
        }
        to.write_all(&chunk[..count]).ok()?;
    }
}
