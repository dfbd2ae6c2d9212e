//! What a server says: OFFER, ACK, NAK, read from hostile bytes.

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::{DhcpOptionIterator, Message};
use dhcproto::v4::{DhcpOption, MAGIC, MessageType, Opcode, OptionCode};

use super::grant::{Grant, Route};
use crate::spec::Mac;

/// What kind of answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Offer,
    Ack,
    Nak,
}

/// One answer of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub answer: Answer,
    pub xid: u32,
    /// Whom it is for: `chaddr`.
    pub mac: Mac,
    /// Option 54; unspecified in an answer that lacks it.
    pub server: Ipv4Addr,
    /// What is granted or offered. Nothing in a NAK, or where a field that a lease cannot do without is absurd.
    pub grant: Option<Grant>,
    /// Option 56: what the server has to say to a person.
    pub message: Option<String>,
}

impl Reply {
    /// Reads a UDP payload that came from Ethernet address `from`. None: not an answer to a DHCP client on Ethernet.
    /// An option that cannot be read counts as absent, as a lease is worth more than a search list.
    pub fn decode(payload: &[u8], from: Mac) -> Option<Reply> {
        let message = Message::new(payload).ok()?;
        // `chaddr` below would reach past its field for a longer hardware address.
        if message.opcode() != Opcode::BootReply || message.hlen() != 6 || payload[236..240] != MAGIC {
            return None;
        }
        let mac = Mac(message.chaddr().try_into().ok()?);
        let mut said = Said::default();
        said.read(message.opts());
        // Options may go on in the two name fields (RFC 2132, 9.3).
        if said.overload & 1 != 0 {
            said.read(DhcpOptionIterator::new(&payload[108..236]));
        }
        if said.overload & 2 != 0 {
            said.read(DhcpOptionIterator::new(&payload[44..108]));
        }
        let answer = match said.kind? {
            MessageType::Offer => Answer::Offer,
            MessageType::Ack => Answer::Ack,
            MessageType::Nak => Answer::Nak,
            _ => return None,
        };
        let server = said.server.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let address = message.yiaddr();
        let message_text = said.message.take();
        let grant = (answer != Answer::Nak).then(|| said.grant(address, from)).flatten();
        Some(Reply { answer, xid: message.xid(), mac, server, grant, message: message_text })
    }
}

/// More routes than a LAN has. A message could carry hundreds, each of which the kernel would be asked for.
const MOST_ROUTES: usize = 64;
/// The least MTU that is believed: what every IPv4 host must take (RFC 791). Less breaks what the container does.
const LEAST_MTU: u16 = 576;

/// The options that `Said::take` understands.
const USED: [OptionCode; 13] = [
    OptionCode::MessageType,
    OptionCode::OptionOverload,
    OptionCode::ServerIdentifier,
    OptionCode::SubnetMask,
    OptionCode::Router,
    OptionCode::DomainNameServer,
    OptionCode::DomainSearch,
    OptionCode::InterfaceMtu,
    OptionCode::NtpServers,
    OptionCode::ClasslessStaticRoute,
    OptionCode::AddressLeaseTime,
    OptionCode::Renewal,
    OptionCode::Rebinding,
];

/// The content of the options we use.
#[derive(Default)]
struct Said {
    kind: Option<MessageType>,
    overload: u8,
    server: Option<Ipv4Addr>,
    mask: Option<Ipv4Addr>,
    routers: Vec<Ipv4Addr>,
    dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    search: Vec<String>,
    mtu: Option<u16>,
    ntp: Vec<Ipv4Addr>,
    routes: Vec<Route>,
    duration: Option<u32>,
    t1: Option<u32>,
    t2: Option<u32>,
    message: Option<String>,
}

impl Said {
    fn read(&mut self, options: DhcpOptionIterator<'_>) {
        for option in options {
            // Text first: the library refuses what is not UTF-8, and it goes to logs and terminals.
            match option.code() {
                OptionCode::DomainName => self.domain = text(option.data()),
                OptionCode::Message => self.message = text(option.data()),
                // Only these: the library's reading of some others panics on lengths that are wrong.
                code if USED.contains(&code) => {
                    if let Ok(option) = option.into_option() {
                        self.take(option);
                    }
                }
                _ => {}
            }
        }
    }

