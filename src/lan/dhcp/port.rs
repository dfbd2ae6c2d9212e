//! The one packet socket of a parent interface, shared by its leases.

use std::collections::HashMap;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use anyhow::{Context as _, Result};
use socket2::Socket;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use super::frame::{self, Ends};
use super::{arp, packet_socket};
use crate::lan::host::{Changes, Host};
use crate::lan::lease::{Arp, Identity, Packet, Reply};
use crate::lan::link;
use crate::lan::netns::{Netlink, Netns};
use crate::lan::shim;
use crate::spec::Mac;

/// What may wait for one lease. A server sends one or two answers; what floods is dropped.
const BACKLOG: usize = 8;
/// The longest message we ask for (option 57) fits with its headers.
const LONGEST: usize = 2048;

/// What concerns one lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Reply(Box<Reply>),
    /// Somebody, perhaps we, says something about the address that is watched.
    Arp(Arp),
}

/// Where what concerns one lease arrives, until it is dropped.
pub struct Ear {
    port: Arc<Port>,
    mac: Mac,
    watched: Option<Ipv4Addr>,
    incoming: mpsc::Receiver<Heard>,
}

/// One lease's side of the port.
struct Listener {
    mac: Mac,
    watched: Option<Ipv4Addr>,
    ear: mpsc::Sender<Heard>,
}
type Listeners = Arc<Mutex<Vec<Listener>>>;

impl Ear {
    /// Cancel-safe.
    pub async fn recv(&mut self) -> Option<Heard> {
        self.incoming.recv().await
    }

    /// From now on what is said about `address` is heard, and about no other.
    pub async fn watch(&mut self, address: Option<Ipv4Addr>) -> Result<()> {
        if self.watched == address {
            return Ok(());
        }
        self.watched = address;
        for listener in self.port.listeners().iter_mut().filter(|l| l.mac == self.mac && !l.ear.is_closed()) {
            listener.watched = address;
        }
        self.port.attune().await
    }
}

/// The open ports, by parent interface.
pub struct Ports {
    host: Arc<Host>,
    open: Mutex<HashMap<String, Weak<Port>>>,
}

impl Ports {
    pub fn new(host: Arc<Host>) -> Ports {
        Ports { host, open: Mutex::default() }
    }

