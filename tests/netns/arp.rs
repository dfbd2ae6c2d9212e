//! What the LAN hears by ARP.

use std::io::Read as _;
use std::net::Ipv4Addr;

use moorage::spec::Mac;
use nix::sched::{CloneFlags, setns};
use socket2::Socket;

use crate::wire::tap;
use crate::world::{LAN, SOON, World};

/// RFC 5227, 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Asks who has the address, without claiming it.
    Probe,
    Announcement,
}

/// An ear on the LAN, from now on.
pub struct Ear(Socket);

impl Ear {
    pub fn on(world: &World) -> Ear {
        let namespace = std::fs::File::open(world.path("lan")).unwrap();
        let socket = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            tap(LAN)
        });
        let socket = socket.join().unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Ear(socket)
    }

    /// The next that this machine probes for or announces of the address.
    pub fn next(&self, mac: Mac, address: Ipv4Addr) -> Said {
        let mut frame = [0; 2048];
        loop {
            let length = (&self.0).read(&mut frame).expect("nothing more is said");
            if let Some(said) = said(&frame[..length], mac, address) {
                return said;
            }
        }
    }
}

/// Ethernet's header, then that of ARP over Ethernet and IPv4 (RFC 826).
fn said(frame: &[u8], mac: Mac, address: Ipv4Addr) -> Option<Said> {
    let is_request = frame.get(12..22)? == [8, 6, 0, 1, 8, 0, 6, 4, 0, 1];
    let (of, sender, target) = (frame.get(22..28)?, frame.get(28..32)?, frame.get(38..42)?);
    if !is_request || of != mac.0 || target != address.octets() {
        return None;
    }
    if sender == Ipv4Addr::UNSPECIFIED.octets() {
        return Some(Said::Probe);
    }
    (sender == address.octets()).then_some(Said::Announcement)
}
