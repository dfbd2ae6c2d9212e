//! A root filesystem as an image of one layer. The engine stacks no more than 127 (overlay2; moby's own limit is 125 to
//! be built on), and each clone of a clone is one more.

use anyhow::{Context as _, Result};
use futures_util::TryStreamExt as _;

use super::changes::changes;
use super::{Engine, found};
use crate::report::{Fault, Kind};

/// A root filesystem over so many layers is written anew as one.
const MOST_LAYERS: usize = 64;

impl Engine {
    /// Whether the image of a container has so many layers that one more should not be put onto it.
    pub(super) async fn is_high(&self, container: &str) -> Result<bool> {
        let docker = self.docker().await?;
        let seen = found(docker.inspect_container(container, None).await, format!("look at {container}"))?;
        let Some(image) = seen.and_then(|seen| seen.image) else { return Ok(false) };
        let image = found(docker.inspect_image(&image).await, format!("look at the image {image}"))?;
        let layers = image.and_then(|image| image.root_fs).and_then(|root| root.layers).unwrap_or_default();
        Ok(layers.len() >= MOST_LAYERS)
    }

    /// Makes the whole root filesystem of a stopped container the one layer of the image `name:latest`, with the
    /// configuration of its own image and `labels`. Reads and writes all of it.
    pub(super) async fn flatten(
        &self,
        container: &str,
        name: &str,
        labels: &[(&str, &str)],
    ) -> Result<String> {
        let doing = format!("write the root filesystem of {container} as one layer");
        let docker = self.docker().await?;
        let gone = || Fault::new(Kind::NotFound, format!("Docker no longer has the container {container}"));
        let seen = found(docker.inspect_container(container, None).await, &doing)?.ok_or_else(gone)?;
        let image = seen.image.context("a container has an image")?;
        let image = found(docker.inspect_image(&image).await, &doing)?;
        let config = image.and_then(|image| image.config).unwrap_or_default();
        // An export that breaks off ends the import, which says why.
        let tar = docker.export_container(container).map_err(std::io::Error::other);
        self.import(tar, Some(name), changes(&config, labels), &doing).await
    }
}
