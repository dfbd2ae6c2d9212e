//! The LAN: a Docker network driver that gives each container an interface, a MAC and a DHCP address of its own there.
//!
//! `driver` speaks dockerd's protocol; `leases` holds one `keeper` a lease, which feeds the pure machine of `lease`
//! and does what it says by `dhcp` (the wire), `sandbox` (the container's interface) and `shim` (the host's way to
//! it). `host`, `link` and `netns` are the kernel's side. Nothing here calls Docker: dockerd holds its own locks while
//! it calls us.

pub mod clock;
mod dhcp;
mod doctor;
mod driver;
mod host;
mod keeper;
pub mod lease;
mod leases;
mod link;
mod netns;
mod record;
mod route;
mod sandbox;
mod shim;
mod stale;
mod view;
mod vlan;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::sync::{broadcast, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::report::{Fault, Kind};
use crate::spec::Mac;
use crate::spec::network::{ConflictCheck, OnTimeout};
use crate::state::{Batched, Records};
use dhcp::Ports;
use host::{Happening, Host};
use keeper::Ground;
use leases::{Handle, Leases};
use record::{Endpoint, Key, LeaseRecord, NetworkRecord, Tenure};
use shim::Shims;

pub use lease::State;
pub use record::Entry;
pub use view::LeaseView;
pub use vlan::interface as vlan_interface;

/// Leases that whoever listens may fall behind.
const NEWS: usize = 256;

/// Where the LAN keeps its state, and how patient it is.
#[derive(Debug, Clone)]
pub struct Config {
    /// Gets the directories `leases` and `networks`.
    pub state: PathBuf,
    /// How long a container's start, or `reserve`, waits for a DHCP server.
    pub dhcp_timeout: Duration,
    /// What a container's start does then; `reserve` always fails.
    pub on_timeout: OnTimeout,
    pub conflict_check: ConflictCheck,
    /// How long dockerd may take from making an endpoint to using it; then it is taken for killed.
    pub join_timeout: Duration,
}

impl Config {
    /// As `config.toml` says where it says nothing: 10 s.
    pub fn new(state: impl Into<PathBuf>) -> Config {
        Config {
            state: state.into(),
            dhcp_timeout: Duration::from_secs(10),
            on_timeout: OnTimeout::default(),
            conflict_check: ConflictCheck::default(),
            join_timeout: Duration::from_secs(60),
        }
    }
}

/// The LAN's leases, links and networks. Dropping it changes nothing in the kernel: running containers keep their
/// addresses, and the next one takes them over.
pub struct Lan {
    config: Config,
    host: Arc<Host>,
    shims: Arc<Shims>,
    leases: Arc<Leases>,
    networks: Mutex<BTreeMap<String, NetworkRecord>>,
    network_records: Records<NetworkRecord>,
    /// Docker's endpoint IDs and the leases they use.
    endpoints: Mutex<HashMap<String, Key>>,
    /// Waiting for dockerd to take links into their sandboxes, by endpoint ID.
    arrivals: Mutex<HashMap<String, AbortOnDropHandle<()>>>,
    /// Containers' MACs that were let go of lately.
    left: Mutex<HashMap<Mac, Instant>>,
    /// The process that called last.
    dockerd: watch::Sender<Option<i32>>,
    /// Held while `examine` asks for offers.
    probing: tokio::sync::Mutex<()>,
    _shim_watch: AbortOnDropHandle<()>,
}

impl Lan {
    /// Takes over what an earlier process kept. The calling thread's network namespace is the host's. Errors: a record
    /// that cannot be read, no right to configure the network.
    pub async fn start(config: Config) -> Result<Arc<Lan>> {
        let network_records: Records<NetworkRecord> = Records::open(config.state.join("networks"))?;
        let (records, kept) = Batched::open(Records::open(config.state.join("leases"))?)?;
        let networks: BTreeMap<String, NetworkRecord> =
            network_records.all()?.into_iter().map(|(_, network)| (network.id.clone(), network)).collect();
        let kept: Vec<LeaseRecord> = kept.into_iter().map(|(_, record)| record).collect();

        let host = Arc::new(Host::open().await?);
        let parent = |record: &LeaseRecord| networks.get(&record.network).map(|n| n.parent.clone());
        let attached = kept.iter().filter_map(|record| {
            let endpoint = record.endpoint.as_ref().filter(|e| e.sandbox.is_some())?;
            Some((parent(record)?, endpoint.address()?))
        });
        let shims = Arc::new(Shims::new(host.clone(), attached));
        let in_use = networks.values().map(|n| n.parent.clone()).collect();
        let links: BTreeSet<&str> =
            kept.iter().filter_map(|r| r.endpoint.as_ref()).map(|e| e.link.as_str()).collect();
        for swept in [shims.retain(&in_use).await, host.collect(|link| links.contains(link)).await] {
            if let Err(error) = swept {
                tracing::warn!("left-over interfaces stay: {error:#}");
            }
        }

        let ground = Arc::new(Ground {
            host: host.clone(),
            shims: shims.clone(),
            records,
            boot: clock::boot_id()?,
            conflict_check: config.conflict_check,
            news: broadcast::Sender::new(NEWS),
        });
        let ports = Ports::new(host.clone());
        let leases = Arc::new(Leases::new(ground, ports));
        let lan = Arc::new(Lan {
            _shim_watch: AbortOnDropHandle::new(tokio::spawn(shims.clone().watch())),
            host,
            shims,
            leases,
            networks: Mutex::new(networks),
            network_records,
            endpoints: Mutex::default(),
            arrivals: Mutex::default(),
            left: Mutex::default(),
            dockerd: watch::Sender::default(),
            probing: tokio::sync::Mutex::default(),
            config,
        });
        let networks = lan.networks().values().cloned().collect::<Vec<_>>();
        for network in networks {
            // The base may come later: each start of a container looks again.
            if let Err(error) = lan.plug_in(&network).await {
                tracing::warn!(parent = %network.parent, "{error:#}");
            }
        }
        for record in kept {
            lan.adopt(record)?;
        }
        Ok(lan)
    }

