//! The world's registry, images that only it has, and a way to it that can be stopped.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::root;

/// Where `world start registry` serves.
pub const REGISTRY: &str = "127.0.0.1:5000";
/// An allowed registry that is not there: nothing ever listens at this address.
pub const NOBODY: &str = "127.0.0.1:5001";

/// The longest that a test waits for one event.
const PATIENCE: Duration = Duration::from_secs(60);

/// The demo image with one more layer, in the registry and not in the engine. What is pulled of it goes with this.
#[derive(Debug)]
pub struct Pushed {
    name: String,
}

impl Pushed {
    /// `name` is the repository's: the scene's project, so that no other test has it.
    pub fn image(name: &str) -> Pushed {
        let reference = format!("{REGISTRY}/{name}:latest");
        // Noise, so that the layer is as large in the registry.
        root()
            .shell(&format!(
                "made=$(docker create moorage/demo); \
                 head -c 4000000 /dev/urandom >/tmp/{name}; \
                 docker cp /tmp/{name} $made:/usr/local/share/noise; rm /tmp/{name}; \
                 docker commit $made {reference}; docker rm $made; \
                 docker push -q {reference}; docker rmi {reference}"
            ))
            .ok();
        Pushed { name: name.to_owned() }
    }

    /// Its reference through `registry`.
    pub fn at(&self, registry: &str) -> String {
        format!("{registry}/{}:latest", self.name)
    }
}

impl Drop for Pushed {
    fn drop(&mut self) {
        let list = root().run("docker", &["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let ours = |reference: &&str| reference.ends_with(&format!("/{}:latest", self.name));
        for reference in list.stdout.lines().filter(ours) {
            root().run("docker", &["rmi", "-f", reference]);
        }
    }
}

/// A way to the registry that lets so many bytes through, then nothing more until [`Way::open`].
#[derive(Debug)]
pub struct Way {
    pub registry: String,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    flow: Mutex<Flow>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Flow {
    /// Bytes that may still pass; `None` is all.
    left: Option<usize>,
    /// Connections that wait for more. dockerd keeps one that it has given up until bytes come.
    waiting: usize,
}

impl Way {
    /// Listens on `port` of the loopback interface: one of those that the world's host allows (world-tests).
    pub fn that_stalls_after(bytes: usize, port: u16) -> Way {
        let registry = format!("127.0.0.1:{port}");
        let listener = TcpListener::bind(&registry).unwrap();
        let state = Arc::new(State::default());
        state.flow.lock().unwrap().left = Some(bytes);
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                let Ok(server) = TcpStream::connect(REGISTRY) else { continue };
                std::thread::spawn(move || relay(client, server, &shared));
            }
        });
        Way { registry, state }
    }

    /// Waits until somebody waits for bytes that do not come.
    #[track_caller]
    pub fn until_stalled(&self) {
        let flow = self.state.flow.lock().unwrap();
        let wait = self.state.changed.wait_timeout_while(flow, PATIENCE, |flow| flow.waiting == 0);
        let (flow, timeout) = wait.unwrap();
        assert!(!timeout.timed_out(), "nobody pulled as much in {PATIENCE:?}: {flow:?}");
    }

    /// Lets everything through from now on.
    pub fn open(&self) {
        self.state.flow.lock().unwrap().left = None;
        self.state.changed.notify_all();
    }
}

/// A connection that breaks is no error here.
fn relay(client: TcpStream, server: TcpStream, state: &State) -> Option<()> {
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut to);
        to.shutdown(Shutdown::Both)
    });
    let (mut from, mut to) = (server, client);
    let mut chunk = [0; 16 << 10];
    loop {
        let count = from.read(&mut chunk).ok().filter(|count| *count > 0)?;
        let mut flow = state.flow.lock().unwrap();
        if flow.left.is_some_and(|left| left < count) {
            flow.waiting += 1;
            state.changed.notify_all();
            flow = state.changed.wait_while(flow, |flow| flow.left.is_some()).unwrap();
            flow.waiting -= 1;
        }
        flow.left = flow.left.map(|left| left - count);
        drop(flow);
        to.write_all(&chunk[..count]).ok()?;
    }
}
