//! An AF_PACKET socket that sees nothing but what is for DHCP clients, and ARP about their addresses.

use std::io;
use std::net::Ipv4Addr;

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// A socket on interface `index` of the calling thread's network namespace, non-blocking. `addresses`: see [`hear`].
pub fn open(index: u32, addresses: &[Ipv4Addr]) -> io::Result<Socket> {
    // With protocol 0 nothing arrives until the filter is there and the socket bound.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    hear(&socket, addresses)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address(index))?;
    Ok(socket)
}

/// From now on the socket sees ARP whose sender has one of these addresses, or probes for one, and no other. On a large
/// LAN that is next to nothing, where all of its ARP would wake us many times a second.
pub fn hear(socket: &Socket, addresses: &[Ipv4Addr]) -> io::Result<()> {
    socket.attach_filter(&filter(addresses))
}

/// Puts a frame on interface `index`, which need not be the one that the socket listens on.
pub fn send(socket: &Socket, index: u32, frame: &[u8]) -> io::Result<usize> {
    socket.send_to(frame, &address(index))
}

/// A `sockaddr_ll` for all protocols on interface `index`. No crate in the tree can make one safely.
#[allow(unsafe_code)]
pub fn address(index: u32) -> SockAddr {
    let mut storage = SockAddrStorage::zeroed();
    // SAFETY: `sockaddr_ll` is a socket address, is smaller than `sockaddr_storage`, and any bytes are a valid one.
    let address = unsafe { storage.view_as::<libc::sockaddr_ll>() };
    address.sll_family = libc::AF_PACKET as u16;
    // All protocols: only such a tap runs before the macvlan takes the frame away.
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    address.sll_ifindex = index as i32;
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the family is set, and `length` bytes of the storage are initialised.
    unsafe { SockAddr::new(storage, length) }
}

/// As many addresses as fit in a filter of the kernel (BPF_MAXINSNS), looked for twice; with more all ARP is heard.
const MOST_ADDRESSES: usize = 1000;

/// "IPv4, UDP, not a later fragment, destination port 68, not sent by this host", or "ARP from one of the addresses, or
/// a probe for one", from this host's own containers too (the classic BPF of Documentation/networking/filter.rst).
fn filter(addresses: &[Ipv4Addr]) -> Vec<SockFilter> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF_AFTER_X: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
    const LOAD_IP_LENGTH: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let drop = || SockFilter::new(RETURN, 0, 0, 0);
    let take = || SockFilter::new(RETURN, 0, 0, u32::MAX);
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    let outgoing = u32::from(libc::PACKET_OUTGOING);
    let mut filter = vec![
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(EQUAL, 12, 0, libc::ETH_P_ARP as u32),
        SockFilter::new(EQUAL, 0, 10, libc::ETH_P_IP as u32),
        SockFilter::new(LOAD_BYTE, 0, 0, packet_type),
        SockFilter::new(EQUAL, 8, 0, outgoing),
        SockFilter::new(LOAD_BYTE, 0, 0, 23),
        SockFilter::new(EQUAL, 0, 6, libc::IPPROTO_UDP as u32),
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(ANY_BIT, 4, 0, 0x1fff),
        SockFilter::new(LOAD_IP_LENGTH, 0, 0, 14),
        SockFilter::new(LOAD_HALF_AFTER_X, 0, 0, 16),
        SockFilter::new(EQUAL, 0, 1, 68),
        take(),
        drop(),
    ];
    if addresses.len() > MOST_ADDRESSES {
        filter.push(take());
        return filter;
    }
    let one_of_them =
        || addresses.iter().flat_map(|address| [SockFilter::new(EQUAL, 0, 1, u32::from(*address)), take()]);
    filter.push(SockFilter::new(LOAD_WORD, 0, 0, 28));
    filter.extend(one_of_them());
    // A probe has no sender's address.
    filter.extend([SockFilter::new(EQUAL, 1, 0, 0), drop(), SockFilter::new(LOAD_WORD, 0, 0, 38)]);
    filter.extend(one_of_them());
    filter.push(drop());
    filter
}
