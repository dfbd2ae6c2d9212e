//! Root filesystems as images: what a container wrote over its image, committed for those that are cloned from it.
//!
//! They are called `moorage-root/<key>`: no person may name such an image (`container::check`), and each is removed when
//! no record names its key any more.

use std::collections::HashMap;

use anyhow::Result;
use bollard::errors::Error;
use bollard::models::{ChangeType, ContainerConfig, FilesystemChange, ImageSummary};
use bollard::query_parameters::{
    CommitContainerOptionsBuilder, InspectContainerOptionsBuilder, ListImagesOptionsBuilder,
    RemoveImageOptions, TagImageOptionsBuilder,
};

use super::{Engine, LABEL, fault, found};
use crate::report::{Fault, Kind};

/// What the names of committed root filesystems begin with.
pub const ROOTS: &str = "moorage-root/";
/// The label of an image that is a container's root filesystem; its value is the key.
const ROOT_LABEL: &str = "moorage.root";

/// A path that a container has made, changed or removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub path: String,
    /// It was there before and is there now.
    pub modified: bool,
}

/// The image that holds the root filesystem of this key.
pub fn root_image(key: &str) -> String {
    format!("{ROOTS}{key}:latest")
}

impl Engine {
    /// Commits the root filesystem of a stopped container under `key`; answers the image's id. `owner` is written on it.
    pub async fn commit(&self, container: &str, key: &str, owner: &str) -> Result<String> {
        if self.is_high(container).await? {
            let labels = [(ROOT_LABEL, key), ("moorage.owner", owner), (LABEL, "")];
            return self.flatten(container, &format!("{ROOTS}{key}"), &labels).await;
        }
        let doing = format!("commit the root filesystem of {container}");
        // Whatever is made of it by hand must not look like the container it was taken from.
        let changes = format!("LABEL {ROOT_LABEL}={key} moorage.owner={owner} {LABEL}=\"\"");
        let options = CommitContainerOptionsBuilder::default()
            .container(container)
            .repo(&format!("{ROOTS}{key}"))
            .tag("latest")
            .pause(false)
            .changes(&changes)
            .build();
        // It takes as long as the disk does for all that was ever written; given up, it would go on without us.
        let docker = self.docker().await?.clone().with_timeout(super::WHOLE_DISK);
        let committed = docker.commit_container(options, ContainerConfig::default()).await;
        Ok(committed.map_err(|e| fault(e, doing))?.id)
    }

    /// The key that a root filesystem was committed under, as its label says; `None` for any other image.
    pub async fn root_key(&self, image: &str) -> Result<Option<String>> {
        let answer = self.docker().await?.inspect_image(image).await;
        let seen = found(answer, format!("look at the image {image}"))?;
        let labels = seen.and_then(|seen| seen.config).and_then(|config| config.labels).unwrap_or_default();
        // It becomes part of an image's name.
        let good = |key: &&String| key.len() == 24 && key.bytes().all(|b| b.is_ascii_hexdigit());
        Ok(labels.get(ROOT_LABEL).filter(good).cloned())
    }

    /// Gives a root filesystem that was pulled as `reference` the name of its key, which is its only one then.
    ///
    /// # Errors
    /// [`Kind::Differs`]: another one has that key here.
    pub async fn adopt_root(&self, reference: &str, key: &str) -> Result<()> {
        let (pulled, here) = (self.image(reference).await?, self.image(&root_image(key)).await?);
        let pulled = pulled.map(|image| image.id).unwrap_or_default();
        match here {
            Some(here) if here.id != pulled => {
                let what =
                    format!("{reference} says it is the root filesystem {key}, and that is another here");
                return Err(Fault::new(Kind::Differs, what).next("publish the snapshot again").into());
            }
            Some(_) => {}
            None => self.tag(reference, (&format!("{ROOTS}{key}"), "latest")).await?,
        }
        self.untag(reference).await
    }

    /// Gives an image one more name.
    pub async fn tag(&self, image: &str, (name, tag): (&str, &str)) -> Result<()> {
        let options = TagImageOptionsBuilder::default().repo(name).tag(tag).build();
        let answer = self.docker().await?.tag_image(image, Some(options)).await;
        Ok(answer.map_err(|e| fault(e, format!("call {image} {name}:{tag}")))?)
    }

    /// Takes one of an image's names away; one that is not there is no error.
    pub async fn untag(&self, name: &str) -> Result<()> {
        let removed = self.docker().await?.remove_image(name, None::<RemoveImageOptions>, None).await;
        match removed {
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(()),
            Err(error) => Err(fault(error, format!("take the name {name} away")).into()),
        }
    }

    /// Bytes that a container has written over its image.
    pub async fn written_bytes(&self, container: &str) -> Result<u64> {
        let options = InspectContainerOptionsBuilder::default().size(true).build();
        let answer = self.docker().await?.inspect_container(container, Some(options)).await;
        let seen = found(answer, format!("measure {container}"))?;
        let bytes = seen.and_then(|seen| seen.size_rw).unwrap_or_default();
        Ok(u64::try_from(bytes).unwrap_or_default())
    }

    /// What a container has written over its image.
    pub async fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let answer = self.docker().await?.container_changes(container).await;
        let changes = found(answer, format!("compare {container} with its image"))?.flatten();
        let one =
            |change: FilesystemChange| Change { path: change.path, modified: change.kind == ChangeType::_0 };
        Ok(changes.unwrap_or_default().into_iter().map(one).collect())
    }

    /// The keys of the committed root filesystems that are here, with their images' ids.
    pub async fn roots(&self) -> Result<Vec<(String, String)>> {
        let filters: HashMap<&str, Vec<&str>> = [("label", vec![ROOT_LABEL])].into();
        let options = ListImagesOptionsBuilder::default().filters(&filters).build();
        let docker = self.docker().await?;
        let images = docker.list_images(Some(options)).await.map_err(|e| fault(e, "list the images"))?;
        let ours = |image: &ImageSummary| {
            let key = image.labels.get(ROOT_LABEL)?;
            // Somebody may have made an image of such a container by hand: it has the label too, and is theirs.
            let named = image.repo_tags.contains(&root_image(key));
            named.then(|| (key.clone(), image.id.clone()))
        };
        Ok(images.iter().filter_map(ours).collect())
    }

    /// Removes a committed root filesystem. `false`: a container still has it, and it stays.
    pub async fn remove_root(&self, key: &str) -> Result<bool> {
        let name = root_image(key);
        let removed = self.docker().await?.remove_image(&name, None::<RemoveImageOptions>, None).await;
        match removed {
            Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(true),
            Err(Error::DockerResponseServerError { status_code: 409, .. }) => Ok(false),
            Err(error) => Err(fault(error, format!("remove the image {name}")).into()),
        }
    }
}
