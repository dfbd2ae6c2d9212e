//! CreateNetwork and DeleteNetwork.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::protocol::{CreateNetwork, GENERIC, Nothing, OfNetwork};
use crate::lan::Lan;
use crate::lan::record::{Key, NetworkRecord};
use crate::lan::vlan::{self, Vlan};
use crate::report::{Fault, Kind};

/// Every option of `docker network create -o` that there is.
const OPTIONS: [&str; 2] = ["parent", "vlan"];
const USAGE: &str = "docker network create -d moorage --ipam-driver null -o parent=<interface> <name>";

pub async fn create(lan: Arc<Lan>, request: CreateNetwork) -> Result<Nothing> {
    let mut network = validated(&request)?;
    let base = network.vlan.as_ref().map_or(&network.parent, |vlan| &vlan.base);
    lan.host.parent(base).await?;
    if is_wireless(Path::new("/sys"), base) {
        let fault = Fault::new(Kind::Usage, format!("{base} is a wireless interface"))
            .why("an access point takes frames of one MAC only, so no container would be heard")
            .next("use a wired interface, or Docker's own bridge network");
        return Err(fault.into());
    }
    if let Some(vlan) = &mut network.vlan {
        let before = lan
            .networks()
            .values()
            .filter_map(|other| other.vlan.clone())
            .find(|other| (&other.base, other.id) == (&vlan.base, vlan.id));
        vlan.made = lan.host.tag(vlan).await? || before.is_some_and(|before| before.made);
        lan.host.parent(&network.parent).await?;
    }
    lan.network_records.put(&Key::network_file(&network.id), &network)?;
    lan.networks().insert(network.id.clone(), network);
    Ok(Nothing {})
}

/// Its leases go back to their server, and with the last network of a parent the shim goes too.
pub async fn delete(lan: Arc<Lan>, request: OfNetwork) -> Result<Nothing> {
    let Ok(network) = lan.network(&request.network) else { return Ok(Nothing {}) };
    for key in lan.leases.of_network(&network.id) {
        if let Some(handle) = lan.leases.find(&key) {
            handle.release().await.with_context(|| format!("release the lease of {}", key.mac))?;
        }
    }
    lan.network_records.remove(&Key::network_file(&network.id))?;
    let last = {
        let mut networks = lan.networks();
        networks.remove(&network.id);
        networks.values().all(|other| other.parent != network.parent)
    };
    if last {
        lan.shims.remove(&network.parent).await?;
        if let Some(vlan) = network.vlan.filter(|vlan| vlan.made) {
            lan.host.untag(&vlan).await?;
        }
    }
    Ok(Nothing {})
}

/// The network that a request asks for, as far as its text goes.
fn validated(request: &CreateNetwork) -> Result<NetworkRecord, Fault> {
    let usage = |what: String| Fault::new(Kind::Usage, what).next(USAGE);
    if request.network.is_empty() {
        return Err(usage("a network needs an ID".into()));
    }
    let none = BTreeMap::new();
    let given: BTreeMap<&str, &Value> = match request.options.as_ref().and_then(|all| all.get(GENERIC)) {
        None | Some(Value::Null) => BTreeMap::new(),
        Some(Value::Object(options)) => options.iter().map(|(name, value)| (name.as_str(), value)).collect(),
        Some(other) => return Err(usage(format!("the network's options are no options: {other}"))),
    };
    let options = request.options.as_ref().unwrap_or(&none);
    if options.get("com.docker.network.internal") == Some(&Value::Bool(true)) {
        return Err(usage("a network on the LAN cannot be internal".into()));
    }
    // The null driver says 0.0.0.0/0; a subnet means that Docker would hand out addresses of its own.
    let pools = request.ipv4.iter().flatten();
    if let Some(pool) = pools.map(|data| &data.pool).find(|pool| !pool.is_empty() && *pool != "0.0.0.0/0") {
        return Err(usage(format!(
            "addresses come from the LAN's DHCP server, not from Docker's subnet {pool}"
        ))
        .why("--ipam-driver null is missing"));
    }
    if let Some(unknown) = given.keys().find(|name| !OPTIONS.contains(name)) {
        let valid = OPTIONS.join(", ");
        return Err(usage(format!("{unknown:?} is not an option of a network (there is: {valid})")));
    }
    let parent = given.get("parent").and_then(|value| value.as_str()).unwrap_or_default();
    let good = !parent.is_empty()
        && parent.len() <= 15
        && !parent.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control())
        && parent != "."
        && parent != "..";
    let vlan = match given.get("vlan") {
        None => None,
        Some(value) => Some(tag(value).ok_or_else(|| usage(format!("{value} is not a VLAN: 1 to 4094")))?),
    };
    match (good, parent) {
        (true, base) => {
            let parent = vlan.map_or_else(|| base.to_owned(), |id| vlan::interface(base, id));
            let vlan = vlan.map(|id| Vlan { base: base.to_owned(), id, made: false });
            Ok(NetworkRecord { id: request.network.clone(), parent, vlan })
        }
        (false, "") => {
            Err(usage("a network needs the host interface that leads to the LAN: -o parent=".into()))
        }
        (false, _) => Err(usage(format!("{parent:?} is not the name of an interface"))),
    }
}