    /// Goes on with one lease of an earlier process.
    fn adopt(self: &Arc<Self>, record: LeaseRecord) -> Result<()> {
        let key = Key::new(&record.network, record.mac);
        let Ok(network) = self.network(&record.network) else {
            tracing::warn!(lease = %key.file(), "its network is gone; the lease is let run out");
            return Ok(());
        };
        let endpoint = record.endpoint.clone();
        if let Some(Endpoint { id, .. }) = &endpoint {
            self.endpoints().insert(id.clone(), key.clone());
        }
        let handle = self.leases.adopt(record, &network.parent)?;
        match endpoint {
            // dockerd may have been about to take the link.
            Some(endpoint) if endpoint.sandbox.is_some() => {
                self.await_arrival(handle, self.host.happenings(), endpoint);
            }
            Some(endpoint) => self.expect_join(&endpoint.id),
            None => {}
        }
        Ok(())
    }

    /// The handlers of `/NetworkDriver.*`, without `/Plugin.Activate`.
    pub fn router(self: &Arc<Self>) -> axum::Router {
        driver::router(self)
    }

    /// Obtains the lease of (Docker network ID, MAC), or confirms the one that is kept, for the container that comes
    /// next: it is attached without another packet. Cancel-safe.
    ///
    /// Errors: `NotFound`: no such network; `TimedOut`: no server answered within the configured time.
    pub async fn reserve(&self, network: &str, mac: Mac, hostname: &str) -> Result<LeaseView> {
        ensure!(mac.is_usable(), "{mac} cannot be the address of an interface");
        let network = self.network(network)?;
        self.plug_in(&network).await?;
        self.host.parent(&network.parent).await?;
        let record = LeaseRecord::new(&network.id, mac, hostname, Tenure::Pinned);
        let handle = self.leases.open(record, &network.parent).await?;
        Ok(handle.acquire(None, self.config.dhcp_timeout, OnTimeout::Fail).await?.view)
    }

    /// Gives the lease back to its server and forgets it. One that is not kept is no error.
    pub async fn release(&self, network: &str, mac: Mac) -> Result<()> {
        match self.leases.find(&Key::new(network, mac)) {
            Some(handle) => handle.release().await,
            None => Ok(()),
        }
    }

    /// Every lease that is kept, by network and hostname.
    pub fn leases(&self) -> Vec<LeaseView> {
        self.leases.views()
    }

    /// One lease from now on: the receiver sees every later state of it, and ends when it is released.
    pub fn watch(&self, network: &str, mac: Mac) -> Option<watch::Receiver<LeaseView>> {
        self.leases.find(&Key::new(network, mac)).map(|handle| handle.watch())
    }

