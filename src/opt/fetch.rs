//! Getting an archive into the store: once, however many ask for it at a time.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use anyhow::{Context as _, Result};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, oneshot};

use super::STEP;
use super::archive::arriving::{Arriving, Pump};
use super::archive::network::Ended;
use super::archive::{self, Cancel, Watch, network, registry};
use super::layer::{Identity, Layer};
use super::person::Person;
use super::spool::Spool;
use super::store::{Store, available, is_full};
use crate::oci::{Artifact, Registry};
use crate::report::{Fault, Kind, Reporter};
use crate::spec::archive::Scheme;
use crate::spec::{Archive, ByteSize, Digest, Reference};

/// Cancels the threads when the future that waits for them is dropped.
struct CancelOnDrop(Cancel);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// How often a transfer begins anew because the server has another archive there than when it began.
const ANEW: u32 = 3;

/// The right to fetch one archive now.
struct Turn {
    _of_one_person: OwnedSemaphorePermit,
    _of_one_archive: OwnedMutexGuard<()>,
    _in_the_store: OwnedSemaphorePermit,
}

/// What is to be done about an archive.
enum Wanted {
    Here(Layer),
    Fetching(Turn),
}

/// One fetch, handed to the thread that does it. The turn goes with it, so that it lasts until the thread has cleaned
/// up, even if nobody waits for it any more.
struct Job {
    store: Arc<Store>,
    /// As the layer's record names it.
    source: String,
    expected: Option<Digest>,
    public: bool,
    watch: Watch,
    _turn: Arc<Turn>,
}

impl Store {
    /// The layer of an archive, fetched and extracted unless it is here. A `file://` archive is opened with the person's
    /// rights. Dropping the future stops the work and removes what it had made.
    ///
    /// # Errors
    /// A [`Fault`]: unknown format, wrong digest, refused content, no space, not permitted, not found.
    pub async fn fetch(
        self: &Arc<Self>,
        archive: &Archive,
        person: &Person,
        reporter: &Reporter,
    ) -> Result<Layer> {
        let scheme = archive.scheme().map_err(|e| Fault::new(Kind::Usage, e.to_string()))?;
        let name = archive.url.rsplit('/').next().unwrap_or(&archive.url);
        reporter.begin(STEP, format!("/opt from {name}"));
        let layer = match scheme {
            Scheme::File => self.fetch_file(archive, person, reporter).await,
            Scheme::Http => self.fetch_http(archive, person, reporter).await,
            Scheme::Oci => self.fetch_oci(archive, person, reporter).await,
        };
        let layer = layer.map_err(|e| self.explain(e)).map_err(|e| {
            let mut fault = Fault::of(&e.context(format!("get {}", archive.url)));
            fault.next.get_or_insert_with(|| {
                "mend the archive, or `opt` in the project's file, then run the same command again".to_owned()
            });
            fault
        })?;
        // From here on it is not collected. It may have been, in the moment before.
        let Some(held) = self.layers.hold(&layer.id())? else {
            return Box::pin(self.fetch(archive, person, reporter)).await;
        };
        self.wanted(&layer.id());
        let layer = Layer { held, ..layer };
        let size = ByteSize(layer.bytes);
        reporter.end(STEP, format!("{name}: {} files, {size}", layer.files));
        Ok(layer)
    }

    /// The layer that is here for an archive, as far as can be told without opening it: by its digest, else the newest that
    /// came from its URL. For showing; [`Store::fetch`] decides.
    pub fn find(&self, archive: &Archive) -> Option<Layer> {
        if let Some(digest) = &archive.sha256 {
            return self.layers.get(digest).ok().flatten();
        }
        let layers = self.layers.all().unwrap_or_default().into_iter();
        let is_of: Box<dyn Fn(&Layer) -> bool> = match archive.reference() {
            Ok(wanted) => Box::new(move |layer| came_from(layer, &wanted)),
            Err(_) => Box::new(|layer| layer.source == archive.url),
        };
        layers.filter(|layer| is_of(layer)).max_by_key(|layer| layer.when)
    }

