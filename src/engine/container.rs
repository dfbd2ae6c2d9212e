//! Containers: create, start, stop, remove, list.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use bollard::errors::Error;
use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, EndpointSettings, HostConfig, HostConfigCgroupnsModeEnum,
    HostConfigLogConfig, Mount, MountType, MountVolumeOptions, MountVolumeOptionsDriverConfig,
    NetworkingConfig, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListContainersOptionsBuilder, LogsOptionsBuilder,
    RemoveContainerOptionsBuilder, StopContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use futures_util::StreamExt as _;

use super::{DRIVER, Engine, LABEL, View, fault, found};
use crate::spec::{Fixed, Limits, Mac, Ulimit};

/// Seconds an init has to end its services before it is killed.
const STOP_SECONDS: i32 = 30;

/// The longest that a removal which somebody else has begun is waited for.
const REMOVAL: Duration = Duration::from_secs(60);

/// What PID 1 of a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Init {
    /// The image's own init (systemd), at this path.
    Own(String),
    /// Docker's, which runs the image's command, or a shell that waits where it has none.
    Docker { command: Vec<String> },
}

/// A volume of our driver and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    pub name: String,
    pub target: String,
    pub read_only: bool,
}

/// Where a container is in the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On a network of our driver; with an address that a person chose, or else one of a DHCP server.
    Lan {
        network: String,
        fixed: Option<Fixed>,
    },
    /// On Docker's bridge.
    Bridge,
    Nowhere,
}

impl Place {
    fn network(&self) -> &str {
        match self {
            Place::Lan { network, .. } => network,
            Place::Bridge => BRIDGE,
            Place::Nowhere => "none",
        }
    }
}

/// Docker's own network with NAT.
const BRIDGE: &str = "bridge";

/// All the Engine has to know to create a container.
#[derive(Debug, Clone)]
pub struct Create {
    pub name: String,
    pub id: String,
    pub image: String,
    pub init: Init,
    pub stop_signal: Option<String>,
    /// What its own init sees of the control groups.
    pub cgroups: View,
    pub place: Place,
    pub mac: Mac,
    pub dns: Vec<Ipv4Addr>,
    pub dns_search: Vec<String>,
    /// Lines of `/etc/hosts`: names with their addresses.
    pub hosts: Vec<(String, Ipv4Addr)>,
    pub volumes: Vec<Volume>,
    pub env: BTreeMap<String, String>,
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Bytes of /dev/shm.
    pub shm: Option<u64>,
    pub limits: Limits,
    pub capabilities: Vec<String>,
}

/// A container as the Engine sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub engine_id: String,
    pub name: String,
    /// The value of our label; empty when it is not ours.
    pub id: String,
    pub running: bool,
    /// PID of its init on the host; known after `inspect` of a running one.
    pub pid: Option<i32>,
    /// The image's id, `sha256:…`
    pub image_id: String,
    /// Address and MAC on Docker's bridge, while it runs there.
    pub bridge: Option<(Ipv4Addr, Mac)>,
    /// How it finds names; known after `inspect`.
    pub names: Names,
}

/// How a container finds names, as the engine has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Names {
    /// What it was created with: the engine's own resolver (127.0.0.11) asks these.
    pub dns: Vec<Ipv4Addr>,
    pub search: Vec<String>,
    /// The file that is its `/etc/resolv.conf`, on the host.
    pub file: Option<PathBuf>,
    /// Whether the engine knew a router when it was started. Without one its resolver asks nobody.
    pub routed: bool,
}

