//! VLANs: a network may hang on a tagged sub-interface of its parent, which is made with the first such network and removed
//! with the last.

use anyhow::{Context as _, Result};
use nix::libc;
use rtnetlink::LinkVlan;
use serde::{Deserialize, Serialize};

use super::Lan;
use super::host::{Host, short_hash};
use super::link::{self, Link};
use super::record::NetworkRecord;
use crate::report::{Fault, Kind};

/// The tag of a network (IEEE 802.1Q) and the interface that its frames leave by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vlan {
    pub base: String,
    /// 1 to 4094.
    pub id: u16,
    /// Whether the sub-interface is of our making. One that the host had before stays.
    #[serde(default)]
    pub made: bool,
}

/// What a sub-interface is called: `eth0.120` as everywhere, with a hash where that is longer than the kernel's 15 letters.
pub fn interface(base: &str, id: u16) -> String {
    let usual = format!("{base}.{id}");
    match usual.len() <= 15 {
        true => usual,
        false => format!("mv-{}", short_hash(&usual)),
    }
}

/// Whether a number can be a VLAN's.
pub fn is_id(id: u16) -> bool {
    (1..=4094).contains(&id)
}

impl Host {
    /// Makes the sub-interface, or finds it, and takes it up. Whether it was made now.
    pub async fn tag(&self, vlan: &Vlan) -> Result<bool> {
        let name = interface(&vlan.base, vlan.id);
        let base = self.parent(&vlan.base).await?;
        match link::by_name(&self.netlink, &name).await? {
            Some(there) if is_this(&there, &base, vlan.id) => {
                link::up(&self.netlink, there.index).await?;
                Ok(false)
            }
            Some(_) => {
                let what = format!("{name} is there, and not VLAN {} of {}", vlan.id, vlan.base);
                Err(Fault::new(Kind::Differs, what).next(format!("ip -d link show {name}")).into())
            }
            None => {
                let message = LinkVlan::new(&name, base.index, vlan.id).up().build();
                match self.netlink.handle().link().add(message).execute().await {
                    Ok(()) => Ok(true),
                    Err(error) if link::is(&error, libc::EOPNOTSUPP) => {
                        Err(Fault::new(Kind::Missing, "this host's kernel has no VLANs")
                            .next("modprobe 8021q")
                            .into())
                    }
                    Err(error) => Err(link::plain(error)).with_context(|| format!("make {name}")),
                }
            }
        }
    }

    /// Removes a sub-interface of our making; one that is gone is no error.
    pub async fn untag(&self, vlan: &Vlan) -> Result<()> {
        let name = interface(&vlan.base, vlan.id);
        match link::by_name(&self.netlink, &name).await? {
            Some(there) if there.vlan == Some(vlan.id) => link::delete(&self.netlink, there.index).await,
            _ => Ok(()),
        }
    }
}

fn is_this(there: &Link, base: &Link, id: u16) -> bool {
    there.vlan == Some(id) && there.parent == Some(base.index)
}

impl Lan {
    /// The network's parent is there, if that is up to us: a reboot takes sub-interfaces away, and so does their base's end.
    pub(super) async fn plug_in(&self, network: &NetworkRecord) -> Result<()> {
        match &network.vlan {
            Some(vlan) => self.host.tag(vlan).await.map(drop),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sub_interfaces_have_names_that_the_kernel_takes() {
        assert_eq!(interface("eth0", 120), "eth0.120");
        let long = interface("enp175s0f0np0", 120);
        assert!(long.len() <= 15 && long != interface("enp175s0f0np0", 121), "{long}");
        assert!(is_id(1) && is_id(4094) && !is_id(0) && !is_id(4095));
    }
}
