//! What is missing of a lab, as data, in the order in which it is made; and the commands a person could type instead.

use super::settings::Settings;
use crate::report::{Fault, Kind};
use crate::spec::plan::{Plan, Step};

/// What was found on the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    pub namespace: bool,
    /// An interface with the parent's name.
    pub host_end: bool,
    /// It has the parent's MAC too.
    pub host_end_is_ours: bool,
    pub inside_end: bool,
    /// Both ends are up and have their addresses.
    pub addresses: bool,
    /// The DHCP server runs with this configuration, in this namespace.
    pub server: bool,
}

/// One thing to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Namespace,
    /// Both ends of the veth pair; one that is there alone goes first.
    Links,
    Addresses,
    Server,
}

/// What is to be made. Fails when something of a lab's name is there and no record says that it is ours.
pub fn decide(settings: &Settings, recorded: bool, seen: &Seen) -> Result<Vec<Action>, Fault> {
    let foreign = |what: String, remove: String| {
        Err(Fault::new(Kind::Failed, format!("{what} is there, but not made by a lab")).next(remove))
    };
    if seen.host_end && !(recorded && seen.host_end_is_ours) {
        let parent = settings.parent();
        return foreign(
            format!("the interface {parent}"),
            format!("ip link delete {parent}, or another --name"),
        );
    }
    if seen.namespace && !recorded {
        let name = settings.namespace();
        return foreign(
            format!("the network namespace {name}"),
            format!("ip netns delete {name}, or another --name"),
        );
    }
    let links = seen.namespace && seen.host_end && seen.inside_end;
    let all = [
        (Action::Namespace, seen.namespace),
        (Action::Links, links),
        (Action::Addresses, links && seen.addresses),
        (Action::Server, seen.namespace && seen.server),
    ];
    Ok(all.into_iter().filter(|(_, there)| !there).map(|(action, _)| action).collect())
}

impl Action {
    /// What it does, for a person.
    pub fn text(self, settings: &Settings) -> String {
        let (parent, namespace, subnet) = (settings.parent(), settings.namespace(), settings.subnet);
        match self {
            Action::Namespace => format!("make the network namespace {namespace}"),
            Action::Links => format!("join it to this host by the interface {parent}"),
            Action::Addresses => {
                format!("give {parent} the address {}, the lab's end {}", subnet.host(), subnet.router())
            }
            Action::Server => format!("start DHCP and DNS for {subnet} in it"),
        }
    }

    /// As a step of a plan.
    pub fn step(self, settings: &Settings) -> Step {
        let (parent, namespace, subnet) = (settings.parent(), settings.namespace(), settings.subnet);
        let inside = format!("ip -n {namespace}");
        let (host_mac, lab_mac) = (settings.mac("host"), settings.mac("lab"));
        let shell = match self {
            Action::Namespace => vec![format!("ip netns add {namespace}")],
            Action::Links => vec![format!(
                "ip link add {parent} address {host_mac} type veth peer name lan0 address {lab_mac} netns {namespace}"
            )],
            Action::Addresses => vec![
                format!("ip address replace {}/{} dev {parent}", subnet.host(), subnet.prefix),
                format!("ip link set {parent} up"),
                format!("{inside} link set lo up"),
                format!("{inside} address replace {}/{} dev lan0", subnet.router(), subnet.prefix),
                format!("{inside} address replace {}/64 dev lan0", settings.router6()),
                format!("{inside} link set lan0 up"),
            ],
            Action::Server => vec![format!(
                "ip netns exec {namespace} dnsmasq --conf-file={}/dnsmasq.conf",
                settings.directory()
            )],
        };
        Step { stage: self as u8, step: super::STEP.into(), text: self.text(settings), bytes: None, shell }
    }
}

/// The way back.
pub(super) fn removal(settings: &Settings) -> Plan {
    let step = |stage, text: String, shell: String| Step {
        stage,
        step: super::STEP.into(),
        text,
        bytes: None,
        shell: vec![shell],
    };
    let (parent, namespace, directory) = (settings.parent(), settings.namespace(), settings.directory());
    Plan {
        steps: vec![
            step(0, "stop its DHCP and DNS server".into(), format!("kill $(cat {directory}/dnsmasq.pid)")),
            step(1, format!("remove the interface {parent}"), format!("ip link delete {parent}")),
            step(
                2,
                format!("remove the network namespace {namespace}"),
                format!("ip netns delete {namespace}"),
            ),
            step(3, "remove its files".into(), format!("rm -r {directory} {directory}.json")),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> Settings {
        Settings {
            name: "lab".into(),
            subnet: Default::default(),
            lease_time: super::super::LeaseTime(43_200),
            ping: true,
        }
    }

    const WHOLE: Seen = Seen {
        namespace: true,
        host_end: true,
        host_end_is_ours: true,
        inside_end: true,
        addresses: true,
        server: true,
    };

    #[test]
    fn only_what_is_missing_is_made() {
        use Action::*;
        let decided = |seen: Seen| decide(&settings(), true, &seen).unwrap();
        assert_eq!(decided(Seen::default()), [Namespace, Links, Addresses, Server]);
        assert_eq!(decided(WHOLE), []);
        assert_eq!(decided(Seen { server: false, ..WHOLE }), [Server]);
        assert_eq!(decided(Seen { inside_end: false, ..WHOLE }), [Links, Addresses]);
        assert_eq!(decided(Seen { namespace: false, ..WHOLE }), [Namespace, Links, Addresses, Server]);
    }

    #[test]
    fn what_is_not_ours_is_left_alone() {
        assert!(decide(&settings(), false, &WHOLE).is_err());
        assert!(decide(&settings(), true, &Seen { host_end_is_ours: false, ..WHOLE }).is_err());
        assert!(decide(&settings(), false, &Seen { namespace: true, ..Seen::default() }).is_err());
    }
}
