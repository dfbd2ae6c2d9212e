//! What there is of a lab on this machine.

use anyhow::Result;

use super::plan::Seen;
use super::settings::Settings;
use super::{Record, dnsmasq, link, namespace};
use crate::report::{Fault, Kind};

/// Looks, and changes nothing. Fails with [`Kind::Usage`] when a new lab's addresses are in use on this host.
pub(super) fn survey(settings: &Settings, record: Option<&Record>) -> Result<Seen> {
    // Later on interfaces that hang on the lab's own may have them too.
    if record.is_none()
        && let Some((interface, network)) = link::in_use(settings)?
    {
        let what = format!("the lab's {} overlaps with {network} on {interface}", settings.subnet);
        return Err(Fault::new(Kind::Usage, what).next("another --subnet, for example 10.87.0.0/24").into());
    }
    let namespace = namespace::open(&settings.namespace())?;
    let (host, lab) = link::find(settings, namespace.as_ref())?;
    let inode = namespace.as_ref().map(namespace::inode).transpose()?;
    Ok(Seen {
        namespace: namespace.is_some(),
        host_end: host.is_some(),
        host_end_is_ours: record.is_some() && host.is_some_and(|end| end.mac == Some(settings.mac("host"))),
        inside_end: lab.is_some(),
        addresses: [host, lab].iter().all(|end| end.is_some_and(|end| end.set_up)),
        server: dnsmasq::runs(settings, inode)?,
    })
}