    /// The port of `parent`. Its socket is opened with the first packet.
    pub fn of(&self, parent: &str) -> Arc<Port> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(port) = open.get(parent).and_then(Weak::upgrade) {
            return port;
        }
        let port = Arc::new(Port {
            parent: parent.to_owned(),
            host: self.host.netns.clone(),
            netlink: self.host.netlink.clone(),
            listeners: Listeners::default(),
            index: tokio::sync::Mutex::new(Known { index: None, happenings: self.host.changes() }),
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
    listeners: Listeners,
    index: tokio::sync::Mutex<Known>,
    socket: tokio::sync::Mutex<Option<Open>>,
}

/// The parent's index, as long as nothing has happened to it.
struct Known {
    index: Option<u32>,
    happenings: Changes,
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

    fn listeners(&self) -> MutexGuard<'_, Vec<Listener>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers to `mac` from now on.
    pub fn listen(self: &Arc<Self>, mac: Mac) -> Ear {
        self.ear(mac, None)
    }

    /// The same, and what is said about `address`; of no concern to others who listen for that MAC.
    pub async fn overhear(self: &Arc<Self>, mac: Mac, address: Ipv4Addr) -> Result<Ear> {
        let ear = self.ear(mac, Some(address));
        self.attune().await?;
        Ok(ear)
    }

    fn ear(self: &Arc<Self>, mac: Mac, watched: Option<Ipv4Addr>) -> Ear {
        let (ear, incoming) = mpsc::channel(BACKLOG);
        let mut listeners = self.listeners();
        listeners.retain(|listener| !listener.ear.is_closed());
        listeners.push(Listener { mac, watched, ear });
        Ear { port: self.clone(), mac, watched, incoming }
    }

    /// Puts one packet on the wire. Opens the socket, again if the interface was made anew since.
    pub async fn send(&self, identity: &Identity, packet: &Packet) -> Result<()> {
        let ends =
            Ends { macs: (identity.mac, packet.hop()), from: packet.source(), to: packet.destination() };
        let frame = frame::build(&ends, &packet.encode(identity)?);
        let parent = self.interface().await?;
        let Err(error) = self.put(parent, parent, &frame).await else { return Ok(()) };
        // It may have been made anew in this moment.
        self.index.lock().await.index = None;
        match self.interface().await? {
            same if same == parent => Err(error),
            other => self.put(other, other, &frame).await,
        }
    }

    /// Asks everybody about an address, from `sender`; unspecified: a probe. It goes by the shim where there is one: a
    /// frame sent by the parent itself does not reach the containers of this host.
    pub async fn ask(&self, mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Result<()> {
        let parent = self.interface().await?;
        let shim = link::by_name(&self.netlink, &shim::name(&self.parent)).await?;
        let way = shim.filter(|shim| shim.up && shim.parent == Some(parent));
        let way = way.map_or(parent, |shim| shim.index);
        self.put(parent, way, &arp::build(mac, sender, target)).await
    }

    /// The index of the parent. It is asked for again when something has happened to an interface of that name.
    async fn interface(&self) -> Result<u32> {
        let mut known = self.index.lock().await;
        if known.happenings.changed(&self.parent) {
            known.index = None;
        }
        if let Some(index) = known.index {
            return Ok(index);
        }
        let link = link::by_name(&self.netlink, &self.parent)
            .await?
            .with_context(|| format!("{} is not there", self.parent))
            .with_context(|| format!("send by {}", self.parent))?;
        Ok(*known.index.insert(link.index))
    }

    /// Sends a frame by interface `way`, with the socket that listens on `parent`.
    async fn put(&self, parent: u32, way: u32, frame: &[u8]) -> Result<()> {
        let failed = || format!("send by {}", self.parent);
        let mut held = self.socket.lock().await;
        let open = match held.take() {
            Some(open) if open.index == parent => held.insert(open),
            _ => held.insert(self.open(parent).await.with_context(failed)?),
        };
        // A full queue is a lost packet like any other: the machine sends it again.
        match packet_socket::send(open.socket.get_ref(), way, frame) {
            Ok(_) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e).with_context(failed),
        }
    }

    /// The addresses that anybody watches.
    fn watched(&self) -> Vec<Ipv4Addr> {
        let listeners = self.listeners();
        listeners.iter().filter(|listener| !listener.ear.is_closed()).filter_map(|l| l.watched).collect()
    }

    /// Lets the socket, if it is open, hear of the addresses that are watched.
    async fn attune(&self) -> Result<()> {
        let held = self.socket.lock().await;
        let Some(open) = held.as_ref() else { return Ok(()) };
        packet_socket::hear(open.socket.get_ref(), &self.watched()).context("listen for ARP")
    }

    #[expect(
        deprecated,
        reason = "its successor is unsafe, for a promise that an owned socket keeps by itself"
    )]
    async fn open(&self, index: u32) -> Result<Open> {
        let watched = self.watched();
        let socket = self.host.run(move || packet_socket::open(index, &watched)).await??;
        let socket = AsyncFd::with_interest(socket, Interest::READABLE).context("watch a packet socket")?;
        let socket = Arc::new(socket);
        let listener = tokio::spawn(listen(socket.clone(), self.listeners.clone(), self.parent.clone()));
        Ok(Open { socket, index, _listener: AbortOnDropHandle::new(listener) })
    }
}

async fn listen(socket: Arc<AsyncFd<Socket>>, listeners: Listeners, parent: String) {
    let mut buffer = vec![0; LONGEST];
    loop {
        let Ok(mut ready) = socket.readable().await else { return };
        match ready.try_io(|socket| socket.get_ref().read(&mut buffer)) {
            Ok(Ok(length)) => hand_out(&buffer[..length], &listeners),
            // The parent went down: the error is reported once, and the socket works again when it comes up.
            Ok(Err(error)) => tracing::debug!(%parent, %error, "packet socket"),
            Err(_would_block) => {}
        }
    }
}

fn hand_out(frame: &[u8], listeners: &Listeners) {
    let listeners = listeners.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(arp) = arp::parse(frame) {
        let about = |a: &Ipv4Addr| *a == arp.sender || (arp.sender.is_unspecified() && *a == arp.target);
        for listener in listeners.iter().filter(|listener| listener.watched.as_ref().is_some_and(about)) {
            let _ = listener.ear.try_send(Heard::Arp(arp));
        }
        return;
    }
    let Some((from, payload)) = frame::parse(frame) else { return };
    let Some(reply) = Reply::decode(payload, from) else { return };
    for listener in listeners.iter().filter(|listener| listener.mac == reply.mac) {
        let _ = listener.ear.try_send(Heard::Reply(Box::new(reply.clone())));
    }
}
