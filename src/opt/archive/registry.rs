//! An archive in a registry: one blob, or the pieces that publish-opt cut it into, one behind another.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt as _, stream};

use super::arriving::{Arriving, Chunks, Pump, Unwanted, channel};
use super::network::Ended;
use crate::oci::{Blob, Registry};
use crate::opt::spool::Spool;
use crate::report::{Fault, Kind};
use crate::spec::Reference;

/// Pieces on their way at the same time: a registry takes a while to answer for each.
const AT_ONCE: usize = 4;
/// A blob up to this size, bytes, is held in memory and checked before it is handed on; a piece of publish-opt's has 16 MiB
/// and a little more where nothing in it could be compressed.
const WHOLE: u64 = 20 << 20;
/// How often a blob that broke off is taken up again without one more byte having come, and after which first pause.
const RETRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(500);

/// A transfer that has not begun yet.
pub struct Transfer {
    from: Arc<Repository>,
    pieces: Vec<Part>,
    chunks: Chunks,
    unwanted: Unwanted,
}

/// A blob of which the first bytes are here already.
struct Part {
    blob: Blob,
    here: u64,
}

/// The repository that the blobs are in.
struct Repository {
    registry: Arc<Registry>,
    of: Reference,
}

/// A piece that is here, or one that is too large to be held, or of which only the rest is wanted.
enum Piece {
    Here(Bytes),
    Passed(Part),
}

impl Transfer {
    /// Of the blobs of the repository that `of` is in, behind what is in the spool.
    pub fn new(
        registry: Arc<Registry>,
        of: Reference,
        pieces: Vec<Blob>,
        spool: Arc<Spool>,
    ) -> (Transfer, Pump, Arriving) {
        let pieces = missing(pieces, spool.have());
        let (chunks, unwanted, pump, arriving) = channel(spool);
        (Transfer { from: Arc::new(Repository { registry, of }), pieces, chunks, unwanted }, pump, arriving)
    }

    /// Passes all on, in order. Ends early when the reader goes away; an error goes to the reader.
    pub async fn run(self) -> Ended {
        let Transfer { from, pieces, chunks, unwanted } = self;
        let all = async {
            match pass(from, pieces, &chunks).await {
                Ok(true) => Ended::Whole,
                Ok(false) => Ended::Unwanted,
                Err(error) => {
                    let _ = chunks.send(Err(io::Error::other(Fault::of(&error).to_string()))).await;
                    Ended::Broken
                }
            }
        };
        tokio::select! {
            biased;
            ended = all => ended,
            () = unwanted.wait() => Ended::Unwanted,
        }
    }
}

/// What of `pieces` is missing where `have` bytes of all are here.
fn missing(pieces: Vec<Blob>, mut have: u64) -> Vec<Part> {
    let part = |blob: Blob| {
        let here = have.min(blob.size);
        have -= here;
        Part { blob, here }
    };
    pieces.into_iter().map(part).filter(|part| part.here < part.blob.size).collect()
}

/// Whether all was passed on, and somebody wanted it.
async fn pass(from: Arc<Repository>, pieces: Vec<Part>, chunks: &Chunks) -> Result<bool> {
    let source = from.clone();
    let mut pieces = stream::iter(pieces).map(move |part| source.clone().piece(part)).buffered(AT_ONCE);
    while let Some(piece) = pieces.next().await {
        let wanted = match piece? {
            Piece::Here(bytes) => bytes.is_empty() || chunks.send(Ok(bytes)).await.is_ok(),
            // The digest of the whole archive is looked at before anything is made of it.
            Piece::Passed(part) => from.each(&part.blob, part.here, Sink::Pass(chunks)).await?,
        };
        if !wanted {
            return Ok(false);
        }
    }
    Ok(chunks.send(Ok(Bytes::new())).await.is_ok())
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
    fn piece(self: Arc<Self>, part: Part) -> BoxFuture<'static, Result<Piece>> {
        Box::pin(async move {
            match part.blob.size <= WHOLE && part.here == 0 {
                true => self.whole(&part.blob).await.map(Piece::Here),
                false => Ok(Piece::Passed(part)),
            }
        })
    }

    /// A small blob, checked against its digest.
    async fn whole(&self, blob: &Blob) -> Result<Bytes> {
        let mut bytes = Vec::with_capacity(usize::try_from(blob.size)?);
        self.each(blob, 0, Sink::Hold(&mut bytes)).await?;
        let found = Blob::of(&bytes).digest;
        ensure!(found == blob.digest, "the registry sends {found} for {}", blob.digest);
        Ok(bytes.into())
    }

    /// Hands each chunk behind byte `done` on, until no more is wanted, and says whether it is. What broke off is taken up
    /// where it was.
    async fn each(&self, blob: &Blob, mut done: u64, mut sink: Sink<'_>) -> Result<bool> {
        let (mut failures, mut pause) = (0, PAUSE);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Digest;

    #[test]
    fn what_is_in_the_spool_is_not_asked_for() {
        let pieces: Vec<Blob> =
            [10, 20, 30].map(|size| Blob { digest: Digest([u8::try_from(size).unwrap(); 32]), size }).into();
        let left = |have| -> Vec<(u64, u64)> {
            missing(pieces.clone(), have).iter().map(|part| (part.blob.size, part.here)).collect()
        };
        assert_eq!(left(0), [(10, 0), (20, 0), (30, 0)]);
        assert_eq!(left(10), [(20, 0), (30, 0)]);
        assert_eq!(left(29), [(20, 19), (30, 0)]);
        assert_eq!(left(60), []);
    }
}
