//! A way to a registry that counts what is sent, stops letting anything through when told to, and can be cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// The longest that a test waits for one event.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Gate {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Default)]
struct Flow {
    /// Bytes from clients that went to the registry.
    sent: u64,
    /// When so many have, nothing more passes.
    until: Option<u64>,
    /// Connections that wait for more.
    waiting: usize,
    open: Vec<TcpStream>,
}

impl Gate {
    /// To the registry that listens on `localhost:port`.
    pub fn to(port: u16) -> Gate {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let gate = Gate { port: listener.local_addr().unwrap().port(), shared: Arc::default() };
        let shared = Arc::clone(&gate.shared);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("localhost", port)) else { continue };
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || shared.relay(client, server));
            }
        });
        gate
    }

    /// What Docker names it.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Bytes that clients have sent since the last call.
    pub fn sent(&self) -> u64 {
        std::mem::take(&mut self.shared.flow.lock().unwrap().sent)
    }

    /// Lets so many more bytes through, and then none.
    pub fn stop_after(&self, bytes: u64) {
        let mut flow = self.shared.flow.lock().unwrap();
        flow.until = Some(flow.sent + bytes);
    }

    /// Waits until somebody cannot go on.
    pub fn until_stopped(&self) {
        let flow = self.shared.flow.lock().unwrap();
        let waited =
            self.shared.changed.wait_timeout_while(flow, PATIENCE, |flow| flow.waiting == 0).unwrap();
        assert!(!waited.1.timed_out(), "not as much was sent in {PATIENCE:?}");
    }

    /// Breaks all connections; new ones get through.
    pub fn cut(&self) {
        let mut flow = self.shared.flow.lock().unwrap();
        flow.until = None;
        for stream in flow.open.drain(..) {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }
}

impl Shared {
    /// A connection that breaks is no error here.
    fn relay(&self, client: TcpStream, server: TcpStream) -> Option<()> {
        let (mut from, mut to) = (server.try_clone().ok()?, client.try_clone().ok()?);
        {
            let mut flow = self.flow.lock().unwrap();
            flow.open.extend([client.try_clone().ok()?, server.try_clone().ok()?]);
        }
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            to.shutdown(Shutdown::Both)
        });
        let (mut from, mut to) = (client, server);
        let mut chunk = [0; 16 << 10];
        loop {
            let count = from.read(&mut chunk).ok().filter(|count| *count > 0);
            let Some(count) = count else { return to.shutdown(Shutdown::Write).ok() };
            let mut flow = self.flow.lock().unwrap();
            if flow.until.is_some_and(|until| flow.sent >= until) {
                flow.waiting += 1;
                self.changed.notify_all();
                flow = self.changed.wait_while(flow, |flow| flow.until.is_some()).unwrap();
                flow.waiting -= 1;
            }
            flow.sent += count as u64;
            drop(flow);
            to.write_all(&chunk[..count]).ok()?;
        }
    }
}
