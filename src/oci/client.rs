//! One registry, with one person's credentials.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::StreamExt as _;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol};
use oci_client::errors::OciDistributionError;
use oci_client::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor,
};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, RegistryOperation};
use sha2::Digest as _;
use tokio::sync::mpsc;

use super::access::Access;
use super::artifact::{Blob, Manifest};
use super::blob::Incoming;
use super::fault::{fault, is_passing};
use crate::report::{Fault, Kind};
use crate::spec::{Digest, Reference};

/// How long a registry may say nothing.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(20);
/// How often what may succeed a little later is tried again, and after which first pause; each next one is twice as long.
const RETRIES: u32 = 4;
const PAUSE: Duration = Duration::from_millis(500);
/// How long being let in is taken for granted; a token lives for a minute where nothing else is said (token authentication
/// specification), and the client gets itself another one then.
const LOGGED_IN: Duration = Duration::from_secs(30);
/// Bytes of a file that are read at a time, and how many such blocks wait for the registry.
const BLOCK: usize = 256 * 1024;
const AHEAD: usize = 8;
/// What a manifest may be, newest form first.
const MANIFESTS: [&str; 4] = [
    OCI_IMAGE_MEDIA_TYPE,
    OCI_IMAGE_INDEX_MEDIA_TYPE,
    IMAGE_MANIFEST_MEDIA_TYPE,
    IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];

/// A registry that has answered.
pub struct Registry {
    client: Client,
    auth: RegistryAuth,
    host: String,
    /// Repositories that we were let into, for pulling or pushing, and when.
    logged_in: Mutex<HashMap<(String, bool), Instant>>,
}

impl Registry {
    /// Looks up the credentials and certificates for `host` (`registry.corp:5000`) and sets the client up. Asks the registry
    /// nothing, except on the loopback interface: whether it speaks TLS.
    ///
    /// # Errors
    /// A [`Fault`]: credentials or certificates that cannot be used.
    pub async fn open(host: &str, access: &Access) -> Result<Registry> {
        // Another part of the process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let auth = access.credentials(host).await?;
        let protocol = match is_loopback(host) && !speaks_tls(host).await {
            true => ClientProtocol::HttpsExcept(vec![host.to_owned()]),
            false => ClientProtocol::Https,
        };
        let config = ClientConfig {
            protocol,
            extra_root_certificates: access.authorities(host)?,
            use_monolithic_push: true,
            read_timeout: Some(SILENCE),
            connect_timeout: Some(CONNECT),
            user_agent: concat!("moorage/", env!("CARGO_PKG_VERSION")),
            ..ClientConfig::default()
        };
        let client = Client::try_from(config).map_err(|e| {
            Fault::new(Kind::Failed, format!("cannot set up a client for {host}"))
                .why(format!("{:#}", anyhow::Error::new(e)))
                .next(format!("ls -la {}", access.certificates.join(host).display()))
        })?;
        Ok(Registry { client, auth, host: host.to_owned(), logged_in: Mutex::default() })
    }

    /// The manifest that `of` names, checked against its digest where it has one.
    pub async fn manifest(&self, of: &Reference) -> Result<Manifest> {
        let doing = format!("get the manifest of {of}");
        let name = self.name(of)?;
        self.log_in(of, RegistryOperation::Pull, &doing).await?;
        let pull = || self.client.pull_manifest_raw(&name, &self.auth, &MANIFESTS);
        let (bytes, _) = self.again(pull, &doing).await?;
        // Of the bytes, not what the registry says of them.
        let digest = Blob::of(&bytes).digest;
        if let Some(expected) = of.digest {
            ensure!(expected == digest, "{of}: the registry sends a manifest with the digest {digest}");
        }
        Ok(Manifest { reference: of.clone(), digest, bytes })
    }

    /// The digest of the manifest that a tag names now; none where there is no such tag.
    pub async fn resolve(&self, of: &Reference) -> Result<Option<Digest>> {
        let doing = format!("resolve {of}");
        let name = self.name(of)?;
        self.log_in(of, RegistryOperation::Pull, &doing).await?;
        let asked = self.again(|| self.client.fetch_manifest_digest(&name, &self.auth), &doing).await;
        match asked {
            Ok(digest) => Ok(Some(digest.parse().with_context(|| format!("{doing}: {digest}"))?)),
            Err(fault) if fault.kind == Kind::NotFound => Ok(None),
            Err(fault) => Err(fault.into()),
        }
    }

    /// The tags of the repository that `of` is in.
    pub async fn tags(&self, of: &Reference) -> Result<Vec<String>> {
        let doing = format!("list the tags of {}/{}", of.registry, of.repository);
        let name = self.name(of)?;
        let (mut all, mut last) = (Vec::<String>::new(), None::<String>);
        loop {
            let list = || self.client.list_tags(&name, &self.auth, Some(1000), last.as_deref());
            let page = self.again(list, &doing).await?.tags;
            // A registry without pages gives the same page for ever.
            match page.last() {
                Some(end) if last.as_ref() != Some(end) => last = Some(end.clone()),
                _ => return Ok(all),
            }
            all.extend(page);
        }
    }

