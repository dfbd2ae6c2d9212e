//! An archive from the network: asynchronous chunks on one side, a blocking reader on the other.

use std::io::{self, Read};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::report::{Fault, Kind};

/// Chunks received but not yet decoded.
const AHEAD: usize = 64;

/// How long a server may say nothing.
const SILENCE: Duration = Duration::from_secs(60);

/// How often a broken transfer is taken up again without one more byte having come.
const RETRIES: u32 = 3;

/// A transfer that has begun.
pub struct Transfer {
    client: reqwest::Client,
    url: String,
    response: reqwest::Response,
    chunks: Chunks,
}

/// What chunks go into; an empty one says that it was the last.
pub type Chunks = mpsc::Sender<io::Result<Bytes>>;

/// The asynchronous end and the blocking one.
pub fn channel() -> (Chunks, Received) {
    let (chunks, received) = mpsc::channel(AHEAD);
    (chunks, Received { chunks: received, current: Bytes::new(), ended: false })
}

/// The blocking end. It ends only where the server's last byte was; an early end is an error.
pub struct Received {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
    ended: bool,
}

/// A client for the daemon's life.
pub fn client() -> Result<reqwest::Client> {
    // Another part of the process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder()
        .connect_timeout(Duration::from_secs(20))
        .read_timeout(SILENCE)
        .user_agent(concat!("moorage/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("set up the HTTP client")
}

impl Transfer {
    /// Asks for `url`. Also returns the number of bytes, where the server says it.
    pub async fn begin(client: &reqwest::Client, url: &str) -> Result<(Transfer, Received, Option<u64>)> {
        let failed = |kind, why: String| {
            Fault::new(kind, format!("fetch {url}"))
                .why(why)
                .next(format!("see that this works: curl -fI {url}"))
        };
        let response = client.get(url).send().await.map_err(|e| failed(Kind::Failed, words(&e)))?;
        let status = response.status();
        if status != reqwest::StatusCode::OK {
            let kind = if status == reqwest::StatusCode::NOT_FOUND { Kind::NotFound } else { Kind::Failed };
            return Err(failed(kind, format!("the server answers {status}")).into());
        }
        let total = response.content_length();
        let (chunks, received) = channel();
        let transfer = Transfer { client: client.clone(), url: url.to_owned(), response, chunks };
        Ok((transfer, received, total))
    }

    /// Passes all on. Ends early when the reader goes away; an error goes to the reader.
    pub async fn run(mut self) {
        let mut done = 0u64;
        let mut failures = 0;
        loop {
            match self.response.chunk().await {
                Ok(Some(chunk)) => {
                    done += chunk.len() as u64;
                    failures = 0;
                    if !chunk.is_empty() && self.chunks.send(Ok(chunk)).await.is_err() {
                        return;
                    }
                }
                Ok(None) => {
                    let _ = self.chunks.send(Ok(Bytes::new())).await;
                    return;
                }
                Err(e) => {
                    failures += 1;
                    if failures <= RETRIES && self.take_up(done).await {
                        continue;
                    }
                    let why = format!("the transfer broke after {done} bytes: {}", words(&e));
                    let _ = self.chunks.send(Err(io::Error::other(why))).await;
                    return;
                }
            }
        }
    }

    /// Asks for the rest from byte `done` on. The digest of the whole says whether it was still the same archive.
    async fn take_up(&mut self, done: u64) -> bool {
        let range = (reqwest::header::RANGE, format!("bytes={done}-"));
        match self.client.get(&self.url).header(range.0, range.1).send().await {
            Ok(response) if response.status() == reqwest::StatusCode::PARTIAL_CONTENT => {
                self.response = response;
                true
            }
            _ => false,
        }
    }
}

/// The error with its causes, without the URL, which the caller names.
fn words(error: &reqwest::Error) -> String {
    let mut causes = Vec::new();
    let mut next: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push(cause.to_string());
        next = cause.source();
    }
    match causes.is_empty() {
        true => error.to_string(),
        false => causes.join(": "),
    }
}

impl Read for Received {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !self.ended {
            match self.chunks.blocking_recv() {
                Some(Ok(chunk)) if chunk.is_empty() => self.ended = true,
                Some(chunk) => self.current = chunk?,
                None => {
                    return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the transfer was given up"));
                }
            }
        }
        let n = into.len().min(self.current.len());
        into[..n].copy_from_slice(&self.current.split_to(n));
        Ok(n)
    }
}
