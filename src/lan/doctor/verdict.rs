//! From what was seen to what it means and what to do. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::{Facts, Offer, Platform};
use crate::lan::lease::State;
use crate::lan::lease::grant::same_subnet;
use crate::lan::link::unfit_as_parent;
use crate::report::Finding;
use crate::spec::Mac;

pub const AREA: &str = "network";

fn ok(what: String) -> Finding {
    Finding::ok(AREA, what)
}

fn warning(what: String) -> Finding {
    Finding::warning(AREA, what)
}

fn problem(what: String) -> Finding {
    Finding::problem(AREA, what)
}

/// What is to be said of one parent interface, in the order in which a person would look.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = vec![parent(facts)];
    if all[0].level != crate::report::Level::Ok {
        // What lies behind it cannot be judged.
        return all;
    }
    all.push(platform(facts));
    all.extend(servers(facts));
    all.push(host(facts));
    all.extend(duplicates(facts));
    all
}

fn parent(facts: &Facts) -> Finding {
    let name = &facts.parent;
    let Some(link) = &facts.link else {
        return problem(format!("the parent interface {name} does not exist on this host"))
            .next("ip -brief link   # then: moorage setup --parent with one of these");
    };
    if facts.wireless {
        return problem(format!("{name} is a wireless interface"))
            .why("an access point takes frames of one MAC only, so no container would be heard")
            .next("use a wired interface, or give containers Docker's own network: --address nat");
    }
    if let Some(why) = unfit_as_parent(link) {
        let finding = problem(format!("containers cannot be put on {name}")).why(why);
        return match link.up {
            true => finding.next("moorage setup --parent with another interface"),
            false => finding.next(format!("ip link set {name} up")),
        };
    }
    if !facts.carrier {
        return problem(format!("{name} is up, but nothing is plugged in"))
            .next("plug the cable in, or look at the switch's port");
    }
    match facts.promiscuous {
        true => ok(format!("{name} is up, and promiscuous: it takes frames of any MAC")),
        false => ok(format!("{name} is up; the kernel has its card take the frames of the containers' MACs")),
    }
}

fn platform(facts: &Facts) -> Finding {
    let answered = facts.offers.as_ref().is_ok_and(|offers| !offers.is_empty());
    match facts.platform {
        Platform::Plain => ok("no hypervisor or cloud is known to be in between".to_owned()),
        Platform::Virtual(name, _) if answered => {
            ok(format!("this host is a virtual machine ({name}), and frames of foreign MACs come through"))
        }
        Platform::Virtual(name, advice) => warning(format!(
            "this host is a virtual machine ({name}), which may drop frames of the containers' MACs"
        ))
        .next(advice),
        Platform::Cloud(name) if answered => {
            ok(format!("this host is in a cloud ({name}), and frames of foreign MACs come through"))
        }
        Platform::Cloud(name) => warning(format!(
            "this host is in a cloud ({name}), whose network drops frames of foreign MACs"
        ))
        .next("give containers Docker's own network (--address nat), or try a LAN inside: moorage start-lab"),
    }
}

fn servers(facts: &Facts) -> Vec<Finding> {
    let (name, probe) = (&facts.parent, facts.probe);
    let offers = match &facts.offers {
        Err(why) => {
            return vec![problem(format!("no DISCOVER can be sent by {name}")).why(why.clone())];
        }
        Ok(offers) => offers,
    };
    let [first, others @ ..] = offers.as_slice() else {
        let waited = facts.waited.as_secs();
        return vec![
            problem(format!("no DHCP server answers on {name}: a DISCOVER of {probe} brought nothing in {waited} s"))
                .why("the server may be away or out of addresses, or a switch, hypervisor or cloud drops frames of MACs it does not know")
                .next(format!("tcpdump -eni {name} port 67 or port 68   # while moorage doctor runs in another terminal")),
        ];
    };
    let said = |offer: &Offer| format!("{} (from {}) offers {}", offer.server, offer.via, offer.address);
    let mut all = vec![ok(format!("a DHCP server answers on {name}: {} to {probe}", said(first)))];
    if !others.is_empty() {
        let mut finding = warning(format!("{} DHCP servers answer on {name}", offers.len()));
        finding.why = offers.iter().map(said).collect();
        all.push(finding.next(
            "ask the LAN's administrator whether both are meant to: a foreign one hands out addresses that lead nowhere",
        ));
    }
    let granted: BTreeSet<Ipv4Addr> = facts.leases.iter().filter_map(|lease| lease.server).collect();
    let silent: Vec<_> =
        granted.iter().filter(|server| !offers.iter().any(|o| o.server == **server)).collect();
    for server in silent {
        all.push(
            warning(format!("the DHCP server {server}, which granted leases of this host, does not answer on {name}"))
                .next("moorage list-leases   # they end when their time runs out, unless it comes back or another server takes over"),
        );
    }
    all
}