impl Create {
    pub(super) fn body(&self) -> ContainerCreateBody {
        let own_init = matches!(self.init, Init::Own(_));
        let (command, entrypoint) = match &self.init {
            Init::Own(path) => (Some(vec![path.clone()]), Some(vec![])),
            Init::Docker { command } if command.is_empty() => (Some(vec!["/bin/sh".to_owned()]), None),
            Init::Docker { .. } => (None, None),
        };
        let mut env = vec!["container=docker".to_owned()];
        env.extend(self.env.iter().map(|(name, value)| format!("{name}={value}")));
        ContainerCreateBody {
            hostname: Some(self.name.clone()),
            image: Some(self.image.clone()),
            cmd: command,
            entrypoint,
            env: Some(env),
            labels: Some([(LABEL.to_owned(), self.id.clone())].into()),
            stop_signal: self.stop_signal.clone().or_else(|| own_init.then(|| "SIGRTMIN+3".to_owned())),
            stop_timeout: Some(STOP_SECONDS.into()),
            // A shell as the only process stays as long as its terminal does.
            tty: Some(!own_init),
            open_stdin: Some(!own_init),
            host_config: Some(self.host_config(own_init)),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some([(self.place.network().to_owned(), self.endpoint())].into()),
            }),
            ..Default::default()
        }
    }

    fn host_config(&self, own_init: bool) -> HostConfig {
        let limits = &self.limits;
        let mut host = HostConfig {
            network_mode: Some(self.place.network().to_owned()),
            restart_policy: Some(RestartPolicy {
                name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
                maximum_retry_count: None,
            }),
            // A device node made inside and seen through the host's view of /opt would be the host's device.
            cap_drop: Some(vec!["MKNOD".to_owned()]),
            cap_add: Some(self.capabilities.clone()),
            mounts: Some(self.volumes.iter().map(mount).collect()),
            shm_size: self.shm.map(|bytes| bytes as i64),
            dns: Some(self.dns.iter().map(ToString::to_string).collect()),
            dns_search: Some(self.dns_search.clone()),
            extra_hosts: Some(self.hosts.iter().map(|(name, address)| format!("{name}:{address}")).collect()),
            ulimits: Some(self.ulimits.iter().map(|(name, limit)| ulimit(name, *limit)).collect()),
            memory: limits.memory.map(|bytes| bytes.0 as i64),
            pids_limit: limits.pids.map(i64::from),
            cpu_shares: limits.cpu_weight.map(shares),
            log_config: Some(HostConfigLogConfig {
                typ: Some("json-file".to_owned()),
                config: Some(
                    [("max-size", "10m"), ("max-file", "3")].map(|(k, v)| (k.into(), v.into())).into(),
                ),
            }),
            init: Some(!own_init),
            ..Default::default()
        };
        if own_init {
            host.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::HOST);
            host.cgroup_parent = Some(self.cgroups.parent.clone());
            host.mounts.get_or_insert_default().extend(self.cgroups.mounts());
            host.binds = Some(self.cgroups.binds());
            // Without /run/lock and /tmp of their own systemd ends up degraded.
            let own = [("/run", "exec,mode=755"), ("/run/lock", ""), ("/tmp", "exec,mode=1777")];
            let hidden = self.cgroups.hidden.iter().map(|path| (path.as_str(), "ro"));
            let tmpfs = own.into_iter().chain(hidden);
            host.tmpfs = Some(tmpfs.map(|(path, options)| (path.to_owned(), options.to_owned())).collect());
        }
        host
    }

    fn endpoint(&self) -> EndpointSettings {
        let fixed = match &self.place {
            Place::Lan { fixed, .. } => fixed,
            // An engine older than API 1.44 chooses one itself.
            Place::Bridge => {
                return EndpointSettings { mac_address: Some(self.mac.to_string()), ..Default::default() };
            }
            Place::Nowhere => return EndpointSettings::default(),
        };
        // Driver options carry the MAC on every Docker version; an endpoint's own field needs API 1.44.
        let own = [("moorage.hostname", self.name.clone()), ("moorage.mac", self.mac.to_string())];
        let fixed = fixed.map(|fixed| ("moorage.address", fixed.to_string()));
        let options = own.into_iter().chain(fixed).map(|(key, value)| (key.to_owned(), value));
        EndpointSettings { driver_opts: Some(options.collect()), ..Default::default() }
    }
}

