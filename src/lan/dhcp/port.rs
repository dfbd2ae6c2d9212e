//! The one packet socket of a parent interface, shared by its leases.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context as _, Result};
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{self, Ends};
use super::packet_socket;
use crate::lan::lease::{Identity, Packet, Reply};
use crate::lan::link;
use crate::lan::netns::{Netlink, Netns};
use crate::spec::Mac;

/// Answers that wait for one lease. A server sends one or two; what floods is dropped.
const BACKLOG: usize = 8;
/// The longest message we ask for (option 57) fits with its headers.
const LONGEST: usize = 2048;

/// Where the answers to one MAC arrive.
pub type Ear = mpsc::Receiver<Reply>;
type Ears = Arc<Mutex<HashMap<Mac, Vec<mpsc::Sender<Reply>>>>>;

/// The open ports, by parent interface.
pub struct Ports {
    host: Netns,
    netlink: Arc<Netlink>,
    open: Mutex<HashMap<String, Weak<Port>>>,
}

impl Ports {
    pub fn new(host: Netns, netlink: Arc<Netlink>) -> Ports {
        Ports { host, netlink, open: Mutex::default() }
    }

    /// The port of `parent`. Its socket is opened with the first packet.
    pub fn of(&self, parent: &str) -> Arc<Port> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(port) = open.get(parent).and_then(Weak::upgrade) {
            return port;
        }
        let port = Arc::new(Port {
            parent: parent.to_owned(),
            host: self.host.clone(),
            netlink: self.netlink.clone(),
            ears: Ears::default(),
            socket: tokio::sync::Mutex::default(),
        });
        open.retain(|_, port| port.strong_count() > 0);
        open.insert(parent.to_owned(), Arc::downgrade(&port));
        port
    }
}

/// Sends and receives for all leases of one parent interface.
pub struct Port {
    parent: String,
    host: Netns,
    netlink: Arc<Netlink>,
    ears: Ears,
    socket: tokio::sync::Mutex<Option<Open>>,
}

struct Open {
    socket: Arc<AsyncFd<Socket>>,
    /// Which interface it is bound to; another one with the same name is another interface.
    index: u32,
    _listener: AbortOnDropHandle<()>,
}

impl Port {
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// Answers to `mac` from now on, until the receiver is dropped.
    pub fn listen(&self, mac: Mac) -> Ear {
        let (sender, ear) = mpsc::channel(BACKLOG);
        let mut ears = self.ears.lock().unwrap_or_else(PoisonError::into_inner);
        ears.retain(|_, all| {
            all.retain(|ear| !ear.is_closed());
            !all.is_empty()
        });
        ears.entry(mac).or_default().push(sender);
        ear
    }

    /// Puts one packet on the wire. Opens the socket, again if the interface was made anew since.
    pub async fn send(&self, identity: &Identity, packet: &Packet) -> Result<()> {
        let ends =
            Ends { macs: (identity.mac, packet.hop()), from: packet.source(), to: packet.destination() };
        let frame = frame::build(&ends, &packet.encode(identity)?);
        let failed = || format!("send by {}", self.parent);
        let parent = link::by_name(&self.netlink, &self.parent)
            .await?
            .with_context(|| format!("{} is not there", self.parent))
            .with_context(failed)?;
        let mut held = self.socket.lock().await;
        let open = match held.take() {
            Some(open) if open.index == parent.index => held.insert(open),
            _ => held.insert(self.open(parent.index).await.with_context(failed)?),
        };
        // A full queue is a lost packet like any other: the machine sends it again.
        match open.socket.get_ref().send(&frame) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e).with_context(failed),
        }
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe, for a promise that an owned socket keeps by itself"
    )]
    async fn open(&self, index: u32) -> Result<Open> {
        let socket = self.host.run(move || packet_socket::open(index)).await??;
        let socket = AsyncFd::with_interest(socket, Interest::READABLE).context("watch a packet socket")?;
        let socket = Arc::new(socket);
        let listener = tokio::spawn(listen(socket.clone(), self.ears.clone(), self.parent.clone()));
        Ok(Open { socket, index, _listener: AbortOnDropHandle::new(listener) })
    }
}

async fn listen(socket: Arc<AsyncFd<Socket>>, ears: Ears, parent: String) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        match ready.try_io(|socket| socket.get_ref().read(&mut buffer)) {
            Ok(Ok(length)) => hand_out(&buffer[..length], &ears),
            // The parent went down: the error is reported once, and the socket works again when it comes up.
            Ok(Err(error)) => tracing::debug!(%parent, %error, "packet socket"),
            Err(_would_block) => {}
        }
    }
}

fn hand_out(frame: &[u8], ears: &Ears) {
    let Some((from, payload)) = frame::parse(frame) else { return };
    let Some(reply) = Reply::decode(payload, from) else { return };
    let ears = ears.lock().unwrap_or_else(PoisonError::into_inner);
    for ear in ears.get(&reply.mac).into_iter().flatten() {
        let _ = ear.try_send(reply.clone());
    }
}
