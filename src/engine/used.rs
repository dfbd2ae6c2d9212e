//! Which images containers are made of, as registries know them.

use std::collections::BTreeMap;

use anyhow::Result;
use bollard::query_parameters::ListContainersOptionsBuilder;

use super::{Engine, fault, found};
use crate::spec::{Digest, InUse};

impl Engine {
    /// The digests that registries know the images of all containers by, whoever made them, running or not.
    pub async fn manifests_in_use(&self) -> Result<InUse> {
        let docker = self.docker().await?;
        let options = ListContainersOptionsBuilder::default().all(true).build();
        let all = docker.list_containers(Some(options)).await.map_err(|e| fault(e, "list the containers"))?;
        let mut by_image: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for seen in all {
            let name = seen.names.into_iter().flatten().next().or(seen.id).unwrap_or_default();
            let name = format!("container {}", name.trim_start_matches('/'));
            by_image.entry(seen.image_id.unwrap_or_default()).or_default().push(name);
        }
        let mut used = InUse::default();
        for (image, users) in by_image {
            for digest in self.digests(&image).await? {
                for user in &users {
                    used.add(digest, user.clone());
                }
            }
        }
        Ok(used)
    }

    /// An image's id, and the digests of the manifests that it was pulled or pushed by; nothing where it is not here.
    pub async fn digests(&self, image: &str) -> Result<Vec<Digest>> {
        super::image::plain(image)?;
        let answer = self.docker().await?.inspect_image(image).await;
        let Some(image) = found(answer, format!("look at the image {image}"))? else { return Ok(Vec::new()) };
        let of_registries = image.repo_digests.unwrap_or_default().into_iter();
        let of_registries = of_registries.filter_map(|name| Some(name.rsplit_once('@')?.1.to_owned()));
        Ok(image.id.into_iter().chain(of_registries).filter_map(|digest| digest.parse().ok()).collect())
    }
}
