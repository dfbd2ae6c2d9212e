//! ARP for IPv4 over Ethernet (RFC 826), as far as RFC 5227 needs it.

use std::net::Ipv4Addr;

use crate::lan::lease::Arp;
use crate::spec::Mac;

const ETHERNET: usize = 14;
const LENGTH: usize = ETHERNET + 28;
/// Without its checksum.
const SHORTEST_FRAME: usize = 60;
const ETHERTYPE_ARP: [u8; 2] = [0x08, 0x06];
/// Ethernet, IPv4, and the lengths of their addresses.
const OF_ETHERNET: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];

/// A request to everybody about `target`. With an unspecified `sender` it is a probe, with `target` an announcement.
pub fn build(mac: Mac, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [
        &[0xff; 6][..],
        &mac.0,
        &ETHERTYPE_ARP,
        &OF_ETHERNET,
        &REQUEST,
        &mac.0,
        &sender.octets(),
        &[0; 6],
        &target.octets(),
    ]
    .concat();
    frame.resize(SHORTEST_FRAME, 0);
    frame
}

/// What somebody says about an address, asking or answering. None: no ARP for IPv4 on Ethernet.
pub fn parse(frame: &[u8]) -> Option<Arp> {
    let frame = frame.get(..LENGTH)?;
    if frame[12..14] != ETHERTYPE_ARP || frame[14..20] != OF_ETHERNET {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(frame.get(at..at + 4)?).ok()?));
    let mac = Mac(frame[22..28].try_into().ok()?);
    Some(Arp { mac, sender: address(28)?, target: address(38)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_built_is_parsed() {
        let (mac, address) = (Mac([2, 0, 0, 0, 0, 1]), Ipv4Addr::new(10, 0, 0, 7));
        for sender in [Ipv4Addr::UNSPECIFIED, address] {
            let frame = build(mac, sender, address);
            assert_eq!(frame.len(), SHORTEST_FRAME);
            assert_eq!(parse(&frame), Some(Arp { mac, sender, target: address }));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(frame in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&frame);
        }

        #[test]
        fn no_damage_panics(at in 0usize..60, value: u8, cut in 0usize..70) {
            let mut frame = build(Mac([2; 6]), Ipv4Addr::UNSPECIFIED, Ipv4Addr::LOCALHOST);
            frame[at] = value;
            frame.truncate(cut);
            let _ = parse(&frame);
        }
    }
}
