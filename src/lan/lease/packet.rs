//! What we say: DISCOVER, REQUEST in its four forms, DECLINE, RELEASE (RFC 2131, table 5).

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use dhcproto::v4::{
    CLIENT_PORT, DhcpOption, Flags, Message, MessageType, OptionCode, SERVER_PORT, UnknownOption,
};
use dhcproto::{Encodable as _, Encoder};

use crate::spec::Mac;

/// The shortest BOOTP message (RFC 951); some relays drop shorter ones.
const SHORTEST: usize = 300;

/// What a client always says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub mac: Mac,
    /// One DNS label; empty: none is sent.
    pub hostname: String,
}

/// Where a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    Everybody,
    /// The server, by way of the Ethernet address that its last ACK came from.
    Server {
        address: Ipv4Addr,
        via: Mac,
    },
}

/// One message to a server, before it is bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub kind: MessageType,
    pub xid: u32,
    /// Seconds since the exchange began.
    pub secs: u16,
    /// The address in use; unspecified where none is.
    pub ciaddr: Ipv4Addr,
    /// Option 50.
    pub requested: Option<Ipv4Addr>,
    /// Option 54.
    pub server: Option<Ipv4Addr>,
    pub to: To,
}

impl Packet {
    /// The UDP payload. The broadcast flag is set whenever we could not take an answer by unicast.
    pub fn encode(&self, identity: &Identity) -> Result<Vec<u8>> {
        let mut message = Message::default();
        message.set_xid(self.xid).set_secs(self.secs).set_ciaddr(self.ciaddr).set_chaddr(&identity.mac.0);
        if self.ciaddr.is_unspecified() {
            message.set_flags(Flags::default().set_broadcast());
        }
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType(self.kind));
        // Hardware type 1 and the MAC: the same for ever, whatever Docker calls the endpoint this time.
        let client = [&[1], identity.mac.0.as_slice()].concat();
        options.insert(DhcpOption::ClientIdentifier(client));
        if let Some(address) = self.requested {
            options.insert(DhcpOption::RequestedIpAddress(address));
        }
        if let Some(server) = self.server {
            options.insert(DhcpOption::ServerIdentifier(server));
        }
        if !matches!(self.kind, MessageType::Release | MessageType::Decline) {
            options.insert(DhcpOption::MaxMessageSize(1500));
            options.insert(DhcpOption::ParameterRequestList(wanted()));
            if !identity.hostname.is_empty() {
                options.insert(DhcpOption::Hostname(identity.hostname.clone()));
                options.insert(DhcpOption::Unknown(UnknownOption::new(
                    OptionCode::ClientFQDN,
                    fqdn(&identity.hostname),
                )));
            }
        }
        let mut bytes = Vec::with_capacity(SHORTEST);
        message.encode(&mut Encoder::new(&mut bytes)).context("encode a DHCP message")?;
        if bytes.len() < SHORTEST {
            bytes.resize(SHORTEST, 0);
        }
        Ok(bytes)
    }

    /// The address it comes from: one in use, or none yet.
    pub fn source(&self) -> (Ipv4Addr, u16) {
        (self.ciaddr, CLIENT_PORT)
    }

    pub fn destination(&self) -> (Ipv4Addr, u16) {
        match self.to {
            To::Everybody => (Ipv4Addr::BROADCAST, SERVER_PORT),
            To::Server { address, .. } => (address, SERVER_PORT),
        }
    }

    /// The Ethernet address it goes to.
    pub fn hop(&self) -> Mac {
        match self.to {
            To::Everybody => Mac([0xff; 6]),
            To::Server { via, .. } => via,
        }
    }
}

fn wanted() -> Vec<OptionCode> {
    // 121 before 3, as RFC 3442 asks for.
    vec![
        OptionCode::SubnetMask,
        OptionCode::ClasslessStaticRoute,
        OptionCode::Router,
        OptionCode::DomainNameServer,
        OptionCode::DomainName,
        OptionCode::DomainSearch,
        OptionCode::InterfaceMtu,
        OptionCode::BroadcastAddr,
        OptionCode::NtpServers,
        OptionCode::Renewal,
        OptionCode::Rebinding,
    ]
}

/// Option 81 (RFC 4702): the server updates the DNS (S), names in wire form (E); one label, so it is a partial name
/// and has no root at its end.
fn fqdn(label: &str) -> Vec<u8> {
    let label = label.as_bytes();
    let label = &label[..label.len().min(63)];
    [&[0b0101, 0, 0, label.len() as u8], label].concat()
}

#[cfg(test)]
mod tests {
    use dhcproto::{Decodable as _, Decoder};

    use super::*;

    fn packet() -> Packet {
        Packet {
            kind: MessageType::Request,
            xid: 7,
            secs: 1,
            ciaddr: Ipv4Addr::UNSPECIFIED,
            requested: None,
            server: None,
            to: To::Everybody,
        }
    }

    fn encode(packet: &Packet) -> Message {
        let identity = Identity { mac: Mac([2, 0, 0, 0, 0, 9]), hostname: "siem-9-2-ann".into() };
        let bytes = packet.encode(&identity).unwrap();
        assert!(bytes.len() >= SHORTEST);
        Message::decode(&mut Decoder::new(&bytes)).unwrap()
    }

    #[test]
    fn the_client_identifier_is_the_mac_and_the_name_is_given_twice() {
        let message = encode(&packet());
        assert_eq!(
            message.opts().get(OptionCode::ClientIdentifier),
            Some(&DhcpOption::ClientIdentifier(vec![1, 2, 0, 0, 0, 0, 9]))
        );
        assert_eq!(
            message.opts().get(OptionCode::Hostname),
            Some(&DhcpOption::Hostname("siem-9-2-ann".into()))
        );
        assert!(message.flags().broadcast());
        assert_eq!(&fqdn("ann"), b"\x05\0\0\x03ann");
    }

    #[test]
    fn a_renewal_has_neither_50_nor_54_and_takes_its_answer_by_unicast() {
        let message = encode(&Packet { ciaddr: Ipv4Addr::new(10, 0, 0, 5), ..packet() });
        assert!(!message.flags().broadcast());
        assert!(message.opts().get(OptionCode::RequestedIpAddress).is_none());
        assert!(message.opts().get(OptionCode::ServerIdentifier).is_none());
    }

    #[test]
    fn a_release_asks_for_nothing() {
        let server = Ipv4Addr::new(10, 0, 0, 1);
        let message = encode(&Packet {
            kind: MessageType::Release,
            ciaddr: Ipv4Addr::new(10, 0, 0, 5),
            server: Some(server),
            ..packet()
        });
        for code in [OptionCode::ParameterRequestList, OptionCode::Hostname, OptionCode::RequestedIpAddress] {
            assert!(message.opts().get(code).is_none(), "{code:?}");
        }
        assert!(message.opts().get(OptionCode::ServerIdentifier).is_some());
    }
}
