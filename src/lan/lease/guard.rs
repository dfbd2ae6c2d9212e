//! Whether an address is ours alone (RFC 5227), purely: it is probed for when it is new, announced when nobody else has
//! it, and watched and defended for as long as it is used.
//!
//! A container uses its address at once and is probed for meanwhile: the probe takes four to seven seconds, and a start
//! must not. Strict sites wait for it. Who uses an address says so as soon as nobody has answered the first probe: whoever
//! still knows the machine that had it before talks to that one for as long.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::lan::clock::Boottime;
use crate::spec::Mac;

// RFC 5227, 1.1; milliseconds.
const PROBE_NUM: u32 = 3;
const PROBE_MIN: u64 = 1000;
const PROBE_MAX: u64 = 2000;
const ANNOUNCE_WAIT: u64 = 2000;
/// How long whoever has an address already is given to answer the first probe, before it is announced for a container that
/// uses it; milliseconds. An answer on a LAN takes one.
const ANSWER_WAIT: u64 = 100;
const ANNOUNCE_NUM: u32 = 2;
const ANNOUNCE_INTERVAL: u64 = 2000;
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// An ARP packet, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arp {
    /// Who says it: the sender's hardware address.
    pub mac: Mac,
    /// Whose address the sender says it has; unspecified in a probe.
    pub sender: Ipv4Addr,
    pub target: Ipv4Addr,
}

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Ask who has the address, without claiming it.
    Probe(Ipv4Addr),
    /// Say that we have it.
    Announce(Ipv4Addr),
    /// Nobody else has it.
    Clear(Ipv4Addr),
    /// This other one has it: stop using it.
    Conflict(Ipv4Addr, Mac),
    /// This other one claimed it once; it was told that it is ours.
    Defended(Ipv4Addr, Mac),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Probing {
        sent: u32,
    },
    /// The first probe was sent, and the address is used meanwhile.
    Using,
    Announcing {
        sent: u32,
    },
    Watching,
}

impl Phase {
    /// It is not known yet whether somebody else has the address.
    fn is_doubtful(self) -> bool {
        matches!(self, Phase::Probing { .. } | Phase::Using)
    }
}

#[derive(Debug, Clone, Copy)]
struct Post {
    address: Ipv4Addr,
    phase: Phase,
    wake: Option<Boottime>,
    defended: Option<Boottime>,
}

/// The guard of one container's address.
#[derive(Debug, Clone)]
pub struct Guard {
    mac: Mac,
    post: Option<Post>,
}

impl Guard {
    pub fn new(mac: Mac) -> Guard {
        Guard { mac, post: None }
    }

    /// Looks after `address` from now on, or after none. The one it looks after already is not probed for again.
    /// `probe`: otherwise it is announced at once.
    pub fn post(&mut self, address: Option<Ipv4Addr>, probe: bool, now: Boottime) {
        if self.address() == address {
            return;
        }
        let phase = match probe {
            true => Phase::Probing { sent: 0 },
            false => Phase::Announcing { sent: 0 },
        };
        self.post = address.map(|address| Post { address, phase, wake: Some(now), defended: None });
    }

