//! What an admin decides of how containers come by their addresses.

use serde::{Deserialize, Serialize};

/// What a container's start does where no DHCP server answers and no lease is left that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnTimeout {
    /// It starts without an address and gets one as soon as a server answers. The default: after a power cut hosts are
    /// up before routers, and Docker never tries again to start a container whose network failed.
    #[default]
    Background,
    /// It fails.
    Fail,
}

/// When an address is checked for another machine that uses it already (RFC 5227).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictCheck {
    /// While it is used already: the check takes four to seven seconds.
    #[default]
    Background,
    /// Before it is used.
    Before,
    /// Never: for a LAN whose router answers for every address (proxy ARP).
    Off,
}
