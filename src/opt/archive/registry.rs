//! An archive in a registry: one blob, or the pieces that publish-opt cut it into, one behind another.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};

use super::network::{Chunks, Received, channel};
use crate::oci::{Blob, Registry};
use crate::report::{Fault, Kind};
use crate::spec::Reference;

/// Pieces on their way at the same time: a registry takes a while to answer for each.
const AT_ONCE: usize = 4;
/// A blob up to this size, bytes, is held in memory and checked before it is handed on; a piece of publish-opt's has 16 MiB
/// and a little more where nothing in it could be compressed.
const WHOLE: u64 = 20 << 20;
/// How often a blob that broke off is taken up again without one more byte having come, and after which first pause.
const RETRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(300);

/// A transfer that has not begun yet.
pub struct Transfer {
    from: Arc<Repository>,
    pieces: Vec<Blob>,
    chunks: Chunks,
}

/// The repository that the blobs are in.
struct Repository {
    registry: Registry,
    of: Reference,
}

/// A piece that is here, or one that is too large to be held.
enum Piece {
    Here(Bytes),
    Large(Blob),
}

impl Transfer {
    /// Of the blobs of the repository that `of` is in.
    pub fn new(registry: Registry, of: Reference, pieces: Vec<Blob>) -> (Transfer, Received) {
        let (chunks, received) = channel();
        (Transfer { from: Arc::new(Repository { registry, of }), pieces, chunks }, received)
    }

    /// Passes all on, in order. Ends early when the reader goes away; an error goes to the reader.
    pub async fn run(self) {
        let Transfer { from, pieces, chunks } = self;
        if let Err(error) = pass(from, pieces, &chunks).await {
            let _ = chunks.send(Err(io::Error::other(Fault::of(&error).to_string()))).await;
        }
    }
}

async fn pass(from: Arc<Repository>, pieces: Vec<Blob>, chunks: &Chunks) -> Result<()> {
    let source = from.clone();
    let mut pieces = stream::iter(pieces).map(move |blob| source.clone().piece(blob)).buffered(AT_ONCE);
    while let Some(piece) = pieces.next().await {
        let wanted = match piece? {
            Piece::Here(bytes) => bytes.is_empty() || chunks.send(Ok(bytes)).await.is_ok(),
            // The digest of the whole archive is looked at before anything is made of it.
            Piece::Large(blob) => from.each(&blob, Sink::Pass(chunks)).await?,
        };
        if !wanted {
            return Ok(());
        }
    }
    let _ = chunks.send(Ok(Bytes::new())).await;
    Ok(())
}

/// Where the chunks of a blob go.
enum Sink<'a> {
    Hold(&'a mut Vec<u8>),
    Pass(&'a Chunks),
}

impl Sink<'_> {
    /// Whether more is wanted.
    async fn take(&mut self, chunk: Bytes) -> bool {
        match self {
            Sink::Hold(bytes) => {
                bytes.extend_from_slice(&chunk);
                true
            }
            Sink::Pass(chunks) => chunks.send(Ok(chunk)).await.is_ok(),
        }
    }
}

impl Repository {
    fn piece(self: Arc<Self>, blob: Blob) -> BoxFuture<'static, Result<Piece>> {
        Box::pin(async move {
            match blob.size <= WHOLE {
                true => self.whole(&blob).await.map(Piece::Here),
                false => Ok(Piece::Large(blob)),
            }
        })
    }

    /// A small blob, checked against its digest.
    async fn whole(&self, blob: &Blob) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size)?);
        self.each(blob, Sink::Hold(&mut bytes)).await?;
        let found = Blob::of(&bytes).digest;
        ensure!(found == blob.digest, "the registry sends {found} for {}", blob.digest);
        Ok(bytes.into())
    }

    /// Hands each chunk on, until no more is wanted, and says whether it is. What broke off is taken up where it was.
    async fn each(&self, blob: &Blob, mut sink: Sink<'_>) -> Result<bool> {
        let (mut done, mut failures, mut pause) = (0, 0, PAUSE);
        loop {
            let broken = match self.once(blob, &mut done, &mut sink).await {
                Ok(wanted) => return Ok(wanted),
                Err(broken) => broken,
            };
            if broken.is_new {
                (failures, pause) = (0, PAUSE);
            }
            failures += 1;
            if failures > RETRIES || Fault::of(&broken.error).kind != Kind::Failed {
                return Err(broken.error);
            }
            tracing::debug!("{}: {:#}; taking it up at {done}", blob.digest, broken.error);
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// One request, for what is missing after `done` bytes.
    async fn once(&self, blob: &Blob, done: &mut u64, sink: &mut Sink<'_>) -> Result<bool, Broken> {
        let begin = *done;
        let broken = |error, done: u64| Broken { error, is_new: done > begin };
        let mut incoming = self.registry.blob(&self.of, blob, begin).await.map_err(|e| broken(e, begin))?;
        // A registry without ranges begins at the begin again.
        let mut skip = begin.saturating_sub(incoming.from);
        loop {
            let chunk = match incoming.next().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break,
                Err(e) => {
                    let doing = format!("{} broke off after {done} bytes", blob.digest);
                    return Err(broken(anyhow::Error::new(e).context(doing), *done));
                }
            };
            let behind = chunk.len().min(usize::try_from(skip).unwrap_or(usize::MAX));
            skip -= behind as u64;
            let chunk = chunk.slice(behind..);
            *done += chunk.len() as u64;
            if *done > blob.size {
                let error = anyhow::anyhow!(
                    "the registry sends more than the {} bytes of {}",
                    blob.size,
                    blob.digest
                );
                return Err(broken(error, begin));
            }
            if !chunk.is_empty() && !sink.take(chunk).await {
                return Ok(false);
            }
        }
        match *done == blob.size {
            true => Ok(true),
            false => Err(broken(
                anyhow::anyhow!("{} ended after {done} of {} bytes", blob.digest, blob.size),
                *done,
            )),
        }
    }
}

/// A request that did not get to the blob's end.
struct Broken {
    error: anyhow::Error,
    /// More bytes came than before it.
    is_new: bool,
}
