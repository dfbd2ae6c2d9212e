//! The lease machine against a scripted server, with time as a number.

use std::net::Ipv4Addr;
use std::time::Duration;

use dhcproto::v4::MessageType;
use proptest::prelude::*;

use super::*;
use crate::lan::clock::Boottime;
use crate::spec::Mac;

const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const VIA: Mac = Mac([2, 9, 9, 9, 9, 9]);
const MAC: Mac = Mac([2, 0, 0, 0, 0, 9]);
const T1: u64 = 1800;
const T2: u64 = 3150;
const END: u64 = 3600;

pub fn grant(address: Ipv4Addr) -> Grant {
    Grant {
        address,
        prefix: 24,
        server: SERVER,
        via: VIA,
        routers: vec![SERVER],
        dns: vec![],
        domain: None,
        search: vec![],
        mtu: None,
        ntp: vec![],
        routes: vec![],
        duration: END as u32,
        t1: T1 as u32,
        t2: T2 as u32,
    }
}

fn at(seconds: u64) -> Boottime {
    Boottime(Duration::from_secs(seconds))
}

/// A machine and the last packet it sent.
struct Bench {
    machine: Machine,
    sent: Vec<Packet>,
}

impl Bench {
    fn new(lease: Option<u64>) -> Bench {
        let lease =
            lease.map(|granted| Lease { grant: grant(ADDRESS), granted: at(granted), spent: Duration::ZERO });
        Bench { machine: Machine::new(lease, None, true), sent: Vec::new() }
    }

    fn on(&mut self, event: Event, now: u64) -> Vec<Action> {
        let actions = self.machine.on(event, at(now), 1000 + self.sent.len() as u32);
        for action in &actions {
            if let Action::Send(packet) = action {
                self.sent.push(packet.clone());
            }
        }
        actions
    }

    /// Lets the machine's own alarm go off.
    fn alarm(&mut self) -> u64 {
        let wake = self.machine.deadline().expect("an alarm is set");
        let actions = self.machine.on(Event::Timer, wake, 1000 + self.sent.len() as u32);
        self.sent.extend(actions.into_iter().filter_map(|action| match action {
            Action::Send(packet) => Some(packet),
            _ => None,
        }));
        wake.0.as_secs()
    }

    fn last(&self) -> &Packet {
        self.sent.last().expect("something was sent")
    }

    fn reply(&mut self, answer: Answer, address: Ipv4Addr, now: u64) -> Vec<Action> {
        let grant = (answer != Answer::Nak).then(|| grant(address));
        let xid = self.last().xid;
        let reply = Reply { answer, xid, mac: MAC, server: SERVER, grant, message: None };
        self.on(Event::Reply(Box::new(reply)), now)
    }

    /// Bound at time 0, first address.
    fn bound(attached: bool) -> Bench {
        let mut bench = Bench::new(None);
        bench.on(Event::Start, 0);
        bench.reply(Answer::Offer, ADDRESS, 0);
        assert!(bench.reply(Answer::Ack, ADDRESS, 0).contains(&Action::Bound));
        if attached {
            bench.on(Event::Attached, 0);
        }
        bench
    }
}

#[test]
fn a_new_lease_takes_four_packets() {
    let mut bench = Bench::new(None);
    bench.on(Event::Start, 100);
    assert_eq!((bench.last().kind, bench.last().requested), (MessageType::Discover, None));
    let xid = bench.last().xid;
    bench.reply(Answer::Offer, ADDRESS, 101);
    let request = bench.last().clone();
    assert_eq!((request.kind, request.xid, request.secs), (MessageType::Request, xid, 1));
    assert_eq!((request.requested, request.server), (Some(ADDRESS), Some(SERVER)));
    assert_eq!(request.to, To::Everybody);
    assert_eq!(bench.reply(Answer::Ack, ADDRESS, 102), [Action::Bound]);
    assert_eq!(bench.machine.state(), State::Bound);
    // Its time runs from the request, not from the answer.
    assert_eq!(bench.machine.deadline(), Some(at(101 + T1)));
}

