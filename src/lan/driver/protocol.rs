//! The remote network driver protocol of Docker (libnetwork, docs/remote.md): its messages as types.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Key of the driver's own options (`docker network create -o`) among the options of a network.
pub const GENERIC: &str = "com.docker.network.generic";
/// Endpoint options that moorage's own containers carry.
pub const OPTION_MAC: &str = "moorage.mac";
pub const OPTION_HOSTNAME: &str = "moorage.hostname";
/// `ADDRESS/PREFIX@GATEWAY`: no server is asked.
pub const OPTION_ADDRESS: &str = "moorage.address";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateNetwork {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(default)]
    pub options: Option<BTreeMap<String, Value>>,
    #[serde(default, rename = "IPv4Data")]
    pub ipv4: Option<Vec<Pool>>,
}

/// What the IPAM driver chose.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Pool {
    #[serde(default)]
    pub pool: String,
}

/// DeleteNetwork.
#[derive(Debug, Deserialize)]
pub struct OfNetwork {
    #[serde(rename = "NetworkID")]
    pub network: String,
}

/// DeleteEndpoint, Leave, EndpointOperInfo, …
#[derive(Debug, Deserialize)]
pub struct OfEndpoint {
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateEndpoint {
    #[serde(rename = "NetworkID")]
    pub network: String,
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    #[serde(default)]
    pub interface: Option<Interface>,
    #[serde(default)]
    pub options: Option<BTreeMap<String, Value>>,
}

/// Empty text: not given.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Interface {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub address: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreatedEndpoint {
    pub interface: Interface,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Join {
    #[serde(rename = "EndpointID")]
    pub endpoint: String,
    pub sandbox_key: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Joined {
    pub interface_name: InterfaceName,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub static_routes: Vec<StaticRoute>,
    /// Without it a container that has no gateway silently gets one on Docker's own bridge.
    pub disable_gateway_service: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct InterfaceName {
    pub src_name: String,
    pub dst_prefix: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct StaticRoute {
    pub destination: String,
    /// 1: on the link.
    pub route_type: u8,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Capabilities {
    pub scope: &'static str,
    pub connectivity_scope: &'static str,
}

/// "Nothing to say", where the protocol wants an object.
#[derive(Debug, Default, Serialize)]
pub struct Nothing {}

/// Whatever the request says, it changes nothing here.
#[derive(Debug, Deserialize)]
pub struct Anything {}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct OperInfo {
    pub value: BTreeMap<String, Value>,
}

/// The text of a driver option; what is not text has none.
pub fn text<'a>(options: &'a Option<BTreeMap<String, Value>>, name: &str) -> Option<&'a str> {
    options.as_ref()?.get(name)?.as_str().filter(|text| !text.is_empty())
}
