//! DHCPv4 on the wire, and the ARP that proves an address, for every lease of a parent interface through one packet
//! socket.
//!
//! The socket is bound to the parent in the host's namespace. A packet socket sees a frame before the kernel hands it
//! to a macvlan, so an answer to a container's MAC is seen too, and nothing depends on the container: the leases of
//! stopped ones are renewed like any other, and a new process needs to enter no namespace.
//!
//! The cost: what we send leaves by the wire, so a DHCP server that runs on this very host behind a macvlan of the
//! same parent is not reached. It would have to listen beyond the parent.

pub mod arp;
pub mod frame;
mod packet_socket;
pub mod port;

pub use port::{Ear, Heard, Port, Ports};