    /// Waits until a container has the interface; whether it has an address too the view says ([`LeaseView::is_live`]).
    /// Bound the wait yourself. Errors: the lease is not kept, or was released meanwhile.
    pub async fn attached(&self, network: &str, mac: Mac) -> Result<LeaseView> {
        let missing = || Fault::new(Kind::NotFound, format!("{mac} has no lease on network {network}"));
        let mut watch = self.watch(network, mac).ok_or_else(missing)?;
        // An address that is being confirmed again counts when it is.
        let settled = |view: &LeaseView| view.attached && (view.is_live() || view.address.is_none());
        let view = watch.wait_for(settled).await.map_err(|_released| missing())?;
        Ok(view.clone())
    }

    /// Leases whose containers come or go, or are to get other names or time servers, from now on. One who falls behind
    /// looks at [`Lan::leases`].
    pub fn news(&self) -> broadcast::Receiver<LeaseView> {
        self.leases.news()
    }

    /// The last things that happened to a lease, oldest first. Nothing if it is not kept.
    pub async fn journal(&self, network: &str, mac: Mac) -> Result<Vec<Entry>> {
        let Some(handle) = self.leases.find(&Key::new(network, mac)) else { return Ok(Vec::new()) };
        Ok(handle.kept().await?.map(|record| record.journal).unwrap_or_default())
    }

    /// The IPv6 addresses that an attached container has chosen from the LAN's prefixes, asked of its kernel now.
    pub async fn ipv6(&self, network: &str, mac: Mac) -> Result<Vec<Ipv6Addr>> {
        let Some(handle) = self.leases.find(&Key::new(network, mac)) else { return Ok(Vec::new()) };
        let sandbox = handle.kept().await?.and_then(|record| record.endpoint?.sandbox);
        let Some(sandbox) = sandbox else { return Ok(Vec::new()) };
        match sandbox::Inside::find(&sandbox, mac).await? {
            Some(inside) => inside.ipv6().await,
            None => Ok(Vec::new()),
        }
    }

    fn network(&self, id: &str) -> Result<NetworkRecord> {
        let missing = || {
            Fault::new(Kind::NotFound, format!("network {id} is not known to moorage"))
                .why("its options were lost or it belongs to another driver")
                .next("docker network rm it and create it again with -d moorage")
        };
        Ok(self.networks().get(id).cloned().ok_or_else(missing)?)
    }

    /// The keeper of the lease that an endpoint uses.
    fn endpoint(&self, id: &str) -> Result<(Handle, Key)> {
        let missing = || Fault::new(Kind::NotFound, format!("endpoint {id} is not known to moorage"));
        let key = self.endpoints().get(id).cloned().ok_or_else(missing)?;
        let handle = self.leases.find(&key).ok_or_else(missing)?;
        Ok((handle, key))
    }

    fn is_pinned(&self, network: &str, mac: Mac) -> bool {
        self.leases.find(&Key::new(network, mac)).is_some_and(|handle| handle.view().pinned)
    }

    fn networks(&self) -> MutexGuard<'_, BTreeMap<String, NetworkRecord>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn endpoints(&self) -> MutexGuard<'_, HashMap<String, Key>> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrivals(&self) -> MutexGuard<'_, HashMap<String, AbortOnDropHandle<()>>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn left(&self) -> MutexGuard<'_, HashMap<Mac, Instant>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the keeper when dockerd has taken the link from the host into the sandbox, if it was told of one, and set
    /// it up. `happenings` must be older than the link's arrival on the host.
    fn await_arrival(&self, handle: Handle, happenings: broadcast::Receiver<Happening>, endpoint: Endpoint) {
        let routed = endpoint.is_routed();
        let Endpoint { id, link, sandbox: Some(sandbox), .. } = endpoint else { return };
        let (host, endpoint) = (self.host.clone(), id.clone());
        let wait = async move {
            let mac = handle.view().mac;
            match sandbox::Inside::arrival(&host, happenings, (&link, mac), &sandbox, routed).await {
                Ok(true) => drop(handle.arrived(&endpoint).await),
                Ok(false) => {
                    tracing::debug!(%endpoint, "its interface vanished before its sandbox was there")
                }
                Err(error) => tracing::warn!(%endpoint, "cannot follow its interface: {error:#}"),
            }
        };
        self.arrivals().insert(id, AbortOnDropHandle::new(tokio::spawn(wait)));
    }
}