#[test]
fn a_silent_lan_is_asked_for_ever_at_growing_intervals() {
    let mut bench = Bench::new(None);
    bench.on(Event::Start, 0);
    let mut before = 0;
    for least in [3, 7, 15, 31, 63, 63, 63] {
        let now = bench.alarm();
        assert!(now - before >= least, "{least}: {before} {now}");
        assert_eq!(bench.last().kind, MessageType::Discover);
        before = now;
    }
}

#[test]
fn an_offer_whose_server_falls_silent_is_dropped() {
    let mut bench = Bench::new(None);
    bench.on(Event::Start, 0);
    bench.reply(Answer::Offer, ADDRESS, 0);
    for _ in 0..4 {
        assert_eq!(bench.last().kind, MessageType::Request);
        bench.alarm();
    }
    assert_eq!((bench.last().kind, bench.machine.state()), (MessageType::Discover, State::Selecting));
}

#[test]
fn a_stored_lease_is_confirmed_by_init_reboot() {
    let mut bench = Bench::new(Some(0));
    bench.on(Event::Start, 1000);
    let packet = bench.last();
    assert_eq!((packet.kind, packet.requested), (MessageType::Request, Some(ADDRESS)));
    assert_eq!((packet.server, packet.ciaddr), (None, Ipv4Addr::UNSPECIFIED));
    assert_eq!(bench.reply(Answer::Ack, ADDRESS, 1000), [Action::Bound]);
    assert_eq!(bench.machine.deadline(), Some(at(1000 + T1)));
}

#[test]
fn a_stored_lease_is_used_if_no_server_answers() {
    for hurried in [true, false] {
        let mut bench = Bench::new(Some(0));
        bench.on(Event::Start, 1000);
        if hurried {
            assert_eq!(bench.on(Event::Deadline, 1003), [Action::Kept]);
        } else {
            bench.alarm();
            assert_eq!(bench.sent.len(), 2);
            bench.alarm();
        }
        assert_eq!(bench.machine.state(), State::Bound);
        assert_eq!(bench.machine.deadline(), Some(at(T1)));
    }
}

#[test]
fn a_stored_lease_that_ran_out_is_discovered_anew_with_the_old_address_as_a_wish() {
    let mut bench = Bench::new(Some(0));
    let actions = bench.on(Event::Start, END);
    assert!(matches!(actions[0], Action::Lost { address: ADDRESS, .. }));
    assert_eq!((bench.last().kind, bench.last().requested), (MessageType::Discover, Some(ADDRESS)));
}

#[test]
fn a_refused_reboot_starts_over_without_the_old_address() {
    let mut bench = Bench::new(Some(0));
    bench.on(Event::Start, 1000);
    let actions = bench.reply(Answer::Nak, ADDRESS, 1000);
    assert!(matches!(actions[0], Action::Lost { address: ADDRESS, .. }));
    assert_eq!((bench.last().kind, bench.last().requested), (MessageType::Discover, None));
    assert_eq!(bench.machine.lease(), None);
}

#[test]
fn a_server_that_offers_and_refuses_is_not_asked_as_fast_as_it_answers() {
    let mut bench = Bench::new(None);
    bench.on(Event::Start, 0);
    bench.reply(Answer::Offer, ADDRESS, 0);
    bench.reply(Answer::Nak, ADDRESS, 0);
    assert_eq!(bench.machine.state(), State::Selecting);
    bench.reply(Answer::Offer, ADDRESS, 0);
    bench.reply(Answer::Nak, ADDRESS, 0);
    assert_eq!(bench.machine.state(), State::Init);
    assert!(bench.machine.deadline() >= Some(at(3)));
    bench.alarm();
    assert_eq!(bench.last().kind, MessageType::Discover);
}

#[test]
fn an_attached_lease_renews_by_unicast_then_rebinds_by_broadcast_then_ends() {
    let mut bench = Bench::bound(true);
    assert_eq!(bench.alarm(), T1);
    let renew = bench.last().clone();
    assert_eq!(renew.to, To::Server { address: SERVER, via: VIA });
    assert_eq!((renew.ciaddr, renew.requested, renew.server), (ADDRESS, None, None));
    while bench.alarm() < T2 {
        assert_eq!(bench.machine.state(), State::Renewing);
        assert_eq!(bench.last().xid, renew.xid);
    }
    assert_eq!(bench.machine.state(), State::Rebinding);
    let rebind = bench.last().clone();
    assert_eq!((rebind.to, rebind.ciaddr), (To::Everybody, ADDRESS));
    assert_eq!((rebind.requested, rebind.server), (None, None));
    while bench.alarm() < END {
        assert_eq!(bench.machine.state(), State::Rebinding);
    }
    assert_eq!((bench.machine.state(), bench.machine.lease()), (State::Selecting, None));
    assert_eq!(bench.last().requested, Some(ADDRESS));
}

