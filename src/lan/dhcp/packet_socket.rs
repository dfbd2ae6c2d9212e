//! An AF_PACKET socket that sees nothing but what is for DHCP clients.

use std::io;

use nix::libc;
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

/// A socket on interface `index` of the calling thread's network namespace, non-blocking.
pub fn open(index: u32) -> io::Result<Socket> {
    // With protocol 0 nothing arrives until the filter is there and the socket bound.
    let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
    socket.attach_filter(&filter())?;
    socket.set_nonblocking(true)?;
    socket.bind(&address(index))?;
    Ok(socket)
}

/// A `sockaddr_ll` for all protocols on interface `index`. No crate in the tree can make one safely.
#[allow(unsafe_code)]
fn address(index: u32) -> SockAddr {
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

/// "IPv4, UDP, not a later fragment, destination port 68, not sent by this host" (the classic BPF of
/// Documentation/networking/filter.rst).
fn filter() -> Vec<SockFilter> {
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_HALF_AFTER_X: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
    const LOAD_IP_LENGTH: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    let outgoing = u32::from(libc::PACKET_OUTGOING);
    vec![
        SockFilter::new(LOAD_BYTE, 0, 0, packet_type),
        SockFilter::new(EQUAL, 9, 0, outgoing),
        SockFilter::new(LOAD_HALF, 0, 0, 12),
        SockFilter::new(EQUAL, 0, 7, libc::ETH_P_IP as u32),
        SockFilter::new(LOAD_BYTE, 0, 0, 23),
        SockFilter::new(EQUAL, 0, 5, libc::IPPROTO_UDP as u32),
        SockFilter::new(LOAD_HALF, 0, 0, 20),
        SockFilter::new(ANY_BIT, 3, 0, 0x1fff),
        SockFilter::new(LOAD_IP_LENGTH, 0, 0, 14),
        SockFilter::new(LOAD_HALF_AFTER_X, 0, 0, 16),
        SockFilter::new(EQUAL, 1, 0, 68),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ]
}
