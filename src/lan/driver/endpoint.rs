//! CreateEndpoint, Join, Leave, DeleteEndpoint: a container's start and stop, with a new endpoint ID each time.

use std::sync::Arc;

use anyhow::Result;

use super::protocol::{
    CreateEndpoint, CreatedEndpoint, Interface, InterfaceName, Join, Joined, Nothing, OPTION_ADDRESS,
    OPTION_HOSTNAME, OPTION_MAC, OfEndpoint, StaticRoute, text,
};
use crate::lan::Lan;
use crate::lan::host::link_name;
use crate::lan::lease::Route;
use crate::lan::lease::grant::same_subnet;
use crate::lan::leases::Handle;
use crate::lan::record::{Endpoint, Key, LeaseRecord, Tenure};
use crate::lan::sandbox::Setting;
use crate::lan::view::LeaseView;
use crate::report::{Fault, Kind};
use crate::spec::{Fixed, Mac};

/// The endpoint's link, proved to be usable, and an address for it.
pub async fn create(lan: Arc<Lan>, request: CreateEndpoint) -> Result<CreatedEndpoint> {
    let network = lan.network(&request.network)?;
    lan.plug_in(&network).await?;
    let asked = Asked::of(&lan, &request)?;
    let key = Key::new(&network.id, asked.mac);
    let record = LeaseRecord::new(&network.id, asked.mac, &asked.hostname, asked.tenure);
    let record = LeaseRecord { fixed: asked.fixed, ..record };
    let entered = lan.leases.enter(record, &network.parent).await?;
    let handle = &entered.handle;
    let link = link_name(&request.endpoint);
    let worn = handle.record().await?.worn || lan.has_just_left(asked.mac);

    let claimed = async {
        let address = async {
            let endpoint = Endpoint::new(&request.endpoint, &link);
            let (wait, on_timeout) = (lan.config.dhcp_timeout, lan.config.on_timeout);
            let bound = handle.acquire(Some(endpoint.clone()), wait, on_timeout).await?;
            let set = told(&bound.view);
            if !bound.claimed {
                handle.claim(Endpoint { set: set.clone(), ..endpoint }).await?;
            }
            anyhow::Ok(set)
        };
        let held = lan.host.hold(&link, asked.mac, &network.parent, worn);
        let (_, set) = tokio::try_join!(held, address)?;
        anyhow::Ok(set)
    };
    let set = match claimed.await {
        Ok(set) => set,
        Err(error) => {
            // dockerd sends no DeleteEndpoint for what it could not create.
            if let Err(more) = lan.host.discard(&link).await {
                tracing::warn!(%link, "left behind: {more:#}");
            }
            let _ = handle.leave(&request.endpoint).await;
            if asked.tenure == Tenure::Invented {
                let _ = handle.release().await;
            }
            return Err(error);
        }
    };
    lan.endpoints().insert(request.endpoint.clone(), key);
    lan.expect_join(&request.endpoint);
    // Without one dockerd leaves the interface without: it gets its address later.
    let address = set.map(|set| format!("{}/{}", set.address.0, set.address.1)).unwrap_or_default();
    // dockerd takes it amiss if it is told a MAC that it said itself.
    let mac_address = if asked.told { String::new() } else { asked.mac.to_string() };
    Ok(CreatedEndpoint { interface: Interface { address, mac_address } })
}

/// What dockerd will give the interface; nothing while there is no address.
fn told(view: &LeaseView) -> Option<Setting> {
    let address = (view.address?, view.prefix?);
    view.state.is_bound().then_some(Setting { address, routes: Vec::new(), mtu: None })
}

/// What a request asks for.
struct Asked {
    mac: Mac,
    hostname: String,
    tenure: Tenure,
    /// The address that the person chose.
    fixed: Option<Fixed>,
    /// Whether `Interface.MacAddress` named the MAC.
    told: bool,
}