#[test]
fn a_parked_lease_renews_as_a_rebooted_client_does() {
    let mut bench = Bench::bound(false);
    assert_eq!(bench.alarm(), T1);
    let packet = bench.last().clone();
    assert_eq!((packet.to, packet.ciaddr), (To::Everybody, Ipv4Addr::UNSPECIFIED));
    assert_eq!((packet.requested, packet.server), (Some(ADDRESS), None));
    assert_eq!(bench.reply(Answer::Ack, ADDRESS, T1), [Action::Bound]);
    assert_eq!(bench.machine.deadline(), Some(at(T1 + T1)));
}

#[test]
fn a_lease_nobody_pinned_ends_quietly_while_parked() {
    let mut bench = Bench::bound(true);
    bench.machine.keep(false);
    bench.on(Event::Parked, 10);
    assert_eq!(bench.machine.deadline(), Some(at(END)));
    let sent = bench.sent.len();
    assert_eq!(bench.alarm(), END);
    assert_eq!((bench.sent.len(), bench.machine.deadline()), (sent, None));
    assert_eq!(bench.machine.lease(), None);
}

#[test]
fn a_new_process_asks_at_once_for_a_running_container_and_in_time_for_a_stopped_one() {
    let mut running = Bench::new(Some(0));
    running.on(Event::Attached, 100);
    running.on(Event::Resume, 100);
    assert_eq!((running.machine.state(), running.last().ciaddr), (State::Renewing, ADDRESS));

    let mut stopped = Bench::new(Some(0));
    stopped.on(Event::Resume, 100);
    assert_eq!((stopped.sent.len(), stopped.machine.deadline()), (0, Some(at(T1))));

    let mut late = Bench::new(Some(0));
    late.on(Event::Resume, T2 + 10);
    assert_eq!(late.machine.state(), State::Rebinding);
}

#[test]
fn a_release_goes_to_the_server_and_ends_it() {
    let mut bench = Bench::bound(false);
    bench.on(Event::Release, 10);
    let packet = bench.last();
    assert_eq!((packet.kind, packet.ciaddr), (MessageType::Release, ADDRESS));
    assert_eq!((packet.server, packet.to), (Some(SERVER), To::Server { address: SERVER, via: VIA }));
    assert_eq!((bench.machine.lease(), bench.machine.deadline()), (None, None));
    assert_eq!(bench.on(Event::Release, 11), []);
}

#[test]
fn an_address_of_somebody_else_s_is_declined_and_another_asked_for() {
    let mut bench = Bench::bound(true);
    let actions = bench.on(Event::Conflict(VIA), 5);
    let Action::Send(decline) = &actions[0] else { panic!("{actions:?}") };
    assert_eq!((decline.kind, decline.requested), (MessageType::Decline, Some(ADDRESS)));
    assert_eq!((decline.server, decline.ciaddr), (Some(SERVER), Ipv4Addr::UNSPECIFIED));
    assert!(matches!(actions[1], Action::Lost { address: ADDRESS, .. }));
    assert_eq!((bench.last().kind, bench.last().requested), (MessageType::Discover, None));
    // A LAN where every address is taken is asked more and more slowly.
    for (conflicts, wait) in [(2, 10), (9, 10), (10, 60), (11, 60)] {
        bench.machine = bench_with_conflicts(conflicts - 1);
        assert!(!bench.on(Event::Conflict(VIA), 100).is_empty());
        assert_eq!(bench.machine.deadline(), Some(at(100 + wait)), "{conflicts}");
        assert_eq!(bench.on(Event::Conflict(VIA), 101), []);
    }
}

