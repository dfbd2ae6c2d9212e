//! Images: what is here, pulling, and what is inside one.

use std::collections::BTreeMap;

use anyhow::Result;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, CreateImageOptionsBuilder};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::{Engine, changes, fault, found};
use crate::report::{Fault, Kind, Reporter, Unit};

/// The container through which an image is looked into. It is never started.
pub const PROBE: &str = "moorage-probe";

/// An image that is here.
#[derive(Debug, Clone)]
pub struct Image {
    /// `sha256:…`
    pub id: String,
    /// Bytes on this host.
    pub size: u64,
    pub command: Vec<String>,
    pub stop_signal: Option<String>,
}

/// What we need to know of an image's root filesystem. Read once an image and remembered, since it never changes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageFacts {
    /// The path of its init (systemd), if it has one.
    pub init: Option<String>,
    pub sshd: bool,
    pub sh: bool,
    pub bash: bool,
    pub sudoers: bool,
    /// A Docker Engine, which cannot run inside.
    #[serde(default)]
    pub docker: bool,
    pub passwd: String,
    pub group: String,
    pub shadow: String,
    /// `/etc/environment`
    pub environment: String,
}

/// Refuses a name that would lead to another place of the Engine's API: it goes into the path as it is.
pub(super) fn plain(name: &str) -> Result<(), Fault> {
    let strange = name.is_empty() || name.contains("..") || name.contains(['?', '#', '%']);
    match strange || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        true => Err(Fault::new(Kind::Usage, format!("{name:?} names nothing the Docker Engine has"))),
        false => Ok(()),
    }
}

impl Engine {
    pub async fn image(&self, reference: &str) -> Result<Option<Image>> {
        plain(reference)?;
        let answer = self.docker().await?.inspect_image(reference).await;
        let Some(image) = found(answer, format!("look at the image {reference}"))? else { return Ok(None) };
        let config = image.config.unwrap_or_default();
        let stop_signal = changes::stop_signal(&config);
        Ok(Some(Image {
            id: image.id.unwrap_or_default(),
            size: image.size.unwrap_or_default().max(0) as u64,
            command: config
                .entrypoint
                .into_iter()
                .flatten()
                .chain(config.cmd.into_iter().flatten())
                .collect(),
            stop_signal,
        }))
    }

    /// Pulls `reference`; the progress of all layers is one sum. Dropping the future ends the pull.
    pub async fn pull(&self, reference: &str, report: &Reporter) -> Result<()> {
        let doing = format!("pull the image {reference}");
        let options = CreateImageOptionsBuilder::default().from_image(reference).build();
        let mut events = self.docker().await?.create_image(Some(options), None, None);
        let mut layers: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        while let Some(event) = events.next().await {
            let event = event.map_err(|e| fault(e, &doing))?;
            if let Some(error) = event.error_detail.and_then(|e| e.message) {
                return Err(Fault::new(Kind::Failed, format!("cannot {doing}"))
                    .why(error)
                    .next(format!("docker pull {reference}   # as root: the engine's own words"))
                    .into());
            }
            let progress = event.progress_detail.unwrap_or_default();
            let (Some(layer), Some(status)) = (event.id, event.status) else { continue };
            let total = progress.total.unwrap_or_default().max(0) as u64;
            let entry = layers.entry(layer).or_default();
            match status.as_str() {
                "Downloading" => *entry = (progress.current.unwrap_or_default().max(0) as u64, total),
                "Download complete" | "Extracting" | "Pull complete" => entry.0 = entry.1,
                _ => continue,
            }
            let done = layers.values().map(|l| l.0).sum();
            report.progress("image", done, Some(layers.values().map(|l| l.1).sum()), Unit::Bytes);
        }
        Ok(())
    }

    /// Looks into an image through a container that is never started.
    pub async fn look_into(&self, image: &Image) -> Result<ImageFacts> {
        let doing = format!("look into the image {}", image.id);
        let docker = self.docker().await?;
        let body = ContainerCreateBody {
            image: Some(image.id.clone()),
            cmd: Some(vec!["/".into()]),
            labels: Some([(super::LABEL.to_owned(), "probe".to_owned())].into()),
            network_disabled: Some(true),
            ..Default::default()
        };
        // One name for all: what a daemon that was killed left there goes first.
        let _turn = self.probing.lock().await;
        self.remove(PROBE).await?;
        let options = CreateContainerOptionsBuilder::default().name(PROBE).build();
        let probe = docker.create_container(Some(options), body).await.map_err(|e| fault(e, &doing))?.id;
        let facts = self.read_facts(&probe).await;
        self.remove(PROBE).await?;
        facts
    }

    /// Removes a probe that was left, unless one is at work.
    pub async fn clear_probe(&self) -> Result<()> {
        let _turn = self.probing.lock().await;
        self.remove(PROBE).await
    }

    async fn read_facts(&self, probe: &str) -> Result<ImageFacts> {
        let mut init = None;
        for path in ["/sbin/init", "/usr/sbin/init", "/lib/systemd/systemd"] {
            if self.has_file(probe, path).await? {
                init = Some(path.to_owned());
                break;
            }
        }
        let text = async |path: &str| -> Result<String> {
            let bytes = self.read_file(probe, path).await?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(ImageFacts {
            init,
            sshd: self.has_file(probe, "/usr/sbin/sshd").await?,
            sh: self.has_file(probe, "/bin/sh").await?,
            bash: self.has_file(probe, "/bin/bash").await?,
            sudoers: self.has_file(probe, "/etc/sudoers.d").await?,
            docker: self.has_file(probe, "/usr/sbin/dockerd").await?
                || self.has_file(probe, "/usr/bin/dockerd").await?,
            passwd: text("/etc/passwd").await?,
            group: text("/etc/group").await?,
            shadow: text("/etc/shadow").await?,
            environment: text("/etc/environment").await?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_place() {
        for good in ["moorage/demo:latest", "registry.corp:5000/x@sha256:00", "sha256:00", "lan"] {
            plain(good).unwrap();
        }
        for bad in ["", "../networks/x", "x?force=1", "x#", "%2e%2e", "a b", "a\r\nb"] {
            assert_eq!(plain(bad).unwrap_err().kind, Kind::Usage, "{bad:?}");
        }
    }
}
