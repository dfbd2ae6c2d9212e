//! A container for a short while: to see whether an image boots, or to read a file of it.

use anyhow::Result;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{BuildImageOptions, CreateContainerOptionsBuilder};
use futures_util::StreamExt as _;

use super::{Create, Engine, Init, Place, fault};
use crate::spec::{Limits, Mac};

/// The name of a trial's control group is its own; those of containers are twelve hexadecimal digits.
const GROUP: &str = "trial";

/// A stage that no Dockerfile has.
const NO_STAGE: &str = "moorage-only-reads";

impl Engine {
    /// Creates a container of `image` as a dev container would be, but without network and /opt; its name is answered.
    /// One that was left there goes first. `cgroup` is the group that all of ours are below.
    pub async fn create_trial(&self, image: &str, init: Init, cgroup: &str) -> Result<String> {
        let short: String =
            image.trim_start_matches("sha256:").chars().filter(char::is_ascii_hexdigit).take(12).collect();
        let name = format!("moorage-trial-{short}");
        self.remove(&name).await?;
        let cgroups = self.cgroups(cgroup).await?;
        let create = Create {
            name: name.clone(),
            id: GROUP.to_owned(),
            image: image.to_owned(),
            init,
            stop_signal: None,
            cgroups: cgroups.view(&format!("{GROUP}{short}")),
            place: Place::Nowhere,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            dns: Vec::new(),
            dns_search: Vec::new(),
            hosts: Vec::new(),
            volumes: Vec::new(),
            env: Default::default(),
            ulimits: Default::default(),
            shm: None,
            limits: Limits::default(),
            capabilities: Vec::new(),
        };
        let mut body = create.body();
        body.labels = Some([("moorage.trial".to_owned(), short)].into());
        body.networking_config = None;
        if let Some(host) = &mut body.host_config {
            host.restart_policy = None;
        }
        self.created(&name, body).await?;
        Ok(name)
    }

    /// The content of a file of an image, through a container that is never started.
    pub async fn file_of_image(&self, image: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let short: String =
            image.trim_start_matches("sha256:").chars().filter(char::is_ascii_hexdigit).take(12).collect();
        let name = format!("moorage-look-{short}");
        // One name for all who look at the image: what a daemon that was killed left there goes first.
        let _turn = self.probing.lock().await;
        self.remove(&name).await?;
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            cmd: Some(vec!["/".into()]),
            labels: Some([("moorage.trial".to_owned(), short)].into()),
            host_config: Some(HostConfig { network_mode: Some("none".into()), ..HostConfig::default() }),
            ..Default::default()
        };
        self.created(&name, body).await?;
        let content = self.read_file(&name, path).await;
        self.remove(&name).await?;
        content
    }

    /// What the builder says against a Dockerfile; `archive` is the whole build context. The builder reads all of it
    /// before it looks for the stage that is asked for, and there is none of this name: nothing is run or pulled.
    pub async fn parse_dockerfile(&self, archive: Vec<u8>) -> Result<Option<String>> {
        let options =
            BuildImageOptions { target: NO_STAGE.to_owned(), q: true, ..BuildImageOptions::default() };
        let docker = self.docker().await?;
        let body = bollard::body_full(bytes::Bytes::from(archive));
        let mut said = std::pin::pin!(docker.build_image(options, None, Some(body)));
        while let Some(answer) = said.next().await {
            let why = match answer {
                Ok(info) => match info.error_detail {
                    Some(error) => error.message.unwrap_or_default(),
                    None => continue,
                },
                Err(Error::DockerResponseServerError { message, .. }) => message,
                Err(Error::DockerStreamError { error }) => error,
                Err(error) => return Err(fault(error, "have a Dockerfile read").into()),
            };
            return Ok((!why.contains(NO_STAGE)).then_some(why));
        }
        Ok(None)
    }

    async fn created(&self, name: &str, body: ContainerCreateBody) -> Result<()> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let docker = self.docker().await?;
        let created = docker.create_container(Some(options), body).await;
        created.map_err(|e| fault(e, format!("create the container {name}")))?;
        Ok(())
    }
}