    fn take(&mut self, option: DhcpOption) {
        match option {
            DhcpOption::MessageType(kind) => self.kind = Some(kind),
            DhcpOption::OptionOverload(which) => self.overload = which,
            DhcpOption::ServerIdentifier(server) => self.server = Some(server),
            DhcpOption::SubnetMask(mask) => self.mask = Some(mask),
            DhcpOption::Router(routers) => self.routers = routers,
            DhcpOption::DomainNameServer(servers) => self.dns = servers,
            DhcpOption::DomainSearch(names) => {
                self.search = names
                    .iter()
                    .filter_map(|n| text(n.to_string().trim_end_matches('.').as_bytes()))
                    .collect();
            }
            DhcpOption::InterfaceMtu(mtu) => self.mtu = Some(mtu).filter(|mtu| *mtu >= LEAST_MTU),
            DhcpOption::NtpServers(servers) => self.ntp = servers,
            DhcpOption::ClasslessStaticRoute(routes) => {
                self.routes = routes
                    .into_iter()
                    .take(MOST_ROUTES)
                    .map(|(net, router)| Route {
                        destination: net.network(),
                        prefix: net.prefix_len(),
                        router,
                    })
                    .collect();
            }
            DhcpOption::AddressLeaseTime(seconds) => self.duration = Some(seconds),
            DhcpOption::Renewal(seconds) => self.t1 = Some(seconds),
            DhcpOption::Rebinding(seconds) => self.t2 = Some(seconds),
            _ => {}
        }
    }

    fn grant(self, address: Ipv4Addr, via: Mac) -> Option<Grant> {
        let usable = !(address.is_unspecified()
            || address.is_broadcast()
            || address.is_multicast()
            || address.is_loopback());
        let server = self.server.filter(|s| usable && !s.is_unspecified())?;
        let duration = self.duration.filter(|&d| d > 0)?;
        // RFC 2131, 4.4.5; a server's own idea counts where the three are in order.
        let (half, most) = (duration / 2, (u64::from(duration) * 7 / 8) as u32);
        let t2 = self.t2.filter(|&t| t > 0 && t <= duration).unwrap_or(most);
        let t1 = self.t1.filter(|&t| t > 0 && t <= t2).unwrap_or(half.min(t2));
        Some(Grant {
            address,
            prefix: self.mask.and_then(prefix).unwrap_or_else(|| classful(address)),
            server,
            via,
            routers: self.routers,
            dns: self.dns,
            domain: self.domain,
            search: self.search,
            mtu: self.mtu,
            ntp: self.ntp,
            routes: self.routes,
            duration,
            t1,
            t2,
        })
    }
}

/// The prefix length of a contiguous mask.
fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = u32::from(mask);
    (bits.leading_ones() + bits.trailing_zeros() == 32 && bits != 0).then(|| bits.leading_ones() as u8)
}

/// What an address without a mask meant before there were masks (RFC 791, 3.2).
fn classful(address: Ipv4Addr) -> u8 {
    match address.octets()[0] {
        0..128 => 8,
        128..192 => 16,
        _ => 24,
    }
}