    async fn fetch_file(
        self: &Arc<Self>,
        archive: &Archive,
        person: &Person,
        reporter: &Reporter,
    ) -> Result<Layer> {
        let path = archive.url.strip_prefix("file://").unwrap_or_default().to_owned();
        let (store, person) = (self.clone(), person.clone());
        let uid = person.uid;
        let (file, identity) = apart(move || -> Result<(OwnedFd, Identity)> {
            let file = person.open_file(Path::new(&path), &store.config.archive_roots)?;
            let identity = Identity::of(&rustix::fs::fstat(&file)?);
            Ok((file, identity))
        })
        .await?;

        let key = archive.sha256.map_or_else(|| format!("{identity:?}"), |digest| digest.hex());
        // Whoever is here has shown that they can read the file.
        let here = || {
            let known = match archive.sha256 {
                Some(digest) => Some(digest),
                None => self.layers.digest_of(&identity)?,
            };
            Ok(known.map(|digest| self.layers.get(&digest)).transpose()?.flatten())
        };
        let turn = match self.here_or_turn(&key, uid, reporter, here).await? {
            Wanted::Here(layer) => return Ok(layer),
            Wanted::Fetching(turn) => turn,
        };
        let total = u64::try_from(rustix::fs::fstat(&file)?.st_size).ok();
        let settled = identity.is_settled(jiff::Timestamp::now());
        let watch = Watch { reporter: reporter.clone(), cancel: Cancel::default(), total };
        let _cancel = CancelOnDrop(watch.cancel.clone());
        let (source, expected) = (archive.url.clone(), archive.sha256);
        let job = Job { store: self.clone(), source, expected, public: false, watch, _turn: turn.into() };
        apart(move || {
            let file = File::from(file);
            job.run(&file, 0, |store, digest| {
                let after = Identity::of(&rustix::fs::fstat(&file)?);
                if after != identity {
                    return Err(Fault::new(Kind::Failed, "the archive was changed while it was read")
                        .next("run the same command again when whoever writes it is done")
                        .into());
                }
                match settled {
                    true => store.layers.remember(identity, *digest),
                    false => Ok(()),
                }
            })
        })
        .await
    }

    async fn fetch_http(
        self: &Arc<Self>,
        archive: &Archive,
        person: &Person,
        reporter: &Reporter,
    ) -> Result<Layer> {
        let digest = archive.sha256.context("an archive from the network needs its sha256")?;
        let here = || Ok(self.layers.get(&digest)?.filter(|layer| layer.public));
        let turn = match self.here_or_turn(&digest.hex(), person.uid, reporter, here).await? {
            Wanted::Here(layer) => return Ok(layer),
            Wanted::Fetching(turn) => turn,
        };
        let client = match self.client.get() {
            Some(client) => client,
            None => {
                let client = network::client()?;
                self.client.get_or_init(|| client)
            }
        };
        let (spool, turn) = (self.spool(&digest)?, Arc::new(turn));
        for _ in 0..ANEW {
            let had = spool.have();
            let (transfer, pump, arriving, total) =
                network::Transfer::begin(client, &archive.url, spool.clone()).await?;
            let watch = Watch { reporter: reporter.clone(), cancel: Cancel::default(), total };
            let _cancel = CancelOnDrop(watch.cancel.clone());
            let (source, expected) = (archive.url.clone(), Some(digest));
            let job = Job { store: self.clone(), source, expected, public: true, watch, _turn: turn.clone() };
            let work = apart(move || job.run_arriving(pump, arriving));
            let (ended, layer) = tokio::join!(transfer.run(), work);
            if let Some(layer) = spooled(&spool, had, ended, layer)? {
                return Ok(layer);
            }
        }
        let why = "the server has another archive there each time it is asked";
        Err(Fault::new(Kind::Failed, format!("fetch {}", archive.url)).why(why).into())
    }