/// dockerd hands options on as text.
fn tag(value: &Value) -> Option<u16> {
    let id = match value {
        Value::String(text) => text.parse().ok(),
        other => other.as_u64().and_then(|id| u16::try_from(id).ok()),
    };
    id.filter(|id| vlan::is_id(*id))
}

/// Whether sysfs, below `sys`, says that an interface is a Wi-Fi one.
pub fn is_wireless(sys: &Path, interface: &str) -> bool {
    let directory = sys.join("class/net").join(interface);
    directory.join("wireless").exists() || directory.join("phy80211").exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Result<NetworkRecord, Fault> {
        validated(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn what_docker_sends_is_understood() {
        let network = request(
            r#"{"NetworkID":"n","Options":{"com.docker.network.enable_ipv6":false,
            "com.docker.network.generic":{"parent":"eth0"}},
            "IPv4Data":[{"AddressSpace":"null","Pool":"0.0.0.0/0"}],"IPv6Data":null}"#,
        );
        assert_eq!(network.unwrap(), NetworkRecord { id: "n".into(), parent: "eth0".into(), vlan: None });
    }

    #[test]
    fn a_vlan_is_a_sub_interface() {
        let network = |vlan: &str| {
            request(&format!(
                r#"{{"NetworkID":"n","Options":{{"{GENERIC}":{{"parent":"eth0","vlan":{vlan}}}}}}}"#
            ))
        };
        for said in ["\"120\"", "120"] {
            let network = network(said).unwrap();
            assert_eq!(network.parent, "eth0.120");
            assert_eq!(network.vlan, Some(Vlan { base: "eth0".into(), id: 120, made: false }));
        }
        for said in ["0", "\"4095\"", "-1", "\"x\"", "null"] {
            assert!(network(said).unwrap_err().what.contains("is not a VLAN"), "{said}");
        }
    }

    #[test]
    fn bad_options_are_named() {
        let generic = |options: &str| {
            request(&format!(r#"{{"NetworkID":"n","Options":{{"{GENERIC}":{options}}}}}"#)).unwrap_err().what
        };
        insta::assert_snapshot!(generic("{}"), @"a network needs the host interface that leads to the LAN: -o parent=");
        insta::assert_snapshot!(generic(r#"{"parrent":"eth0"}"#), @r#""parrent" is not an option of a network (there is: parent, vlan)"#);
        insta::assert_snapshot!(generic(r#"{"parent":"../eth0"}"#), @r#""../eth0" is not the name of an interface"#);
        insta::assert_snapshot!(generic(r#"{"parent":7}"#), @"a network needs the host interface that leads to the LAN: -o parent=");
        insta::assert_snapshot!(generic("7"), @"the network's options are no options: 7");
        let pool = r#"{"NetworkID":"n","IPv4Data":[{"Pool":"172.18.0.0/16"}]}"#;
        assert_eq!(request(pool).unwrap_err().why, ["--ipam-driver null is missing"]);
    }

    #[test]
    fn wireless_is_seen_in_sysfs() {
        let sys = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sys.path().join("class/net/wlan0/phy80211")).unwrap();
        std::fs::create_dir_all(sys.path().join("class/net/eth0")).unwrap();
        assert!(is_wireless(sys.path(), "wlan0"));
        assert!(!is_wireless(sys.path(), "eth0"));
        assert!(!is_wireless(sys.path(), "eth1"));
    }
}
