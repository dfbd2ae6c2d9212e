//! dockerd's part of the plugin protocol, over a socket, and what it does to a sandbox between the calls.

use std::path::PathBuf;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use moorage::lan::Lan;
use moorage::spec::Mac;
use serde_json::{Value, json};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

use crate::world::{NETWORK, inside, sh};

#[derive(Clone)]
pub struct Dockerd {
    socket: PathBuf,
    directory: PathBuf,
    /// The driver, where it is served from here. None: it is a process of its own.
    _serving: Option<Arc<AbortOnDropHandle<()>>>,
}

/// A started container.
pub struct Container {
    pub endpoint: String,
    pub sandbox: PathBuf,
    pub address: String,
    pub mac: Option<String>,
}

/// A container whose interface has its address and is up, and lacks its default route.
pub struct Taken {
    dockerd: Dockerd,
    pub container: Container,
    gateway: Option<String>,
}

impl Taken {
    /// The rest of what dockerd does. It fails as dockerd's would where the router cannot be reached.
    pub async fn routed(self) -> Container {
        let Taken { dockerd, container, gateway } = self;
        if let Some(gateway) = gateway {
            container.sh(&format!("ip route add default via {gateway}"));
        }
        let id = json!({"NetworkID": NETWORK, "EndpointID": container.endpoint});
        dockerd.call("ProgramExternalConnectivity", id.clone()).await.unwrap();
        assert_eq!(dockerd.call("EndpointOperInfo", id).await.unwrap(), json!({"Value": {}}));
        container
    }
}

impl Dockerd {
    pub async fn new(lan: &Arc<Lan>, directory: PathBuf) -> Dockerd {
        let socket = directory.join("plugin.sock");
        let _ = std::fs::remove_file(&socket);
        let listener = UnixListener::bind(&socket).unwrap();
        let router = lan.router();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Dockerd { socket, directory, _serving: Some(Arc::new(AbortOnDropHandle::new(serving))) }
    }

    /// One that calls the driver of a daemon whose sockets are in `directory`.
    pub fn of_process(directory: PathBuf) -> Dockerd {
        Dockerd { socket: directory.join("plugin.sock"), directory, _serving: None }
    }

    /// One call with any body; status and answer.
    pub async fn post(&self, method: &str, body: impl Into<Bytes>) -> (u16, Value) {
        self.try_post(method, body).await.unwrap()
    }