fn host(facts: &Facts) -> Finding {
    let name = &facts.parent;
    let wanted = facts.leases.iter().filter_map(|lease| lease.address);
    let offered = facts.offers.iter().flatten().map(|offer| offer.address);
    let addresses: Vec<Ipv4Addr> = wanted.chain(offered).collect();
    let reaches = |to: &&Ipv4Addr| !facts.host.iter().any(|(own, prefix)| same_subnet(*own, **to, *prefix));
    match addresses.iter().find(reaches) {
        None => ok(format!("this host can talk to its containers by {name}")),
        Some(address) => warning(format!(
            "this host has no address of {address}'s subnet on {name}, so it cannot talk to its own containers"
        ))
        .why("everybody else on the LAN can")
        .next(format!("give {name} an address of that subnet, by DHCP or by hand")),
    }
}

/// Two who believe in the same address.
fn duplicates(facts: &Facts) -> Vec<Finding> {
    let mut users: BTreeMap<Ipv4Addr, Vec<String>> = BTreeMap::new();
    for lease in facts.leases.iter().filter(|lease| lease.state.is_bound()) {
        let name = if lease.hostname.is_empty() { lease.mac.to_string() } else { lease.hostname.clone() };
        users.entry(lease.address.unwrap_or(Ipv4Addr::UNSPECIFIED)).or_default().push(name);
    }
    users.remove(&Ipv4Addr::UNSPECIFIED);
    let chosen = |address: &Ipv4Addr| {
        let mut leases = facts.leases.iter().filter(|lease| lease.address == Some(*address));
        leases.any(|lease| lease.state == State::Static)
    };
    let twice = users.iter().filter(|(_, names)| names.len() > 1).map(|(address, names)| {
        let names = names.join(" and ");
        match chosen(address) {
            true => problem(format!("{address} is the address of {names}"))
                .next("one of them needs another --address, which the DHCP servers do not grant"),
            false => problem(format!("{address} was granted to {names}"))
                .next("ask the LAN's administrator why its DHCP servers grant one address twice"),
        }
    });
    // Of this host's own it was said.
    let ours = |mac: &Mac| facts.leases.iter().any(|lease| lease.mac == *mac);
    let claimed = facts.claims.iter().filter(|claim| !ours(&claim.by)).map(|claim| {
        let user = facts.leases.iter().find(|lease| lease.mac == claim.user);
        let user = user.map(|lease| lease.hostname.clone()).filter(|name| !name.is_empty());
        let user = user.unwrap_or_else(|| claim.user.to_string());
        problem(format!("{} of {user} is used by another machine, too: {}", claim.address, claim.by))
            .why("whoever sends to it reaches now one of them and now the other")
            .next("find that machine by its MAC in the switch's table, and give it another address")
    });
    twice.chain(claimed).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::lan::link::Link;
    use crate::lan::view::LeaseView;
    use crate::report::Level;

    const PROBE: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    fn offer(server: Ipv4Addr) -> Offer {
        Offer { server, address: Ipv4Addr::new(10, 0, 0, 50), via: Mac([2, 0, 0, 0, 0, 1]) }
    }

    fn lease(mac: u8, address: u8, server: Ipv4Addr) -> LeaseView {
        LeaseView {
            network: "n".into(),
            parent: "eth0".into(),
            mac: Mac([2, 0, 0, 0, 1, mac]),
            hostname: format!("c{mac}"),
            pinned: true,
            state: State::Bound,
            address: Some(Ipv4Addr::new(10, 0, 0, address)),
            prefix: Some(24),
            gateway: None,
            dns: vec![],
            domain: None,
            search: vec![],
            ntp: vec![],
            server: Some(server),
            expires: None,
            attached: true,
            ipv6: vec![],
            last: None,
        }
    }

    fn well() -> Facts {
        Facts {
            parent: "eth0".into(),
            link: Some(Link {
                index: 2,
                name: "eth0".into(),
                mac: None,
                up: true,
                loopback: false,
                kind: None,
                parent: None,
                master: None,
                mtu: 1500,
                vlan: None,
            }),
            carrier: true,
            promiscuous: false,
            wireless: false,
            platform: Platform::Plain,
            host: vec![(Ipv4Addr::new(10, 0, 0, 2), 24)],
            probe: PROBE,
            waited: Duration::from_secs(5),
            offers: Ok(vec![offer(SERVER)]),
            claims: vec![],
            leases: vec![lease(1, 60, SERVER)],
        }
    }

    fn levels(change: impl FnOnce(&mut Facts)) -> (Vec<Level>, String) {
        let mut facts = well();
        change(&mut facts);
        let all = findings(&facts);
        (all.iter().map(|f| f.level).collect(), all.iter().map(|f| format!("{f:?}\n")).collect())
    }

    #[test]
    fn a_good_lan_has_nothing_but_good_to_be_said_of_it() {
        let (levels, all) = levels(|_| {});
        assert!(levels.len() >= 4 && levels.iter().all(|level| *level == Level::Ok), "{all}");
    }

    #[test]
    fn a_parent_that_will_not_do_is_the_only_problem() {
        for (change, word) in [
            ((|f: &mut Facts| f.link = None) as fn(&mut Facts), "does not exist"),
            (|f| f.wireless = true, "wireless"),
            (|f| f.link.as_mut().unwrap().up = false, "ip link set eth0 up"),
            (|f| f.link.as_mut().unwrap().kind = Some("bridge".into()), "is a bridge"),
            (|f| f.carrier = false, "plugged in"),
        ] {
            let (levels, all) = levels(change);
            assert_eq!(levels, [Level::Problem], "{all}");
            assert!(all.contains(word), "{all}");
        }
    }

    #[test]
    fn silence_is_a_problem_and_a_hypervisor_is_named_then() {
        let (levels, all) = levels(|f| {
            f.offers = Ok(vec![]);
            f.platform = Platform::Virtual("VMware", "forged transmits");
        });
        assert!(levels.contains(&Level::Problem) && levels.contains(&Level::Warning), "{all}");
        assert!(all.contains("tcpdump") && all.contains("forged transmits"), "{all}");
        // The server of the lease is silent, too; that is said once.
        assert!(!all.contains("which granted leases"), "{all}");
        // Where it works, nobody has to change the hypervisor.
        let (levels, all) = self::levels(|f| f.platform = Platform::Virtual("VMware", "forged transmits"));
        assert!(levels.iter().all(|level| *level == Level::Ok) && !all.contains("forged"), "{all}");
    }

    #[test]
    fn a_second_server_is_a_warning_that_names_both() {
        let other = Ipv4Addr::new(10, 0, 0, 77);
        let (levels, all) = levels(|f| f.offers.as_mut().unwrap().push(offer(other)));
        assert_eq!(levels.iter().filter(|level| **level == Level::Warning).count(), 1, "{all}");
        assert!(all.contains("10.0.0.77 (from"), "{all}");
        let (_, all) = self::levels(|f| f.leases.push(lease(2, 61, other)));
        assert!(all.contains("10.0.0.77, which granted leases"), "{all}");
    }

    #[test]
    fn an_address_granted_twice_is_a_problem() {
        let (levels, all) = levels(|f| f.leases.push(lease(2, 60, SERVER)));
        assert!(levels.contains(&Level::Problem) && all.contains("was granted to c1 and c2"), "{all}");
        let (_, all) =
            self::levels(|f| f.leases.push(LeaseView { state: State::Static, ..lease(2, 60, SERVER) }));
        assert!(all.contains("is the address of c1 and c2") && all.contains("--address"), "{all}");
    }

    #[test]
    fn an_address_that_another_machine_says_is_its_own_is_a_problem() {
        let claim = |by| super::super::Claim {
            address: Ipv4Addr::new(10, 0, 0, 60),
            user: Mac([2, 0, 0, 0, 1, 1]),
            by,
        };
        let (levels, all) = levels(|f| f.claims.push(claim(Mac([6; 6]))));
        assert!(levels.contains(&Level::Problem), "{all}");
        assert!(all.contains("10.0.0.60 of c1 is used by another machine, too: 06:06"), "{all}");
    }

    #[test]
    fn a_host_without_an_address_there_is_told() {
        let (_, all) = levels(|f| f.host.clear());
        assert!(all.contains("cannot talk to its own containers"), "{all}");
    }
}