    /// The registry is asked what a tag means now. What a digest means never changes: once it is here nobody is asked.
    async fn fetch_oci(
        self: &Arc<Self>,
        archive: &Archive,
        person: &Person,
        reporter: &Reporter,
    ) -> Result<Layer> {
        let of = archive.reference().map_err(|e| Fault::new(Kind::Usage, e.to_string()))?;
        let is_expected = |layer: &Layer| archive.sha256.is_none_or(|digest| digest == layer.digest);
        if of.digest.is_some()
            && let Some(layer) = self.layers.all()?.into_iter().find(|layer| came_from(layer, &of))
            && is_expected(&layer)
        {
            return Ok(layer);
        }
        let registry = Registry::open(&of.registry, &self.config.docker).await?;
        let manifest = registry.manifest(&of).await?;
        let artifact = Artifact::read(&manifest)?;
        let whole = artifact.archive()?;
        let here = || Ok(self.layers.get(&whole.digest)?.filter(|layer| layer.public && is_expected(layer)));
        let turn = match self.here_or_turn(&whole.digest.hex(), person.uid, reporter, here).await? {
            Wanted::Here(layer) => return Ok(layer),
            Wanted::Fetching(turn) => turn,
        };
        let source = format!("oci://{}", Reference { digest: Some(manifest.digest), ..of.clone() });
        let (spool, turn) = (self.spool(&whole.digest)?, Arc::new(turn));
        let registry = Arc::new(registry);
        let expected = archive.sha256.or(Some(whole.digest));
        let pieces = artifact.pieces()?;
        loop {
            let had = spool.have();
            let (transfer, pump, arriving) =
                registry::Transfer::new(registry.clone(), of.clone(), pieces.clone(), spool.clone());
            let total = Some(whole.size);
            let watch = Watch { reporter: reporter.clone(), cancel: Cancel::default(), total };
            let _cancel = CancelOnDrop(watch.cancel.clone());
            let (source, store) = (source.clone(), self.clone());
            let job = Job { store, source, expected, public: true, watch, _turn: turn.clone() };
            let work = apart(move || job.run_arriving(pump, arriving));
            let (ended, layer) = tokio::join!(transfer.run(), work);
            if let Some(layer) = spooled(&spool, had, ended, layer)? {
                return Ok(layer);
            }
        }
    }

    fn spool(&self, digest: &Digest) -> Result<Arc<Spool>> {
        Ok(Arc::new(Spool::open(&self.inside("spool"), digest)?))
    }

    /// The layer if `here` finds it, else the right to fetch it, which may take a while. Who waits for somebody else's
    /// fetch of the same archive has a turn of their own already, so nobody who waits for their own turn makes others
    /// wait for an archive.
    async fn here_or_turn(
        &self,
        key: &str,
        uid: u32,
        reporter: &Reporter,
        here: impl Fn() -> Result<Option<Layer>>,
    ) -> Result<Wanted> {
        if let Some(layer) = here()? {
            return Ok(Wanted::Here(layer));
        }
        let of_one_person = self.turns.of(uid, reporter).await?;
        let of_one_archive = self.lock(key, reporter).await;
        if let Some(layer) = here()? {
            return Ok(Wanted::Here(layer));
        }
        Ok(Wanted::Fetching(Turn {
            _of_one_person: of_one_person,
            _of_one_archive: of_one_archive,
            _in_the_store: self.turns.in_the_store(reporter).await?,
        }))
    }

    /// Waits until nobody else is fetching the same.
    async fn lock(&self, key: &str, reporter: &Reporter) -> OwnedMutexGuard<()> {
        let lock = {
            let mut locks = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
            locks.retain(|_, lock| lock.strong_count() > 0);
            let held = locks.get(key).and_then(std::sync::Weak::upgrade);
            held.unwrap_or_else(|| {
                let lock = Arc::default();
                locks.insert(key.to_owned(), Arc::downgrade(&lock));
                lock
            })
        };
        match lock.clone().try_lock_owned() {
            Ok(guard) => guard,
            Err(_) => {
                reporter.begin(STEP, "waiting for another fetch of the same archive");
                lock.lock_owned().await
            }
        }
    }
}