/// Bound, after this many addresses that others had.
fn bench_with_conflicts(conflicts: u32) -> Machine {
    let mut bench = Bench::bound(true);
    for _ in 0..conflicts {
        bench.on(Event::Conflict(VIA), 5);
        if bench.machine.state() == State::Init {
            bench.alarm();
        }
        bench.reply(Answer::Offer, ADDRESS, 5);
        bench.reply(Answer::Ack, ADDRESS, 5);
        assert_eq!(bench.machine.state(), State::Bound);
    }
    bench.machine
}

#[test]
fn a_container_that_goes_before_it_had_an_address_ends_the_search_unless_its_mac_is_pinned() {
    for keeps in [true, false] {
        let mut bench = Bench::new(None);
        bench.machine.keep(keeps);
        bench.on(Event::Start, 0);
        bench.on(Event::Attached, 1);
        bench.on(Event::Parked, 2);
        assert_eq!(bench.machine.deadline().is_some(), keeps);
    }
}

#[test]
fn an_endless_lease_is_left_alone() {
    let mut bench = Bench::new(None);
    bench.on(Event::Start, 0);
    bench.reply(Answer::Offer, ADDRESS, 0);
    let endless = Grant { duration: u32::MAX, ..grant(ADDRESS) };
    let xid = bench.last().xid;
    let reply =
        Reply { answer: Answer::Ack, xid, mac: MAC, server: SERVER, grant: Some(endless), message: None };
    bench.on(Event::Reply(Box::new(reply)), 0);
    assert_eq!((bench.machine.state(), bench.machine.deadline()), (State::Bound, None));
}

#[test]
fn answers_to_others_and_late_ones_change_nothing() {
    let mut bench = Bench::bound(true);
    let before = bench.machine.deadline();
    assert_eq!(bench.reply(Answer::Nak, ADDRESS, 5), []);
    assert_eq!(bench.reply(Answer::Offer, ADDRESS, 5), []);
    let stranger = Reply {
        answer: Answer::Ack,
        xid: 1,
        mac: MAC,
        server: SERVER,
        grant: Some(grant(Ipv4Addr::new(6, 6, 6, 6))),
        message: None,
    };
    bench.alarm();
    assert_eq!(bench.on(Event::Reply(Box::new(stranger)), T1), []);
    assert_eq!(bench.machine.lease().map(|l| l.grant.address), Some(ADDRESS));
    assert!(before.is_some());
}

fn events() -> impl Strategy<Value = (u8, u64, u8)> {
    (0u8..14, 0u64..5000, any::<u8>())
}

proptest! {
    /// Whatever happens in whatever order: a bound machine has a lease that has not run out when its alarm is due, a
    /// pinned or attached one that is started never falls asleep, and no renewal carries what RFC 2131 forbids.
    #[test]
    fn the_machine_never_gets_lost(script in proptest::collection::vec(events(), 1..60)) {
        let mut bench = Bench::new(None);
        let mut now = 0;
        let mut released = false;
        bench.on(Event::Start, now);
        for (what, wait, host) in script {
            let address = Ipv4Addr::new(10, 0, 0, host.max(2));
            match what {
                0 => drop(bench.on(Event::Start, now)),
                1 => drop(bench.on(Event::Attached, now)),
                2 => drop(bench.on(Event::Parked, now)),
                3 => drop(bench.on(Event::Deadline, now)),
                4 => drop(bench.reply(Answer::Nak, address, now)),
                5 | 6 => drop(bench.reply(Answer::Offer, address, now)),
                7 | 8 => drop(bench.reply(Answer::Ack, address, now)),
                10 => drop(bench.on(Event::Conflict(VIA), now)),
                11 => drop(bench.on(Event::Clear, now)),
                9 if wait < 50 => drop(bench.on(Event::Release, now)),
                _ => {
                    now += wait;
                    drop(bench.on(Event::Timer, now));
                }
            }
            released |= what == 9 && wait < 50;
            released &= what != 0;
            let machine = &bench.machine;
            if machine.state().is_bound() {
                let lease = machine.lease().expect("bound without a lease");
                prop_assert!(machine.deadline().is_some());
                prop_assert!(machine.deadline() <= lease.expiry());
            }
            prop_assert!(released || machine.deadline().is_some());
            for packet in &bench.sent {
                if packet.kind == MessageType::Request && !packet.ciaddr.is_unspecified() {
                    prop_assert_eq!((packet.requested, packet.server), (None, None));
                }
            }
        }
    }
}
