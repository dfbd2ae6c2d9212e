//! Ethernet, IPv4 and UDP around a DHCP message.

use std::net::Ipv4Addr;

use dhcproto::v4::CLIENT_PORT;

use crate::spec::Mac;

const ETHERNET: usize = 14;
const IPV4: usize = 20;
const UDP: usize = 8;
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const PROTOCOL_UDP: u8 = 17;

/// Who sends to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub macs: (Mac, Mac),
    /// Source address and UDP port.
    pub from: (Ipv4Addr, u16),
    pub to: (Ipv4Addr, u16),
}

/// A whole Ethernet frame.
pub fn build(ends: &Ends, payload: &[u8]) -> Vec<u8> {
    let (from, to) = (ends.from.0.octets(), ends.to.0.octets());
    let udp_length = ((UDP + payload.len()) as u16).to_be_bytes();
    let total = ((IPV4 + UDP + payload.len()) as u16).to_be_bytes();

    let mut ip = [0u8; IPV4];
    ip[0] = 0x45;
    ip[1] = 0x10; // low delay, as other clients do
    ip[2..4].copy_from_slice(&total);
    ip[8] = 64;
    ip[9] = PROTOCOL_UDP;
    ip[12..16].copy_from_slice(&from);
    ip[16..20].copy_from_slice(&to);
    let sum = checksum(&[&ip]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());

    let mut udp = [0u8; UDP];
    udp[0..2].copy_from_slice(&ends.from.1.to_be_bytes());
    udp[2..4].copy_from_slice(&ends.to.1.to_be_bytes());
    udp[4..6].copy_from_slice(&udp_length);
    let sum = checksum(&[&from, &to, &[0, PROTOCOL_UDP], &udp_length, &udp, payload]);
    // Zero would mean "no checksum" (RFC 768).
    udp[6..8].copy_from_slice(&if sum == 0 { u16::MAX } else { sum }.to_be_bytes());

    [&ends.macs.1.0[..], &ends.macs.0.0, &ETHERTYPE_IPV4, &ip, &udp, payload].concat()
}

/// The payload of a UDP datagram to a DHCP client and the Ethernet address it came from.
///
/// UDP checksums are not verified: a frame that a neighbour on the same host sent (veth, bridge, virtual machine) has
/// none yet when a packet socket sees it.
pub fn parse(frame: &[u8]) -> Option<(Mac, &[u8])> {
    let (ethernet, packet) = frame.split_at_checked(ETHERNET)?;
    if ethernet[12..14] != ETHERTYPE_IPV4 {
        return None;
    }
    let from = Mac(ethernet[6..12].try_into().ok()?);
    let first = *packet.first()?;
    let header = usize::from(first & 0xf) * 4;
    if first >> 4 != 4 || header < IPV4 || packet.len() < header {
        return None;
    }
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    // A short frame is padded, and a fragment is no whole message.
    let packet = packet.get(..total).filter(|packet| packet.len() >= header)?;
    let fragmented = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    if packet[9] != PROTOCOL_UDP || fragmented || checksum(&[&packet[..header]]) != 0 {
        return None;
    }
    let (udp, _) = packet.get(header..)?.split_at_checked(UDP)?;
    let length = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    if u16::from_be_bytes([udp[2], udp[3]]) != CLIENT_PORT {
        return None;
    }
    Some((from, packet.get(header + UDP..header + length)?))
}

/// The Internet checksum (RFC 1071) of the parts in a row. Every part but the last has an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends() -> Ends {
        Ends {
            macs: (Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])),
            from: (Ipv4Addr::new(10, 0, 0, 1), 67),
            to: (Ipv4Addr::new(10, 0, 0, 2), 68),
        }
    }

    #[test]
    fn padding_is_cut_off_and_fragments_are_refused() {
        let mut frame = build(&ends(), b"hello");
        frame.extend([0; 20]);
        assert_eq!(parse(&frame), Some((ends().macs.0, &b"hello"[..])));
        frame[20] = 0x20;
        assert_eq!(parse(&frame), None);
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed(payload in proptest::collection::vec(any::<u8>(), 0..1400)) {
            let frame = build(&ends(), &payload);
            prop_assert_eq!(parse(&frame), Some((ends().macs.0, &payload[..])));
        }

        #[test]
        fn no_bytes_panic(frame in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&frame);
        }

        #[test]
        fn no_damage_panics(at in 0usize..60, value: u8, cut in 0usize..70) {
            let mut frame = build(&ends(), &[7; 20]);
            frame[at] = value;
            frame.truncate(cut);
            let _ = parse(&frame);
        }
    }
}