    /// Begins to get a blob of the repository that `of` is in, from byte `from` on. Not retried: whoever reads knows how
    /// far they are.
    pub async fn blob(&self, of: &Reference, blob: &Blob, from: u64) -> Result<Incoming> {
        let doing = format!("get {} from {}/{}", blob.digest, of.registry, of.repository);
        let name = self.name(of)?;
        self.log_in(of, RegistryOperation::Pull, &doing).await?;
        let wanted = OciDescriptor {
            digest: blob.digest.to_string(),
            size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let answer = self.client.pull_blob_stream_partial(&name, &wanted, from, None).await;
        match answer.map_err(|e| fault(e, &doing, &self.host))? {
            BlobResponse::Partial(stream) => Ok(Incoming { bytes: stream.stream, from }),
            BlobResponse::Full(stream) => Ok(Incoming { bytes: stream.stream, from: 0 }),
        }
    }

    /// A whole blob of the repository that `of` is in, checked against its digest; of one that is larger than `most` bytes
    /// nothing is asked for.
    pub async fn small_blob(&self, of: &Reference, blob: &Blob, most: u64) -> Result<Vec<u8>> {
        ensure!(blob.size <= most, "{} has {} bytes, and at most {most} are taken", blob.digest, blob.size);
        let mut incoming = self.blob(of, blob, 0).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = incoming.next().await.with_context(|| format!("get {}", blob.digest))? {
            bytes.extend_from_slice(&chunk);
            ensure!(bytes.len() as u64 <= blob.size, "the registry sends more than {} has", blob.digest);
        }
        let found = Blob::of(&bytes).digest;
        ensure!(found == blob.digest, "the registry sends {found} for {}", blob.digest);
        Ok(bytes)
    }

    /// Whether the repository that `to` is in has a blob.
    pub async fn has(&self, to: &Reference, digest: &Digest) -> Result<bool> {
        let doing = format!("look for {digest} in {}/{}", to.registry, to.repository);
        let name = self.name(to)?;
        self.log_in(to, RegistryOperation::Pull, &doing).await?;
        let digest = digest.to_string();
        Ok(self.again(|| self.client.blob_exists(&name, &digest), &doing).await?)
    }

    /// Puts bytes into the repository that `to` is in, unless they are there.
    pub async fn push_blob(&self, to: &Reference, bytes: &[u8]) -> Result<Blob> {
        let blob = Blob::of(bytes);
        let bytes = Bytes::copy_from_slice(bytes);
        let whole = || {
            let bytes = bytes.clone();
            Ok(futures_util::stream::once(async move { Ok(bytes) }))
        };
        self.push(to, blob, whole).await?;
        Ok(blob)
    }

    /// Puts a file into the repository that `to` is in, unless it is there; `progress` is told how many bytes of it are sent.
    /// The file is read twice, for its digest first: the registry wants to know what comes.
    pub async fn push_file(
        &self,
        to: &Reference,
        path: &Path,
        progress: impl Fn(u64) + Clone + Send + Sync + 'static,
    ) -> Result<Blob> {
        let of_file = path.to_owned();
        let blob = tokio::task::spawn_blocking(move || blob_of(&of_file))
            .await
            .context("the reading thread ended")?
            .with_context(|| format!("read {}", path.display()))?;
        self.push(to, blob, || {
            read(path, progress.clone()).with_context(|| format!("read {}", path.display()))
        })
        .await?;
        progress(blob.size);
        Ok(blob)
    }

    async fn push<S>(&self, to: &Reference, blob: Blob, source: impl Fn() -> Result<S>) -> Result<()>
    where
        S: futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static,
    {
        let doing = format!("put {} into {}/{}", blob.digest, to.registry, to.repository);
        let name = self.name(to)?;
        self.log_in(to, RegistryOperation::Push, &doing).await?;
        if self.has(to, &blob.digest).await? {
            return Ok(());
        }
        let digest = blob.digest.to_string();
        let mut pause = PAUSE;
        for left in (0..=RETRIES).rev() {
            let bytes = source()?.map(|read| read.map_err(OciDistributionError::from));
            match self.client.push_blob_stream(&name, bytes, &digest, Some(blob.size)).await {
                Ok(_) => return Ok(()),
                Err(e) if left > 0 && is_passing(&e) => tokio::time::sleep(pause).await,
                Err(e) => return Err(fault(e, &doing, &self.host).into()),
            }
            pause *= 2;
        }
        Ok(())
    }

    /// Puts a manifest in under the tag of `to` (without one: under its digest only) and returns its digest. Its blobs
    /// have to be there.
    pub async fn push_manifest(&self, to: &Reference, media_type: &str, bytes: Vec<u8>) -> Result<Digest> {
        let digest = Blob::of(&bytes).digest;
        // A tag goes before a digest in the path.
        let to = match &to.tag {
            Some(_) => Reference { digest: None, ..to.clone() },
            None => to.at(digest),
        };
        let doing = format!("publish {to}");
        let name = self.name(&to)?;
        self.log_in(&to, RegistryOperation::Push, &doing).await?;
        let media_type: reqwest::header::HeaderValue =
            media_type.parse().with_context(|| format!("the media type {media_type:?}"))?;
        let bytes = Bytes::from(bytes);
        let push = || self.client.push_manifest_raw(&name, bytes.clone(), media_type.clone());
        self.again(push, &doing).await?;
        Ok(digest)
    }

    /// Gets a token where the registry wants one. The client would go on without one if that failed, and hide why.
    async fn log_in(&self, at: &Reference, operation: RegistryOperation, doing: &str) -> Result<()> {
        let name = self.name(at)?;
        let key = (at.repository.clone(), matches!(operation, RegistryOperation::Push));
        let logged_in = || self.logged_in.lock().unwrap_or_else(PoisonError::into_inner);
        // It is a request of its own, and an archive may have thousands of blobs.
        if logged_in().get(&key).is_some_and(|when| when.elapsed() < LOGGED_IN) {
            return Ok(());
        }
        self.again(|| self.client.auth(&name, &self.auth, operation), doing).await?;
        logged_in().insert(key, Instant::now());
        Ok(())
    }

    /// Tries what may succeed a little later again, with growing pauses.
    async fn again<T, F>(&self, work: impl Fn() -> F, doing: &str) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, OciDistributionError>>,
    {
        let (mut pause, mut left) = (PAUSE, RETRIES);
        loop {
            match work().await {
                Ok(done) => return Ok(done),
                // Nobody listens: that does not pass within seconds, and people want to know at once.
                Err(e) if left == 0 || !is_passing(&e) || refused(&e) => {
                    return Err(fault(e, doing, &self.host));
                }
                Err(e) => tracing::debug!("{doing}: {e}; trying again in {pause:?}"),
            }
            tokio::time::sleep(pause).await;
            (pause, left) = (pause * 2, left - 1);
        }
    }

    /// The reference in the client's words.
    fn name(&self, of: &Reference) -> Result<oci_client::Reference> {
        ensure!(of.registry == self.host, "{of} is not in the registry {}", self.host);
        let (registry, repository) = (of.registry.clone(), of.repository.clone());
        Ok(match (&of.digest, &of.tag) {
            (Some(digest), _) => oci_client::Reference::with_digest(registry, repository, digest.to_string()),
            (None, Some(tag)) => oci_client::Reference::with_tag(registry, repository, tag.clone()),
            (None, None) => anyhow::bail!("{of} has neither a tag nor a digest"),
        })
    }
}

fn refused(error: &OciDistributionError) -> bool {
    matches!(error, OciDistributionError::RequestError(e) if e.is_connect())
}

pub(super) fn is_loopback(host: &str) -> bool {
    let name = host.split(':').next().unwrap_or(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether something that speaks TLS listens there, whatever its certificate says. A registry without it answers a
/// handshake with an HTTP error or goes away.
async fn speaks_tls(host: &str) -> bool {
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:443") };
    // A TLS record with a ClientHello that can only be answered by an alert (RFC 8446, 5.1 and 6), and the end of a request
    // for those who wait for one.
    const HELLO: &[u8] = b"\x16\x03\x01\x00\x04\x01\x00\x00\x00\r\n\r\n";
    let ask = async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&address).await?;
        stream.write_all(HELLO).await?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).await?;
        io::Result::Ok(matches!(answer[0], 0x15 | 0x16))
    };
    tokio::time::timeout(CONNECT, ask).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// Digest and size of a file. Blocks.
fn blob_of(path: &Path) -> io::Result<Blob> {
    let mut file = File::open(path)?;
    let (mut hash, mut size, mut block) = (sha2::Sha256::new(), 0, vec![0; BLOCK]);
    loop {
        match file.read(&mut block)? {
            0 => return Ok(Blob { digest: Digest(hash.finalize().into()), size }),
            n => {
                hash.update(&block[..n]);
                size += n as u64;
            }
        }
    }
}

/// The blocks of a file, read by a thread of its own.
fn read(
    path: &Path,
    progress: impl Fn(u64) + Send + 'static,
) -> io::Result<impl futures_util::Stream<Item = io::Result<Bytes>> + Send + 'static> {
    let mut file = File::open(path)?;
    let (blocks, received) = mpsc::channel(AHEAD);
    std::thread::Builder::new().name("push".into()).spawn(move || {
        let mut done = 0;
        loop {
            let mut block = vec![0; BLOCK];
            let (read, last) = match file.read(&mut block) {
                Ok(0) => return,
                Ok(n) => {
                    block.truncate(n);
                    done += n as u64;
                    (Ok(Bytes::from(block)), false)
                }
                Err(e) => (Err(e), true),
            };
            // Nobody waits any more, or there is nothing more to say.
            if blocks.blocking_send(read).is_err() || last {
                return;
            }
            progress(done);
        }
    })?;
    Ok(tokio_stream::wrappers::ReceiverStream::new(received))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_only() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.9.9.9"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["registry.corp", "10.0.0.1:5000", "localhost.corp", "127.0.0.1.evil.example:5000"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