/// Docker knows the cgroup v1 scale only: 1024 shares are a weight of 100.
fn shares(weight: u32) -> i64 {
    (i64::from(weight) * 1024 / 100).max(2)
}

fn mount(volume: &Volume) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.name.clone()),
        target: Some(volume.target.clone()),
        read_only: Some(volume.read_only),
        volume_options: Some(MountVolumeOptions {
            no_copy: Some(true),
            driver_config: Some(MountVolumeOptionsDriverConfig {
                name: Some(DRIVER.to_owned()),
                options: None,
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn ulimit(name: &str, limit: Ulimit) -> ResourcesUlimits {
    ResourcesUlimits {
        name: Some(name.to_owned()),
        soft: Some(limit.soft as i64),
        hard: Some(limit.hard as i64),
    }
}

fn on_the_bridge(networks: HashMap<String, EndpointSettings>) -> Option<(Ipv4Addr, Mac)> {
    let there = networks.get(BRIDGE)?;
    let (address, mac) = (there.ip_address.as_ref()?, there.mac_address.as_ref()?);
    Some((address.parse().ok()?, mac.parse().ok()?))
}

impl Engine {
    /// Creates the container without starting it; answers its engine id.
    pub async fn create(&self, create: &Create) -> Result<String> {
        let options = CreateContainerOptionsBuilder::default().name(&create.name).build();
        let docker = self.docker().await?;
        let created = docker
            .create_container(Some(options), create.body())
            .await
            .map_err(|e| fault(e, format!("create the container {}", create.name)))?;
        Ok(created.id)
    }

    /// Gives a container other limits, at once. Those that are absent stay as they are.
    pub async fn limit(&self, name: &str, limits: &Limits) -> Result<()> {
        let memory = limits.memory.map(|bytes| bytes.0 as i64);
        let body = ContainerUpdateBody {
            memory,
            // As the engine has it for a container that is created with a memory limit alone.
            memory_swap: memory.map(|bytes| bytes.saturating_mul(2)),
            pids_limit: limits.pids.map(i64::from),
            cpu_shares: limits.cpu_weight.map(shares),
            ..Default::default()
        };
        let docker = self.docker().await?;
        let answer = docker.update_container(name, body).await;
        Ok(answer.map_err(|e| fault(e, format!("change the limits of {name}")))?)
    }

    pub async fn start(&self, name: &str) -> Result<()> {
        let docker = self.docker().await?;
        docker.start_container(name, None).await.map_err(|e| fault(e, format!("start {name}")))?;
        Ok(())
    }

    pub async fn stop(&self, name: &str) -> Result<()> {
        let options = StopContainerOptionsBuilder::default().t(STOP_SECONDS).build();
        let docker = self.docker().await?;
        docker.stop_container(name, Some(options)).await.map_err(|e| fault(e, format!("stop {name}")))?;
        Ok(())
    }

    /// Removes the container, running or not; one that is not there is no error.
    pub async fn remove(&self, name: &str) -> Result<()> {
        let docker = self.docker().await?;
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        let mut answer = docker.remove_container(name, Some(options.clone())).await;
        // The removal that a daemon before us asked for goes on in the engine when that daemon is gone.
        if let Err(Error::DockerResponseServerError { status_code: 409, message }) = &answer
            && message.contains("already in progress")
        {
            let removed = WaitContainerOptionsBuilder::default().condition("removed").build();
            let mut end = docker.wait_container(name, Some(removed));
            // What it made of it is asked below.
            let _ = tokio::time::timeout(REMOVAL, end.next()).await;
            answer = docker.remove_container(name, Some(options)).await;
        }
        found(answer, format!("remove the container {name}"))?;
        Ok(())
    }

    pub async fn inspect(&self, name: &str) -> Result<Option<Found>> {
        let answer = self.docker().await?.inspect_container(name, None).await;
        let Some(seen) = found(answer, format!("look at the container {name}"))? else { return Ok(None) };
        let state = seen.state.unwrap_or_default();
        let labels = seen.config.and_then(|config| config.labels).unwrap_or_default();
        let host = seen.host_config.unwrap_or_default();
        let networks = seen.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
        let routed =
            networks.values().any(|one| one.gateway.as_ref().is_some_and(|router| !router.is_empty()));
        let names = Names {
            dns: host.dns.iter().flatten().filter_map(|server| server.parse().ok()).collect(),
            search: host.dns_search.unwrap_or_default(),
            file: seen.resolv_conf_path.filter(|path| !path.is_empty()).map(PathBuf::from),
            routed,
        };
        Ok(Some(Found {
            engine_id: seen.id.unwrap_or_default(),
            name: name.to_owned(),
            id: labels.get(LABEL).cloned().unwrap_or_default(),
            running: state.running.unwrap_or_default(),
            pid: state.pid.and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0),
            image_id: seen.image.unwrap_or_default(),
            bridge: on_the_bridge(networks),
            names,
        }))
    }

    /// Every container with our label.
    pub async fn list(&self) -> Result<Vec<Found>> {
        let filters: HashMap<&str, Vec<&str>> = [("label", vec![LABEL])].into();
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let docker = self.docker().await?;
        let all = docker.list_containers(Some(options)).await.map_err(|e| fault(e, "list the containers"))?;
        Ok(all
            .into_iter()
            .map(|seen| Found {
                engine_id: seen.id.unwrap_or_default(),
                name: seen
                    .names
                    .into_iter()
                    .flatten()
                    .next()
                    .unwrap_or_default()
                    .trim_start_matches('/')
                    .to_owned(),
                id: seen.labels.unwrap_or_default().remove(LABEL).unwrap_or_default(),
                running: seen.state.is_some_and(|state| state.to_string() == "running"),
                pid: None,
                image_id: seen.image_id.unwrap_or_default(),
                bridge: seen.network_settings.and_then(|settings| on_the_bridge(settings.networks?)),
                names: Names::default(),
            })
            .collect())
    }
}

impl Engine {
    /// What the container's PID 1 wrote, as the engine kept it: the last `lines`, and what follows where wanted.
    pub async fn output(
        &self,
        name: &str,
        follow: bool,
        lines: Option<u32>,
    ) -> Result<impl futures_util::Stream<Item = Result<bytes::Bytes>> + Send + 'static> {
        let tail = lines.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
        let options =
            LogsOptionsBuilder::default().stdout(true).stderr(true).follow(follow).tail(&tail).build();
        let docker = self.docker().await?.clone();
        let name = name.to_owned();
        let (send, receive) = tokio::sync::mpsc::channel(16);
        tokio::spawn(async move {
            let pieces = docker.logs(&name, Some(options)).map(|piece| {
                piece
                    .map(|piece| piece.into_bytes())
                    .map_err(|e| fault(e, format!("read the log of {name}")).into())
            });
            hand_on(pieces, send).await;
        });
        Ok(tokio_stream::wrappers::ReceiverStream::new(receive))
    }
}

/// Hands a stream on until it ends or nobody listens any more, which a quiet stream would never notice.
async fn hand_on<T>(stream: impl futures_util::Stream<Item = T>, send: tokio::sync::mpsc::Sender<T>) {
    let mut stream = std::pin::pin!(stream);
    loop {
        let piece = tokio::select! {
            piece = stream.next() => piece,
            () = send.closed() => return,
        };
        let Some(piece) = piece else { return };
        if send.send(piece).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_quiet_log_is_let_go_with_its_reader() {
        let (send, mut receive) = tokio::sync::mpsc::channel(1);
        let quiet = futures_util::stream::iter([1]).chain(futures_util::stream::pending());
        let task = tokio::spawn(hand_on(quiet, send));
        assert_eq!(receive.recv().await, Some(1));
        drop(receive);
        task.await.unwrap();
    }
}