    /// The address it looks after.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.post.map(|post| post.address)
    }

    /// Whether it is known that nobody else has `address`.
    pub fn cleared(&self, address: Ipv4Addr) -> bool {
        self.post.is_some_and(|p| p.address == address && !p.phase.is_doubtful())
    }

    /// When [`Guard::on_timer`] is due.
    pub fn deadline(&self) -> Option<Boottime> {
        self.post.and_then(|post| post.wake)
    }

    /// What is due. `in_use`: our interface has the address.
    pub fn on_timer(&mut self, in_use: bool, now: Boottime, dice: u32) -> Vec<Step> {
        let Some(post) = self.post.as_mut().filter(|post| post.wake.is_some_and(|wake| now >= wake)) else {
            return Vec::new();
        };
        let wait = |ms| Some(now.after(Duration::from_millis(ms)));
        let address = post.address;
        let between = PROBE_MIN + u64::from(dice) % (PROBE_MAX - PROBE_MIN + 1);
        match post.phase {
            Phase::Probing { sent: 0 } if in_use => {
                post.phase = Phase::Using;
                post.wake = wait(ANSWER_WAIT);
                vec![Step::Probe(address)]
            }
            Phase::Using => {
                post.phase = Phase::Probing { sent: 1 };
                post.wake = wait(between);
                vec![Step::Announce(address)]
            }
            Phase::Probing { sent } if sent < PROBE_NUM => {
                post.phase = Phase::Probing { sent: sent + 1 };
                post.wake = wait(if sent + 1 < PROBE_NUM { between } else { ANNOUNCE_WAIT });
                vec![Step::Probe(address)]
            }
            Phase::Probing { .. } => {
                post.phase = Phase::Announcing { sent: 1 };
                post.wake = wait(ANNOUNCE_INTERVAL);
                vec![Step::Clear(address), Step::Announce(address)]
            }
            Phase::Announcing { sent } => {
                let more = sent + 1 < ANNOUNCE_NUM;
                post.phase = if more { Phase::Announcing { sent: sent + 1 } } else { Phase::Watching };
                post.wake = if more { wait(ANNOUNCE_INTERVAL) } else { None };
                vec![Step::Announce(address)]
            }
            Phase::Watching => {
                post.wake = None;
                Vec::new()
            }
        }
    }

    /// Somebody said something about an address. `in_use`: our interface has it, so that a probe of another is
    /// answered by its kernel and is no conflict.
    pub fn heard(&mut self, arp: &Arp, in_use: bool, now: Boottime) -> Option<Step> {
        let post = self.post.as_mut()?;
        let address = post.address;
        if arp.mac == self.mac {
            return None;
        }
        let claims = arp.sender == address;
        let wants = arp.sender.is_unspecified() && arp.target == address;
        if post.phase.is_doubtful() {
            let taken = claims || (wants && !in_use);
            return taken.then(|| self.lost(address, arp.mac));
        }
        if !claims {
            return None;
        }
        // RFC 5227, 2.4 (b): defended once; an opponent who insists gets it, else both shout for ever.
        match post.defended {
            Some(before) if now.since(before) < DEFEND_INTERVAL => Some(self.lost(address, arp.mac)),
            _ => {
                post.defended = Some(now);
                Some(Step::Defended(address, arp.mac))
            }
        }
    }

    fn lost(&mut self, address: Ipv4Addr, by: Mac) -> Step {
        self.post = None;
        Step::Conflict(address, by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 50);

    fn at(ms: u64) -> Boottime {
        Boottime(Duration::from_millis(ms))
    }

    fn posted() -> Guard {
        let mut guard = Guard::new(OURS);
        guard.post(Some(ADDRESS), true, at(0));
        guard
    }

    fn arp(mac: Mac, sender: Ipv4Addr) -> Arp {
        Arp { mac, sender, target: ADDRESS }
    }

    /// Lets all its alarms go off; what was done, and when the last was.
    fn run(guard: &mut Guard, in_use: bool) -> (Vec<Step>, Boottime) {
        let (mut steps, mut last) = (Vec::new(), at(0));
        while let Some(wake) = guard.deadline() {
            assert!(steps.len() < 20 && wake >= last);
            last = wake;
            steps.extend(guard.on_timer(in_use, wake, 500));
        }
        (steps, last)
    }

    #[test]
    fn a_free_address_is_probed_for_three_times_and_announced_twice() {
        let mut guard = posted();
        assert!(!guard.cleared(ADDRESS));
        let (steps, end) = run(&mut guard, false);
        let (probe, announce) = (Step::Probe(ADDRESS), Step::Announce(ADDRESS));
        assert_eq!(steps, [probe, probe, probe, Step::Clear(ADDRESS), announce, announce]);
        assert!(end >= at(1000 + 1000 + 2000 + 2000) && end <= at(2000 + 2000 + 2000 + 2000));
        assert!(guard.cleared(ADDRESS));
        // The same address again is not probed for again.
        guard.post(Some(ADDRESS), true, at(99_000));
        assert_eq!(guard.deadline(), None);
    }

    #[test]
    fn what_is_used_is_announced_as_soon_as_nobody_has_answered() {
        let mut guard = posted();
        let (steps, _) = run(&mut guard, true);
        let (probe, announce) = (Step::Probe(ADDRESS), Step::Announce(ADDRESS));
        assert_eq!(steps, [probe, announce, probe, probe, Step::Clear(ADDRESS), announce, announce]);

        // Somebody answers: nothing is announced, and they are not talked over.
        let mut guard = posted();
        assert_eq!(guard.on_timer(true, at(0), 0), [probe]);
        assert!(!guard.cleared(ADDRESS));
        assert_eq!(guard.heard(&arp(OTHER, ADDRESS), true, at(5)), Some(Step::Conflict(ADDRESS, OTHER)));
        assert_eq!(guard.deadline(), None);
    }

    #[test]
    fn whoever_answers_a_probe_has_the_address() {
        let mut guard = posted();
        guard.on_timer(true, at(0), 0);
        assert_eq!(guard.heard(&arp(OURS, ADDRESS), true, at(5)), None);
        assert_eq!(guard.heard(&arp(OTHER, ADDRESS), true, at(5)), Some(Step::Conflict(ADDRESS, OTHER)));
        assert_eq!((guard.address(), guard.deadline()), (None, None));
    }

    #[test]
    fn of_two_who_probe_at_once_neither_takes_it() {
        let probe = arp(OTHER, Ipv4Addr::UNSPECIFIED);
        assert_eq!(posted().heard(&probe, false, at(5)), Some(Step::Conflict(ADDRESS, OTHER)));
        assert_eq!(posted().heard(&probe, true, at(5)), None);
    }

    #[test]
    fn an_address_in_use_is_defended_once_in_ten_seconds() {
        let mut guard = posted();
        run(&mut guard, true);
        let claim = arp(OTHER, ADDRESS);
        assert_eq!(guard.heard(&claim, true, at(20_000)), Some(Step::Defended(ADDRESS, OTHER)));
        assert_eq!(guard.heard(&claim, true, at(31_000)), Some(Step::Defended(ADDRESS, OTHER)));
        assert_eq!(guard.heard(&claim, true, at(32_000)), Some(Step::Conflict(ADDRESS, OTHER)));
    }

    #[test]
    fn without_a_probe_it_is_announced_at_once() {
        let mut guard = Guard::new(OURS);
        guard.post(Some(ADDRESS), false, at(0));
        assert!(guard.cleared(ADDRESS));
        assert_eq!(run(&mut guard, true).0, [Step::Announce(ADDRESS); 2]);
    }
}