/// Whether a layer is what a registry had under that digest, or the last one it had under that tag.
fn came_from(layer: &Layer, wanted: &Reference) -> bool {
    let archive = Archive { url: layer.source.clone(), sha256: None };
    // A manifest is written by whoever publishes it, so its digest says which archive, and not who may have it.
    layer.public
        && archive.reference().is_ok_and(|source| match wanted.digest {
            Some(digest) => source.digest == Some(digest) && source.registry == wanted.registry,
            None => {
                (&source.registry, &source.repository, &source.tag)
                    == (&wanted.registry, &wanted.repository, &wanted.tag)
            }
        })
}

/// What becomes of a spool that had so many bytes before: it stays where the transfer broke off. `None` says that it has to
/// begin anew, because those bytes were no part of the archive.
fn spooled(spool: &Spool, had: u64, ended: Ended, layer: Result<Layer>) -> Result<Option<Layer>> {
    match layer {
        Ok(layer) => {
            spool.remove()?;
            Ok(Some(layer))
        }
        Err(e) if is_full(&e) => {
            spool.remove()?;
            Err(e)
        }
        Err(e) if spool.is_stale() || (had > 0 && ended != Ended::Broken) => {
            tracing::warn!("{e:#}; what was there of the archive is dropped");
            spool.clear()?;
            Ok(None)
        }
        Err(e) if ended == Ended::Broken => Err(e),
        Err(e) => {
            spool.remove()?;
            Err(e)
        }
    }
}

/// Does what may take long on a thread of its own: those that tokio has for blocking work are for Docker's calls, which
/// have to be answered soon.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("fetch".into())
        // Where nobody waits any more, the result is of no use.
        .spawn(move || drop(done.send(work())))
        .context("start a thread to fetch on")?;
    result.await.context("the thread that fetches panicked")?
}

impl Job {
    /// Blocks.
    fn run_arriving(self, pump: Pump, arriving: Arriving) -> Result<Layer> {
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("spool".into())
                .spawn_scoped(scope, || pump.run())
                .context("start a thread to receive on")?;
            let here = arriving.here();
            self.run(arriving, here, |_, _| Ok(()))
        })
    }

    /// Blocks. So many bytes of the archive are on this disk already. `check` looks at the digest, once it is right, before
    /// the layer is made.
    fn run(
        self,
        source: impl Read + Send,
        here: u64,
        check: impl FnOnce(&Store, &Digest) -> Result<()>,
    ) -> Result<Layer> {
        let layers = &self.store.layers;
        if let Some(total) = self.watch.total {
            let free = available(&rustix::fs::fstatvfs(&self.store.root)?);
            if total.saturating_sub(here) > free {
                let why = format!("the archive alone has {}, {} are free", ByteSize(total), ByteSize(free));
                let what = format!("the disk of {} is full", self.store.config.storage.display());
                let next = "free some space there, then run the same command again";
                return Err(Fault::new(Kind::Failed, what).why(why).next(next).into());
            }
        }
        let partial = layers.begin()?;
        let (digest, tree) = archive::extract(source, partial.handle()?, &self.watch)?;
        if let Some(expected) = self.expected
            && expected != digest
        {
            return Err(Fault::new(Kind::Failed, "the archive has another digest than it should")
                .why(format!("expected {expected}"))
                .why(format!("got      {digest}"))
                .next("check the sha256 in the project's file, or publish the archive again")
                .into());
        }
        check(&self.store, &digest)?;
        let layer = partial.commit(Layer {
            digest,
            source: self.source,
            bytes: tree.bytes,
            files: tree.files,
            when: jiff::Timestamp::now(),
            public: self.public,
            unsettled: None,
            held: super::held::Held::default(),
        })?;
        self.store.settle_later();
        Ok(layer)
    }
}
