//! The one layer of a base: in the engine as soon as it is written, or in a file where the engine wants it with the image.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, stream};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::oneshot;

use super::STEP;
use crate::engine::{Engine, Taken};
use crate::report::{Reporter, Unit};
use crate::spec::Digest;

/// Bytes of a file read at a time.
const CHUNK: usize = 1 << 20;
/// Bytes that a pipe holds (pipe(7)).
const PIPE: usize = 64 << 10;

/// An uncompressed tar.
#[derive(Debug)]
pub(super) enum Layer {
    Taken(Taken),
    Written { digest: Digest, path: PathBuf },
}

impl Layer {
    pub fn digest(&self) -> Digest {
        match self {
            Layer::Taken(taken) => taken.digest,
            Layer::Written { digest, .. } => *digest,
        }
    }

    pub async fn written(path: PathBuf) -> Result<Layer> {
        let at = path.clone();
        let digest = tokio::task::spawn_blocking(move || digest_of_file(&at)).await?;
        Ok(Layer::Written { digest: digest.context("read the root filesystem")?, path })
    }

    /// What an image has been made of keeps the layer from here on, where there is one.
    pub async fn let_go(self, engine: &Engine) -> Result<()> {
        match self {
            Layer::Taken(taken) => engine.let_go(&taken).await,
            Layer::Written { .. } => Ok(()),
        }
    }
}

/// A tar that somebody writes, and what of it was read. Only what is `whole` in the end has an end: who writes may fail
/// behind the last byte.
pub(super) fn arriving(
    tar: impl AsyncRead + Send + Unpin + 'static,
    whole: oneshot::Receiver<bool>,
    report: Reporter,
) -> impl Stream<Item = std::io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((tar, whole, 0), move |(mut tar, whole, before)| {
        let report = report.clone();
        async move {
            let mut chunk = BytesMut::with_capacity(PIPE);
            let length = tar.read_buf(&mut chunk).await?;
            let read = before + length as u64;
            if length > 0 {
                report.progress(STEP, read, None, Unit::Bytes);
                return Ok(Some((chunk.freeze(), (tar, whole, read))));
            }
            match whole.await {
                Ok(true) => {
                    report.progress(STEP, read, Some(read), Unit::Bytes);
                    Ok(None)
                }
                _ => Err(std::io::Error::other("it was not written to its end")),
            }
        }
    })
}

/// The SHA-256 of a file's bytes; blocks.
pub(super) fn digest_of_file(path: &Path) -> std::io::Result<Digest> {
    let mut hash = Sha256::new();
    let mut file = std::fs::File::open(path)?;
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk)? {
            0 => return Ok(Digest(hash.finalize().into())),
            length => hash.update(&chunk[..length]),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt as _;

    use super::*;

    #[tokio::test]
    async fn a_tar_whose_writer_failed_has_no_end() {
        for verdict in [Some(true), Some(false), None] {
            let (tell, whole) = oneshot::channel();
            match verdict {
                Some(verdict) => tell.send(verdict).unwrap(),
                None => drop(tell),
            }
            let read: std::io::Result<Vec<Bytes>> =
                arriving(&b"all of it"[..], whole, Reporter::silent()).try_collect().await;
            match verdict {
                Some(true) => assert_eq!(read.unwrap().concat(), b"all of it"),
                _ => assert!(read.unwrap_err().to_string().contains("not written to its end")),
            }
        }
    }
}
