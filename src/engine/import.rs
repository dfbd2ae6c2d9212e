//! An image of a tar that somebody still writes. Where only its layer is wanted it says whose it is, so that what a killed
//! process has left can be told from what somebody is about to use.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use bollard::errors::Error;
use bollard::models::ImageConfig;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListImagesOptionsBuilder, RemoveImageOptions};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};

use super::changes::changes;
use super::{Engine, fault, found};
use crate::report::{Fault, Kind};
use crate::spec::Digest;

/// The label of such an image: who takes it in.
const TAKER: &str = "moorage.taker";
/// How the status of an engine whose images are kept by containerd names its driver (moby, daemon/containerd).
const CONTAINERD: [&str; 2] = ["driver-type", "io.containerd.snapshotter.v1"];

/// A layer that the engine has.
#[derive(Debug)]
pub struct Taken {
    /// The image that keeps it, without a name.
    pub image: String,
    /// Of the uncompressed tar.
    pub digest: Digest,
}

impl Engine {
    /// Whether the engine loads an image of layers that it has without being given their bytes again. One with images of
    /// its own finds a layer by its digest before it looks for its file (moby, image/tarexport); containerd wants files.
    pub async fn knows_layers(&self) -> Result<bool> {
        let info = self.docker().await?.info().await;
        let info = info.map_err(|e| fault(e, "ask the Docker Engine how it keeps images"))?;
        Ok(!info.driver_status.into_iter().flatten().any(|line| line == CONTAINERD))
    }

    /// Makes an image of one layer, of a tar as it comes; answers its id. Its configuration is what `changes` says.
    ///
    /// A tar that ends with an error makes none.
    pub(super) async fn import(
        &self,
        tar: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        name: Option<&str>,
        changes: Vec<String>,
        doing: &str,
    ) -> Result<String> {
        let options = CreateImageOptionsBuilder::default().from_src("-").changes(changes);
        let options = match name {
            Some(name) => options.repo(name).tag("latest"),
            None => options,
        };
        // It answers when it has all.
        let docker = self.docker().await?.clone().with_timeout(super::WHOLE_DISK);
        let body = bollard::body_try_stream(tar);
        let said: Vec<_> = docker
            .create_image(Some(options.build()), Some(body), None)
            .try_collect()
            .await
            .map_err(|e| fault(e, doing))?;
        let image = said.into_iter().filter_map(|said| said.status).next_back();
        image.context("the engine made an image of a tar and does not say which")
    }

    /// Takes in an uncompressed tar as it comes. `taker` is written on it.
    ///
    /// A tar that ends with an error is not taken.
    pub async fn take_layer(
        &self,
        tar: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
        taker: &str,
    ) -> Result<Taken> {
        let doing = "take in a layer";
        let label = changes(&ImageConfig::default(), &[(TAKER, taker)]);
        let image = self.import(tar, None, label, doing).await?;
        let seen = found(self.docker().await?.inspect_image(&image).await, doing)?;
        let layers = seen.and_then(|seen| seen.root_fs).and_then(|root| root.layers).unwrap_or_default();
        match layers.as_slice() {
            [layer] => Ok(Taken { digest: layer.parse()?, image }),
            _ => Err(Fault::new(Kind::Failed, format!("cannot {doing}"))
                .why(format!("the engine has made {} layers of it", layers.len()))
                .next("run the same command again")
                .into()),
        }
    }

    /// Lets go of a layer that was taken in; what else is made of it keeps it.
    pub async fn let_go(&self, taken: &Taken) -> Result<()> {
        self.let_go_of(&taken.image).await
    }

    /// Lets go of the layers whose takers are gone.
    pub async fn let_go_abandoned(&self, is_there: impl Fn(&str) -> bool) -> Result<()> {
        let filters: HashMap<&str, Vec<&str>> = [("label", vec![TAKER])].into();
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let docker = self.docker().await?;
        let images = docker.list_images(Some(options)).await.map_err(|e| fault(e, "list the images"))?;
        for image in images {
            // With a name it is something that somebody has made of one.
            let named = image.repo_tags.iter().any(|tag| tag != "<none>:<none>");
            let taker = image.labels.get(TAKER).filter(|taker| !named && !is_there(taker));
            if taker.is_some() {
                self.let_go_of(&image.id).await?;
            }
        }
        Ok(())
    }

    /// A conflict is somebody's container of that image, who has a use for it then.
    async fn let_go_of(&self, image: &str) -> Result<()> {
        match self.docker().await?.remove_image(image, None::<RemoveImageOptions>, None).await {
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            Err(error) => Err(fault(error, format!("let go of the layer {image}")).into()),
        }
    }
}
