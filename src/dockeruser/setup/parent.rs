//! Whether an interface can be the parent of macvlan links, as far as /sys/class/net tells.

use std::fs;
use std::path::Path;

use crate::report::{Fault, Kind};

/// The interface flag of linux/if.h that says it is up.
const IFF_UP: u32 = 1;
/// ARP hardware type of Ethernet (linux/if_arp.h).
const ETHERNET: &str = "1";

/// Checks `name` in `interfaces` (`/sys/class/net`).
pub fn check(interfaces: &Path, name: &str) -> Result<(), Fault> {
    let bad = |kind, why: &str| {
        Fault::new(kind, format!("{name} cannot be the LAN's interface"))
            .why(why)
            .next("ip -brief link shows what there is")
    };
    let directory = interfaces.join(name);
    let plain = !name.is_empty() && name.len() <= 15 && !name.starts_with('.') && !name.contains(['/', ' ']);
    if !plain {
        return Err(bad(Kind::Usage, "that is not the name of an interface"));
    }
    if !directory.exists() {
        let fault = bad(Kind::Missing, "this host has no such interface");
        return Err(fault.next(suggestion(&usable(interfaces))));
    }
    if let Some(why) = unfit(&directory) {
        return Err(bad(Kind::Usage, why).next(suggestion(&usable(interfaces))));
    }
    if !is_up(&directory) {
        return Err(bad(Kind::Missing, "it is down").next(format!("ip link set {name} up")));
    }
    Ok(())
}

/// The interfaces that could be parents, by name.
pub fn usable(interfaces: &Path) -> Vec<String> {
    let entries = fs::read_dir(interfaces).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| unfit(&entry.path()).is_none() && is_up(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// What to type when none, or a wrong one, was named.
pub fn suggestion(usable: &[String]) -> String {
    match usable {
        [] => "plug this host into the LAN; or moorage setup --no-lan; or try a LAN inside it: moorage scripthacker start-lab".into(),
        names => format!(
            "moorage setup --parent {}; or try a LAN inside this host first: moorage scripthacker start-lab",
            names.join(" (or ").to_owned() + &")".repeat(names.len() - 1)
        ),
    }
}

/// Why macvlan cannot work on it, whatever its state.
fn unfit(directory: &Path) -> Option<&'static str> {
    let uevent = fs::read_to_string(directory.join("uevent")).unwrap_or_default();
    let kind = uevent.lines().find_map(|line| line.strip_prefix("DEVTYPE=")).unwrap_or_default();
    if kind == "wlan" || directory.join("wireless").exists() || directory.join("phy80211").exists() {
        return Some("it is Wi-Fi, and an access point takes only one MAC address from a station");
    }
    if kind == "bridge" || directory.join("bridge").exists() {
        return Some("it is a bridge; name the interface that is plugged into the LAN");
    }
    if kind == "macvlan" || kind == "ipvlan" {
        return Some("it hangs on another interface itself; name that one");
    }
    let hardware = fs::read_to_string(directory.join("type")).unwrap_or_default();
    (hardware.trim() != ETHERNET).then_some("it is no Ethernet interface")
}

fn is_up(directory: &Path) -> bool {
    let flags = fs::read_to_string(directory.join("flags")).unwrap_or_default();
    u32::from_str_radix(flags.trim().trim_start_matches("0x"), 16).is_ok_and(|flags| flags & IFF_UP != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(root: &Path, name: &str, files: &[(&str, &str)]) {
        let directory = root.join(name);
        fs::create_dir(&directory).unwrap();
        for (file, text) in [("type", "1\n"), ("flags", "0x1003\n")].iter().chain(files) {
            fs::write(directory.join(file), text).unwrap();
        }
    }

    fn machine() -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        interface(root.path(), "eth0", &[]);
        interface(root.path(), "eth1", &[("flags", "0x1002\n")]);
        interface(root.path(), "lo", &[("type", "772\n")]);
        interface(root.path(), "wlan0", &[("uevent", "DEVTYPE=wlan\nINTERFACE=wlan0\n")]);
        interface(root.path(), "br0", &[("uevent", "DEVTYPE=bridge\n")]);
        interface(root.path(), "mv0", &[("uevent", "DEVTYPE=macvlan\n")]);
        root
    }

    #[test]
    fn only_an_ethernet_interface_that_is_up_will_do() {
        let root = machine();
        assert_eq!(check(root.path(), "eth0"), Ok(()));
        assert_eq!(usable(root.path()), ["eth0"]);
        for (name, kind, word) in [
            ("eth1", Kind::Missing, "down"),
            ("eth7", Kind::Missing, "no such interface"),
            ("wlan0", Kind::Usage, "Wi-Fi"),
            ("br0", Kind::Usage, "bridge"),
            ("mv0", Kind::Usage, "hangs on another"),
            ("lo", Kind::Usage, "no Ethernet"),
            ("../etc", Kind::Usage, "not the name"),
            ("", Kind::Usage, "not the name"),
        ] {
            let fault = check(root.path(), name).unwrap_err();
            assert_eq!(fault.kind, kind, "{name}");
            assert!(fault.why[0].contains(word), "{name}: {fault}");
        }
    }

    #[test]
    fn a_wrong_name_is_answered_with_the_right_one() {
        let fault = check(machine().path(), "wlan0").unwrap_err();
        assert!(fault.next.unwrap().contains("--parent eth0"));
        assert!(suggestion(&[]).contains("start-lab"));
    }
}