/// One line of printable text.
fn text(bytes: &[u8]) -> Option<String> {
    let text: String = String::from_utf8_lossy(bytes).chars().filter(|c| !c.is_control()).collect();
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use dhcproto::v4::{self, Flags};
    use dhcproto::{Encodable as _, Encoder, Name};
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn bytes(kind: MessageType, options: Vec<DhcpOption>) -> Vec<u8> {
        let mut message = v4::Message::default();
        message
            .set_opcode(Opcode::BootReply)
            .set_xid(7)
            .set_flags(Flags::default())
            .set_yiaddr(Ipv4Addr::new(10, 0, 0, 50))
            .set_chaddr(&MAC.0);
        message.opts_mut().insert(DhcpOption::MessageType(kind));
        for option in options {
            message.opts_mut().insert(option);
        }
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).unwrap();
        bytes
    }

    fn ack(options: Vec<DhcpOption>) -> Grant {
        let mut all = vec![DhcpOption::ServerIdentifier(SERVER), DhcpOption::AddressLeaseTime(3600)];
        all.extend(options);
        Reply::decode(&bytes(MessageType::Ack, all), MAC).unwrap().grant.unwrap()
    }

    #[test]
    fn an_ack_is_read_with_all_its_options() {
        let grant = ack(vec![
            DhcpOption::SubnetMask(Ipv4Addr::new(255, 255, 252, 0)),
            DhcpOption::Router(vec![SERVER]),
            DhcpOption::DomainNameServer(vec![SERVER, Ipv4Addr::new(10, 0, 0, 2)]),
            DhcpOption::DomainName("corp.example".into()),
            DhcpOption::DomainSearch(vec!["a.example".parse::<Name>().unwrap()]),
            DhcpOption::InterfaceMtu(9000),
            DhcpOption::NtpServers(vec![SERVER]),
            DhcpOption::ClasslessStaticRoute(vec![
                ("10.9.0.0/16".parse().unwrap(), SERVER),
                ("0.0.0.0/0".parse().unwrap(), SERVER),
            ]),
        ]);
        assert_eq!((grant.prefix, grant.t1, grant.t2), (22, 1800, 3150));
        assert_eq!(grant.gateway(), Some(SERVER));
        assert_eq!(grant.dns.len(), 2);
        assert_eq!(grant.domain.as_deref(), Some("corp.example"));
        assert_eq!(grant.search, ["a.example"]);
        assert_eq!(grant.mtu, Some(9000));
        let route = Route { destination: Ipv4Addr::new(10, 9, 0, 0), prefix: 16, router: SERVER };
        assert_eq!(grant.routes, [route, Route::default_by(SERVER)]);
    }

    #[test]
    fn times_out_of_order_are_replaced() {
        let grant = ack(vec![DhcpOption::Renewal(9000), DhcpOption::Rebinding(8000)]);
        assert_eq!((grant.t1, grant.t2), (1800, 3150));
        let grant = ack(vec![DhcpOption::Renewal(60), DhcpOption::Rebinding(120)]);
        assert_eq!((grant.t1, grant.t2), (60, 120));
    }

    #[test]
    fn what_no_lease_can_be_made_of_grants_nothing() {
        let without_server = bytes(MessageType::Ack, vec![DhcpOption::AddressLeaseTime(60)]);
        assert_eq!(Reply::decode(&without_server, MAC).unwrap().grant, None);
        let without_time = bytes(MessageType::Ack, vec![DhcpOption::ServerIdentifier(SERVER)]);
        assert_eq!(Reply::decode(&without_time, MAC).unwrap().grant, None);
    }

    #[test]
    fn options_in_the_name_fields_are_read() {
        let mut payload = bytes(MessageType::Ack, vec![DhcpOption::OptionOverload(1)]);
        payload[108..121].copy_from_slice(&[54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 0, 60, 255]);
        let grant = Reply::decode(&payload, MAC).unwrap().grant.unwrap();
        assert_eq!((grant.server, grant.duration), (SERVER, 60));
    }

    #[test]
    fn requests_of_others_and_long_hardware_addresses_are_no_answers() {
        let mut payload = bytes(MessageType::Ack, vec![]);
        payload[2] = 255;
        assert_eq!(Reply::decode(&payload, MAC), None);
        payload[2] = 6;
        assert!(Reply::decode(&payload, MAC).is_some());
        payload[0] = 1;
        assert_eq!(Reply::decode(&payload, MAC), None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(payload in proptest::collection::vec(any::<u8>(), 0..700)) {
            let _ = Reply::decode(&payload, MAC);
        }

        #[test]
        fn no_options_panic(options in proptest::collection::vec(any::<u8>(), 0..600), hlen: u8, at in 0usize..240) {
            let mut payload = bytes(MessageType::Ack, vec![DhcpOption::OptionOverload(3)]);
            payload.truncate(payload.len() - 1);
            payload.extend(options);
            payload[at] = hlen;
            let _ = Reply::decode(&payload, MAC);
        }

        /// Every code there is, with any content of any length.
        #[test]
        fn no_option_panics(options in proptest::collection::vec(
            (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40)), 1..12),
            used in proptest::collection::vec(
            (proptest::sample::select(USED.to_vec()), proptest::collection::vec(any::<u8>(), 0..40)), 0..12),
        ) {
            let mut payload = bytes(MessageType::Ack, vec![]);
            payload.truncate(payload.len() - 1);
            let used = used.into_iter().map(|(code, content)| (u8::from(code), content));
            for (code, content) in used.chain(options) {
                payload.push(code);
                payload.push(content.len() as u8);
                payload.extend(content);
            }
            let _ = Reply::decode(&payload, MAC);
        }

        #[test]
        fn a_grant_is_always_in_order(mask: u32, duration: u32, t1: u32, t2: u32) {
            let payload = bytes(MessageType::Ack, vec![
                DhcpOption::ServerIdentifier(SERVER),
                DhcpOption::SubnetMask(mask.into()),
                DhcpOption::AddressLeaseTime(duration),
                DhcpOption::Renewal(t1),
                DhcpOption::Rebinding(t2),
            ]);
            if let Some(grant) = Reply::decode(&payload, MAC).unwrap().grant {
                prop_assert!(grant.prefix <= 32);
                prop_assert!(grant.t1 <= grant.t2 && grant.t2 <= grant.duration);
            }
        }
    }
}
