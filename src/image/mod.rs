//! containerauthor's engine: base images from package repositories, dev images from a template on a base.
//!
//! Every image is labelled with the digest of what it was made from ([`label::DEFINITION`]): an unchanged definition
//! on an unchanged base builds nothing.

pub mod base;
pub mod buildkit;
mod context;
pub mod dockerfile;
pub mod label;
mod layer;
pub mod lineage;
mod load;
mod log;
pub mod memory;
pub mod publish;
pub mod rebuild;
pub mod script;
pub mod smoke;
pub mod squash;
mod stream;
pub mod survey;
pub mod variants;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::errors::Error;
use serde::Serialize;

use crate::engine::Engine;
use crate::report::Reporter;
use crate::site::Site;
use crate::spec::plan::{Plan, Step};

/// The key of the progress events.
pub const STEP: &str = "build";

/// An image that was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Built {
    /// Full reference, e.g. `moorage/demo:latest`.
    pub image: String,
    /// `sha256:…`
    pub id: String,
    /// Bytes, all layers.
    pub size: u64,
    /// `false` when the one that was there is what would have been built.
    pub changed: bool,
}

/// What the engine knows of an image.
#[derive(Debug, Clone)]
struct Known {
    id: String,
    size: u64,
    /// `repository@sha256:…`, of registries it came from or went to.
    digests: Vec<String>,
    labels: std::collections::HashMap<String, String>,
}

impl Known {
    fn built(self, image: &str, changed: bool) -> Built {
        Built { image: image.to_owned(), id: self.id, size: self.size, changed }
    }
}

/// The image, where it is here.
async fn known(docker: &Docker, reference: &str) -> Result<Option<Known>> {
    match docker.inspect_image(reference).await {
        Ok(image) => Ok(Some(Known {
            id: image.id.with_context(|| format!("the engine tells no id of the image {reference}"))?,
            size: image.size.and_then(|size| size.try_into().ok()).unwrap_or_default(),
            digests: image.repo_digests.unwrap_or_default(),
            labels: image.config.and_then(|config| config.labels).unwrap_or_default(),
        })),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("look at the image {reference}")),
    }
}

/// What a build is about.
#[derive(Clone, Copy)]
pub struct Build<'a> {
    pub site: &'a Site,
    pub engine: &'a Engine,
    pub report: &'a Reporter,
    /// Build although nothing changed: newer packages may be there.
    pub refresh: bool,
    /// For Dockerfiles that mount them.
    pub secrets: &'a buildkit::Secrets,
}

impl Build<'_> {
    async fn docker(&self) -> Result<&Docker> {
        self.engine.docker().await
    }
}

fn step(text: String, shell: String) -> Plan {
    Plan { steps: vec![Step { stage: 0, step: STEP.into(), text, bytes: None, shell: vec![shell] }] }
}