    /// The same, where the connection may break.
    async fn try_post(&self, method: &str, body: impl Into<Bytes>) -> anyhow::Result<(u16, Value)> {
        let stream = UnixStream::connect(&self.socket).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let request = hyper::Request::post(format!("/NetworkDriver.{method}"))
            .header("Host", "plugin")
            .header("Accept", "application/vnd.docker.plugins.v1.2+json")
            .body(Full::new(body.into()))
            .unwrap();
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// One call; its answer, or what dockerd would show.
    pub async fn call(&self, method: &str, body: Value) -> Result<Value, String> {
        let (_, answer) = self.post(method, body.to_string()).await;
        match answer.get("Err") {
            Some(error) => Err(error.as_str().unwrap().to_owned()),
            None => Ok(answer),
        }
    }

    pub async fn create_network(&self, id: &str, parent: &str) -> Result<Value, String> {
        let options = json!({
            "com.docker.network.enable_ipv6": false,
            "com.docker.network.generic": {"parent": parent},
        });
        let pool = json!([{"AddressSpace": "null", "Pool": "0.0.0.0/0"}]);
        let body = json!({"NetworkID": id, "Options": options, "IPv4Data": pool, "IPv6Data": []});
        self.call("CreateNetwork", body).await
    }

    /// The answer to CreateEndpoint for one of moorage's own containers.
    pub async fn create_endpoint(&self, endpoint: &str, mac: Mac) -> Result<Value, String> {
        self.call("CreateEndpoint", pinned_body(endpoint, mac)).await
    }

    /// The same, of a daemon that may be killed meanwhile.
    pub async fn try_create_endpoint(&self, endpoint: &str, mac: Mac) -> anyhow::Result<Value> {
        Ok(self.try_post("CreateEndpoint", pinned_body(endpoint, mac).to_string()).await?.1)
    }

    /// Starts a container that moorage pinned.
    pub async fn run(&self, endpoint: &str, mac: Mac) -> Container {
        let created = self.create_endpoint(endpoint, mac).await.unwrap();
        self.join(endpoint, &created).await
    }

    /// The answer to CreateEndpoint for one of moorage's own with an address that a person chose.
    pub async fn create_fixed(&self, endpoint: &str, mac: Mac, address: &str) -> Result<Value, String> {
        let options = json!({
            "moorage.mac": mac.to_string(),
            "moorage.hostname": "demo-main-ann",
            "moorage.address": address,
        });
        self.call("CreateEndpoint", endpoint_body(endpoint, "", options)).await
    }

    /// The answer to CreateEndpoint for a container that somebody else made.
    pub async fn create_foreign(&self, endpoint: &str, mac: &str) -> Value {
        self.call("CreateEndpoint", endpoint_body(endpoint, mac, json!({}))).await.unwrap()
    }

    /// Starts a container that somebody else made.
    pub async fn run_foreign(&self, endpoint: &str, mac: &str) -> Container {
        self.run_foreign_with(endpoint, mac, json!({})).await
    }

    /// The same with driver options.
    pub async fn run_foreign_with(&self, endpoint: &str, mac: &str, options: Value) -> Container {
        let body = endpoint_body(endpoint, mac, options);
        let created = self.call("CreateEndpoint", body).await.unwrap();
        self.join(endpoint, &created).await
    }

    /// Join, and then what dockerd does: take the link, give it name, address and route, IPv6 off, up.
    pub async fn join(&self, endpoint: &str, created: &Value) -> Container {
        self.take(endpoint, created).await.routed().await
    }

    /// The same up to the moment before it sets the default route.
    pub async fn take(&self, endpoint: &str, created: &Value) -> Taken {
        let address = created["Interface"]["Address"].as_str().unwrap_or_default().to_owned();
        let mac = created["Interface"].get("MacAddress").map(|mac| mac.as_str().unwrap().to_owned());
        let sandbox = self.directory.join(format!("sandbox-{endpoint}"));
        let body =
            json!({"NetworkID": NETWORK, "EndpointID": endpoint, "SandboxKey": sandbox, "Options": {}});
        let joined = self.call("Join", body).await.unwrap();
        assert_eq!(joined["DisableGatewayService"], true);
        assert_eq!(joined["InterfaceName"]["DstPrefix"], "eth");
        let link = joined["InterfaceName"]["SrcName"].as_str().unwrap();
        assert!(link.len() <= 15);
        // The sandbox's file comes only now, when the container's process is made.
        std::fs::write(&sandbox, "").unwrap();
        sh(&format!("unshare --net={} true", sandbox.display()));
        inside(&sandbox, "sh -c 'echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6'");
        sh(&format!("ip link set {link} netns {}", sandbox.display()));
        inside(&sandbox, &format!("ip link set {link} down name eth0"));
        if !address.is_empty() {
            inside(&sandbox, &format!("ip address add {address} dev eth0"));
        }
        inside(&sandbox, "ip link set lo up");
        inside(&sandbox, "ip link set eth0 up");
        let container = Container { endpoint: endpoint.into(), sandbox, address, mac };
        Taken { dockerd: self.clone(), container, gateway: joined["Gateway"].as_str().map(str::to_owned) }
    }

    /// Stops a container as dockerd does; its interface goes with its namespace.
    pub async fn stop(&self, container: Container) {
        let id = json!({"NetworkID": NETWORK, "EndpointID": container.endpoint});
        self.call("RevokeExternalConnectivity", id.clone()).await.unwrap();
        self.call("Leave", id.clone()).await.unwrap();
        container.end();
        self.call("DeleteEndpoint", id).await.unwrap();
    }
}

impl Container {
    /// The container's namespace ends, and nobody says so to the driver.
    pub fn end(&self) {
        sh(&format!("umount {}", self.sandbox.display()));
        std::fs::remove_file(&self.sandbox).unwrap();
    }

    pub fn sh(&self, command: &str) -> String {
        inside(&self.sandbox, command)
    }

    /// The address without its prefix length.
    pub fn ip(&self) -> &str {
        self.address.split('/').next().unwrap()
    }

    /// The interface's addresses as the kernel has them.
    pub fn addresses(&self) -> String {
        self.sh("ip -brief -4 address show dev eth0")
    }
}

fn pinned_body(endpoint: &str, mac: Mac) -> Value {
    let options = json!({
        "com.docker.network.portmap": [],
        "moorage.mac": mac.to_string(),
        "moorage.hostname": "demo-main-ann",
    });
    endpoint_body(endpoint, "", options)
}

fn endpoint_body(endpoint: &str, mac: &str, options: Value) -> Value {
    let interface = json!({"Address": "", "AddressIPv6": "", "MacAddress": mac});
    json!({"NetworkID": NETWORK, "EndpointID": endpoint, "Interface": interface, "Options": options})
}
