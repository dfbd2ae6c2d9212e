//! Files of a container's root filesystem, through the Engine's archive API: the engine resolves names inside the
//! container, so nothing a person planted there leads out.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use bollard::query_parameters::{
    ContainerArchiveInfoOptionsBuilder, DownloadFromContainerOptionsBuilder, UploadToContainerOptionsBuilder,
};
use futures_util::StreamExt as _;

use super::{Engine, fault, found};

/// The largest file that is read out of a container, in bytes.
const LARGEST: usize = 4 << 20;

/// A file or a directory (without content) to put into a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Absolute path inside.
    pub path: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub content: Option<Vec<u8>>,
}

impl File {
    /// A file of root's.
    pub fn of_root(path: &str, mode: u32, content: impl Into<Vec<u8>>) -> File {
        File { path: path.to_owned(), mode, uid: 0, gid: 0, content: Some(content.into()) }
    }
}

/// Where the engine keeps the root filesystem of a container that was never started.
#[derive(Debug, Clone)]
pub struct Layers {
    pub upper: PathBuf,
    /// Topmost first.
    pub lowers: Vec<PathBuf>,
}

impl Engine {
    /// The directories of a container's root filesystem, where the engine keeps it as an overlay on this host and without
    /// a mapping of users.
    pub async fn layers(&self, container: &str) -> Result<Option<Layers>> {
        let answer = self.docker().await?.inspect_container(container, None).await;
        let Some(driver) = found(answer, format!("look at {container}"))?.and_then(|seen| seen.graph_driver)
        else {
            return Ok(None);
        };
        let (Some(upper), Some(lowers)) = (driver.data.get("UpperDir"), driver.data.get("LowerDir")) else {
            return Ok(None);
        };
        let own = std::fs::symlink_metadata(upper).is_ok_and(|upper| upper.is_dir() && upper.uid() == 0);
        let layers = Layers { upper: upper.into(), lowers: lowers.split(':').map(PathBuf::from).collect() };
        Ok((driver.name == "overlay2" && own).then_some(layers))
    }

    pub async fn has_file(&self, container: &str, path: &str) -> Result<bool> {
        let options = ContainerArchiveInfoOptionsBuilder::default().path(path).build();
        let answer = self.docker().await?.get_container_archive_info(container, Some(options)).await;
        Ok(found(answer, format!("look for {path} in {container}"))?.is_some())
    }

    /// The content of a regular file, `None` where there is none.
    pub async fn read_file(&self, container: &str, path: &str) -> Result<Option<Vec<u8>>> {
        let doing = format!("read {path} in {container}");
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut stream = Box::pin(self.docker().await?.download_from_container(container, Some(options)));
        let mut archive = Vec::new();
        while let Some(chunk) = stream.next().await {
            let Some(chunk) = found(chunk, &doing)? else { return Ok(None) };
            anyhow::ensure!(archive.len() + chunk.len() <= LARGEST, "cannot {doing}: it is too large");
            archive.extend_from_slice(&chunk);
        }
        let mut archive = tar::Archive::new(archive.as_slice());
        let Some(entry) = archive.entries()?.next() else { return Ok(None) };
        let mut content = Vec::new();
        entry?.read_to_end(&mut content).with_context(|| doing)?;
        Ok(Some(content))
    }

    /// Puts `files` into a container, running or not, in the order given.
    pub async fn put_files(&self, container: &str, files: &[File]) -> Result<()> {
        let archive = tar_of(files).context("pack the files for the container")?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let docker = self.docker().await?;
        docker
            .upload_to_container(container, Some(options), bollard::body_full(archive.into()))
            .await
            .map_err(|e| fault(e, format!("put files into {container}")))?;
        Ok(())
    }
}

fn tar_of(files: &[File]) -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(file.mode);
        header.set_uid(file.uid.into());
        header.set_gid(file.gid.into());
        let name = file.path.trim_start_matches('/');
        match &file.content {
            Some(content) => {
                header.set_size(content.len() as u64);
                builder.append_data(&mut header, name, content.as_slice())?;
            }
            None => {
                header.set_entry_type(tar::EntryType::Directory);
                header.set_size(0);
                builder.append_data(&mut header, format!("{name}/"), std::io::empty())?;
            }
        }
    }
    builder.into_inner()
}
