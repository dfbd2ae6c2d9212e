//! Networks and volumes as the Engine knows them.

use std::collections::HashMap;

use anyhow::Result;
use bollard::errors::Error;
use bollard::models::{Ipam, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::RemoveVolumeOptionsBuilder;

use super::{DRIVER, Engine, LABEL, fault, found};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    pub id: String,
    pub driver: String,
    pub options: HashMap<String, String>,
}

/// A volume that a container holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InUse(pub String);

impl Engine {
    pub async fn network(&self, name: &str) -> Result<Option<Network>> {
        super::image::plain(name)?;
        let answer = self.docker().await?.inspect_network(name, None).await;
        Ok(found(answer, format!("look at the network {name}"))?.map(|network| Network {
            id: network.id.unwrap_or_default(),
            driver: network.driver.unwrap_or_default(),
            options: network.options.unwrap_or_default(),
        }))
    }

    /// Makes the LAN known to Docker: our driver, addresses from nobody but the LAN's DHCP server. Our driver is asked, so the
    /// daemon has to run.
    pub async fn create_lan(&self, name: &str, parent: &str, vlan: Option<u16>) -> Result<()> {
        let tag = vlan.map(|id| ("vlan".to_owned(), id.to_string()));
        let options = [("parent".to_owned(), parent.to_owned())].into_iter().chain(tag);
        let request = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some(DRIVER.to_owned()),
            ipam: Some(Ipam { driver: Some("null".into()), ..Default::default() }),
            options: Some(options.collect()),
            labels: Some([(LABEL.to_owned(), name.to_owned())].into()),
            ..Default::default()
        };
        let docker = self.docker().await?;
        docker.create_network(request).await.map_err(|e| fault(e, format!("make the network {name}")))?;
        Ok(())
    }

    /// The names of all networks by their IDs.
    pub async fn network_names(&self) -> Result<HashMap<String, String>> {
        let answer = self.docker().await?.list_networks(None).await;
        let networks = answer.map_err(|e| fault(e, "list the networks"))?;
        Ok(networks.into_iter().filter_map(|network| Some((network.id?, network.name?))).collect())
    }

    /// Makes the volume known to Docker; our driver already holds it. Succeeds where it is known.
    pub async fn create_volume(&self, name: &str, id: &str) -> Result<()> {
        let request = VolumeCreateRequest {
            name: Some(name.to_owned()),
            driver: Some(DRIVER.to_owned()),
            labels: Some([(LABEL.to_owned(), id.to_owned())].into()),
            ..Default::default()
        };
        let docker = self.docker().await?;
        docker.create_volume(request).await.map_err(|e| fault(e, format!("make the volume {name}")))?;
        Ok(())
    }

    /// Whether Docker has a volume of that name, and whose: the value of our label, empty where it is not ours.
    pub async fn volume(&self, name: &str) -> Result<Option<String>> {
        let answer = match self.docker().await?.inspect_volume(name).await {
            // The client cannot read what other drivers say of their volumes.
            Err(Error::JsonDataError { .. }) => return Ok(Some(String::new())),
            answer => answer,
        };
        let found = found(answer, format!("look at the volume {name}"))?;
        Ok(found.map(|mut volume| match volume.driver.as_str() {
            DRIVER => volume.labels.remove(LABEL).unwrap_or_default(),
            _ => String::new(),
        }))
    }

    /// Makes Docker forget the volume of the record `id`. One that it does not know, or that is somebody else's, is left
    /// alone and no error. The inner `Err` has the engine's words where it is in use.
    pub async fn remove_volume(&self, name: &str, id: &str) -> Result<Result<(), InUse>> {
        if self.volume(name).await?.is_none_or(|owner| owner != id) {
            return Ok(Ok(()));
        }
        let options = RemoveVolumeOptionsBuilder::default().force(true).build();
        match self.docker().await?.remove_volume(name, Some(options)).await {
            Err(Error::DockerResponseServerError { status_code: 409, message }) => Ok(Err(InUse(message))),
            answer => {
                found(answer, format!("remove the volume {name}"))?;
                Ok(Ok(()))
            }
        }
    }
}
