//! What this host runs on, by what its firmware says. Virtual switches drop frames of MACs they did not give.

use std::path::Path;

/// A machine, or something that pretends to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Platform {
    /// Metal, or nothing that tells.
    Plain,
    /// A hypervisor by name, and what its administrator has to allow.
    Virtual(&'static str, &'static str),
    /// A cloud by name: its network has no place for foreign MACs.
    Cloud(&'static str),
}

const VMWARE: &str =
    "on the port group: accept promiscuous mode, MAC address changes and forged transmits (or MAC learning)";
const HYPER_V: &str = "on the virtual network adapter: enable MAC address spoofing";
const LIBVIRT: &str =
    "use a bridged interface without a MAC filter (no <filterref>, trustGuestRxFilters for macvtap)";
const VIRTUALBOX: &str = "on the bridged adapter: promiscuous mode \"Allow All\"";
const XEN: &str = "use a bridged interface and leave the locking mode of its port open";

/// What `sys` (`/sys`) says.
pub fn here(sys: &Path) -> Platform {
    let read = |name: &str| std::fs::read_to_string(sys.join(name)).unwrap_or_default();
    let hypervisor = read("hypervisor/type");
    named(&read("class/dmi/id/sys_vendor"), &read("class/dmi/id/product_name"), hypervisor.trim())
}

/// Vendor and product as DMI has them, and the hypervisor's own name where it gives one.
fn named(vendor: &str, product: &str, hypervisor: &str) -> Platform {
    let (vendor, product) = (vendor.trim(), product.trim());
    match vendor {
        "Amazon EC2" => Platform::Cloud("Amazon EC2"),
        "Google" => Platform::Cloud("Google Compute Engine"),
        "DigitalOcean" => Platform::Cloud("DigitalOcean"),
        "Hetzner" if product == "vServer" => Platform::Cloud("Hetzner Cloud"),
        "Alibaba Cloud" => Platform::Cloud("Alibaba Cloud"),
        "OpenStack Foundation" => Platform::Cloud("OpenStack"),
        "VMware, Inc." => Platform::Virtual("VMware", VMWARE),
        "Microsoft Corporation" if product == "Virtual Machine" => Platform::Virtual("Hyper-V", HYPER_V),
        "innotek GmbH" => Platform::Virtual("VirtualBox", VIRTUALBOX),
        "QEMU" => Platform::Virtual("QEMU/KVM", LIBVIRT),
        "Xen" => Platform::Virtual("Xen", XEN),
        _ if product == "KVM" || product.starts_with("Standard PC (") => {
            Platform::Virtual("QEMU/KVM", LIBVIRT)
        }
        _ if hypervisor == "xen" => Platform::Virtual("Xen", XEN),
        _ => Platform::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_told_from_what_pretends() {
        assert_eq!(named("Dell Inc.", "PowerEdge R740", ""), Platform::Plain);
        assert_eq!(named("", "", ""), Platform::Plain);
        // Microsoft makes hardware, too.
        assert_eq!(named("Microsoft Corporation", "Surface Pro", ""), Platform::Plain);
        assert!(matches!(
            named("Microsoft Corporation\n", "Virtual Machine\n", ""),
            Platform::Virtual("Hyper-V", _)
        ));
        assert!(matches!(named("VMware, Inc.", "VMware7,1", ""), Platform::Virtual("VMware", _)));
        assert!(matches!(named("Red Hat", "KVM", ""), Platform::Virtual("QEMU/KVM", _)));
        assert!(matches!(named("", "", "xen"), Platform::Virtual("Xen", _)));
        assert_eq!(named("Amazon EC2", "m5.large", ""), Platform::Cloud("Amazon EC2"));
    }
}
