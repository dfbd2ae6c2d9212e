//! The cable between host and LAN, in the test's hands: it tells which DHCP messages go by, whoever the server is, and
//! loses those that the test wants lost.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Instant;

use dhcproto::v4::{Message, MessageType};
use dhcproto::{Decodable as _, Decoder};
use nix::libc;
use nix::sched::{CloneFlags, setns};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use crate::kernel::Kernel;
use crate::packet_socket;
use crate::world::{LAN, PARENT, SOON, World, inside, sh};

/// A DHCP message that went by, or was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: MessageType,
    /// To everybody on Ethernet.
    pub broadcast: bool,
    pub message: Message,
    /// The bytes of it, for an option that the library reads otherwise.
    pub payload: Vec<u8>,
}

/// What the wire loses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    Offers,
    /// ACK and NAK.
    Verdicts,
    /// What clients send to one server.
    Unicast,
}

#[derive(Default)]
struct State {
    seen: Vec<Seen>,
    lost: BTreeSet<Lost>,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// The cable. It works until the test ends.
pub struct Wire(Shared);

impl Wire {
    /// Puts itself between the parent interface and the LAN.
    pub async fn interpose(world: &World) -> Wire {
        sh(&format!("ip link delete {PARENT}"));
        let (wire, lan) = (world.new_namespace("wire"), world.path("lan"));
        sh(&format!("ip link add {PARENT} type veth peer name host8 netns {}", wire.display()));
        inside(&wire, &format!("ip link add lan8 type veth peer name {LAN} netns {}", lan.display()));
        for end in ["host8", "lan8"] {
            inside(&wire, &format!("ip link set {end} up"));
        }
        let mut kernel = Kernel::within(&lan);
        world.set_up_ends();
        // Kea looks once whether its interface runs, and the kernel says so a little after it is up.
        kernel.until(|| world.lan(&format!("ip -brief link show {LAN}")).contains(" UP ")).await;
        let shared = Shared::default();
        for (from, to) in [("host8", "lan8"), ("lan8", "host8")] {
            let (shared, namespace) = (shared.clone(), std::fs::File::open(&wire).unwrap());
            std::thread::spawn(move || {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                let (from, to) = (tap(from), tap(to));
                carry(&from, &to, &shared);
            });
        }
        Wire(shared)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.0.lock().unwrap()
    }

    /// From now on these, and only these, are lost.
    pub fn lose(&self, what: &[Lost]) {
        self.state().lost = what.iter().copied().collect();
    }

    /// The server is not heard.
    pub fn silence(&self) {
        self.lose(&[Lost::Offers, Lost::Verdicts]);
    }

    /// All messages so far, the lost ones too.
    pub fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    pub fn count(&self, kind: MessageType) -> usize {
        self.state().seen.iter().filter(|seen| seen.kind == kind).count()
    }

    /// Waits for the next message of this kind that is as wanted.
    pub fn next(&self, kind: MessageType, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let begin = self.state().seen.len();
        self.after(begin, kind, wanted)
    }

    /// Waits for such a message after the first `begin` ones.
    pub fn after(&self, begin: usize, kind: MessageType, wanted: impl Fn(&Seen) -> bool) -> Seen {
        let deadline = Instant::now() + SOON;
        let mut state = self.state();
        loop {
            if let Some(seen) = state.seen.iter().skip(begin).find(|seen| seen.kind == kind && wanted(seen)) {
                return seen.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no such {kind:?}: {:#?}", state.seen);
            state = self.0.1.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// All frames that arrive at an interface of this thread's namespace, none that leave it.
pub fn tap(interface: &str) -> Socket {
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0))).unwrap();
    let index = rustix::net::netdevice::name_to_index(&socket, interface).unwrap();
    let load = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    let equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let answer = (libc::BPF_RET | libc::BPF_K) as u16;
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    socket
        .attach_filter(&[
            SockFilter::new(load, 0, 0, packet_type),
            SockFilter::new(equal, 0, 1, u32::from(libc::PACKET_OUTGOING)),
            SockFilter::new(answer, 0, 0, 0),
            SockFilter::new(answer, 0, 0, u32::MAX),
        ])
        .unwrap();
    socket.bind(&packet_socket::address(index)).unwrap();
    socket
}

/// Until the test's process ends, or its interfaces do.
fn carry(from: &Socket, to: &Socket, shared: &Shared) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(length) = (&mut &*from).read(&mut buffer) {
        let frame = &buffer[..length];
        let mut pass = true;
        if let Some(seen) = dhcp(frame) {
            let mut state = shared.0.lock().unwrap();
            pass = !state.lost.iter().any(|lost| lost.means(&seen));
            state.seen.push(seen);
            shared.1.notify_all();
        }
        if pass && to.send(frame).is_err() {
            return;
        }
    }
}

impl Lost {
    fn means(self, seen: &Seen) -> bool {
        let of_server = matches!(seen.kind, MessageType::Offer | MessageType::Ack | MessageType::Nak);
        match self {
            Lost::Offers => seen.kind == MessageType::Offer,
            Lost::Verdicts => matches!(seen.kind, MessageType::Ack | MessageType::Nak),
            Lost::Unicast => !of_server && !seen.broadcast,
        }
    }
}

fn dhcp(frame: &[u8]) -> Option<Seen> {
    let ipv4 = frame.get(12..14)? == [8, 0] && frame.get(23) == Some(&17);
    let header = usize::from(frame.get(14)? & 15) * 4;
    let ports = frame.get(14 + header..18 + header)?;
    if !ipv4 || !matches!(ports, [0, 67, 0, 68] | [0, 68, 0, 67] | [0, 67, 0, 67]) {
        return None;
    }
    let payload = frame.get(22 + header..)?.to_vec();
    let message = Message::decode(&mut Decoder::new(&payload)).ok()?;
    let kind = message.opts().msg_type()?;
    Some(Seen { kind, broadcast: frame[0] == 0xff, message, payload })
}