impl Asked {
    fn of(lan: &Lan, request: &CreateEndpoint) -> Result<Asked> {
        let said = request.interface.as_ref().map(|i| i.mac_address.as_str()).filter(|mac| !mac.is_empty());
        let pinned = text(&request.options, OPTION_MAC);
        let fixed = text(&request.options, OPTION_ADDRESS).map(str::parse::<Fixed>).transpose();
        let fixed = fixed.map_err(|bad| Fault::new(Kind::Usage, format!("{OPTION_ADDRESS}: {bad}")))?;
        let bad = |text: &str| Fault::new(Kind::Usage, format!("{text:?} cannot be the MAC of a container"));
        let parse =
            |text: &str| text.parse::<Mac>().ok().filter(|mac| mac.is_usable()).ok_or_else(|| bad(text));
        let (mac, tenure) = match (pinned, said) {
            (Some(pinned), said) => {
                let mac = parse(pinned)?;
                if said.map(parse).transpose()?.is_some_and(|said| said != mac) {
                    let what =
                        format!("the container has two MACs: {pinned} and {}", said.unwrap_or_default());
                    return Err(Fault::new(Kind::Usage, what).into());
                }
                (mac, Tenure::Pinned)
            }
            (None, Some(said)) => (parse(said)?, Tenure::Given),
            // A call that dockerd repeats must not get another MAC.
            (None, None) => match lan.endpoints().get(&request.endpoint) {
                Some(key) => (key.mac, Tenure::Invented),
                None => (invented(), Tenure::Invented),
            },
        };
        // The person may have given a MAC that moorage pinned: it stays pinned.
        let tenure = match tenure {
            Tenure::Given if lan.is_pinned(&request.network, mac) => Tenure::Pinned,
            // Nothing would be lost with it.
            Tenure::Given if fixed.is_some() => Tenure::Invented,
            other => other,
        };
        let hostname = text(&request.options, OPTION_HOSTNAME).unwrap_or_default().to_owned();
        Ok(Asked { mac, hostname, tenure, fixed, told: said.is_some() })
    }
}

/// Locally administered, unicast, and random.
fn invented() -> Mac {
    let [a, b, c, d, e] = rand::random::<[u8; 5]>();
    Mac([0x02, a, b, c, d, e])
}

/// Hands the link to dockerd, and then waits in the background until it is in the sandbox.
pub async fn join(lan: Arc<Lan>, request: Join) -> Result<Joined> {
    let (handle, key) = lan.endpoint(&request.endpoint)?;
    let _gate = handle.gate().await;
    let link = link_name(&request.endpoint);
    let view = handle.view();
    if !lan.host.has(&link).await? {
        // Somebody took it away between the two calls.
        lan.host.hold(&link, key.mac, &view.parent, true).await?;
    }
    let known = handle.record().await?.endpoint.filter(|known| known.id == request.endpoint);
    let mut set = known.and_then(|known| known.set);
    // A router of another subnet would make dockerd fail, if the lease has changed since CreateEndpoint.
    let gateway = view.gateway.filter(|_| set.as_ref().map(|set| set.address.0) == view.address);
    if let Some(set) = &mut set {
        set.routes = gateway.map(Route::default_by).into_iter().collect();
    }
    let joined = joined(link.clone(), set.as_ref());
    let endpoint =
        Endpoint { set, sandbox: Some(request.sandbox_key), ..Endpoint::new(&request.endpoint, &link) };
    handle.claim(endpoint.clone()).await?;
    lan.await_arrival(handle, lan.host.happenings(), endpoint);
    Ok(joined)
}

fn joined(link: String, set: Option<&Setting>) -> Joined {
    let gateway = set.and_then(|set| set.routes.first()).map(|route| route.router);
    let mut static_routes = Vec::new();
    if let (Some(Setting { address: (address, prefix), .. }), Some(gateway)) = (set, gateway)
        && !same_subnet(*address, gateway, *prefix)
    {
        static_routes.push(StaticRoute { destination: format!("{gateway}/32"), route_type: 1 });
    }
    Joined {
        interface_name: InterfaceName { src_name: link, dst_prefix: "eth" },
        gateway: gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
        static_routes,
        disable_gateway_service: true,
    }
}

pub async fn leave(lan: Arc<Lan>, request: OfEndpoint) -> Result<Nothing> {
    park(&lan, &request).await.map(|_handle| Nothing {})
}

/// The link goes, and an address that nobody will ask for again.
pub async fn delete(lan: Arc<Lan>, request: OfEndpoint) -> Result<Nothing> {
    let handle = park(&lan, &request).await?;
    lan.host.discard(&link_name(&request.endpoint)).await?;
    if let Some(handle) = handle {
        let _gate = handle.gate().await;
        handle.release_invented().await?;
    }
    lan.endpoints().remove(&request.endpoint);
    Ok(Nothing {})
}

/// Keeps the lease without its container. None: the endpoint is not known, or its lease was released before.
async fn park(lan: &Arc<Lan>, request: &OfEndpoint) -> Result<Option<Handle>> {
    lan.arrivals().remove(&request.endpoint);
    let Ok((handle, key)) = lan.endpoint(&request.endpoint) else { return Ok(None) };
    lan.leaves(key.mac);
    let _gate = handle.gate().await;
    handle.leave(&request.endpoint).await?;
    Ok(Some(handle))
}
