//! Making a plan come true. Pulls go on; publishers are told to come again while the server's own sweep runs.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::door::Door;
use super::in_use;
use super::inventory::{self, Inventory};
use super::links::Storage;
use super::plan::{Plan, Policy, Used, plan};
use crate::registry::configuration::PROGRAM;
use crate::registry::place::{Place, Settings};
use crate::registry::server::Server;
use crate::report::{Fault, Kind, Reporter};
use crate::service;
use crate::spec::{ByteSize, Digest};

const STEP: &str = "collect";
/// A repository that is there while the sweep runs: its one manifest names the blobs that are to stay.
const HELD: &str = "moorage/held";
/// How long it is remembered that a manifest has lost its tag, seconds: longer than anybody's grace.
const REMEMBER: i64 = 90 * 24 * 60 * 60;

/// A collection of the registry of this host.
pub struct Collection<'a> {
    pub place: &'a Place,
    pub settings: &'a Settings,
    /// What this host and its site use.
    pub used: Used,
    /// Hosts that are gone for good.
    pub forget: Vec<String>,
    pub reporter: &'a Reporter,
}

/// What was done, and when: `show-registry` shows the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub when: Timestamp,
    pub tags: usize,
    pub manifests: usize,
    pub blobs: usize,
    pub bytes: u64,
}

/// What was done, with the plan that was applied.
#[derive(Debug, Clone, Serialize)]
pub struct Collected {
    #[serde(flatten)]
    pub record: Record,
    pub plan: Plan,
}

/// What lost its last tag to a collection.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Dropped {
    repository: String,
    digest: Digest,
    when: i64,
}

/// The last collection; nothing where there was none.
pub fn last(place: &Place) -> Result<Option<Record>> {
    let path = place.collection();
    let Some(text) = place.text(&path)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).with_context(|| format!("{} is damaged", path.display()))
}

impl Collection<'_> {
    /// What would go now.
    pub async fn plan(&self, policy: &Policy) -> Result<Plan> {
        Ok(self.look(policy).await?.0)
    }

    async fn look(&self, policy: &Policy) -> Result<(Plan, Inventory)> {
        let (directory, place) = (self.settings.directory.clone(), self.place.clone());
        let (mut used, forget, policy) = (self.used.clone(), self.forget.clone(), policy.clone());
        let look = move || {
            let now = Timestamp::now().as_second();
            let mut there = inventory::read(&directory)?;
            used.digests.extend(in_use::lists(&there, &Storage::at(&directory), &forget, now)?);
            let dropped = dropped(&place)?.into_iter();
            used.dropped = dropped.map(|one| ((one.repository, one.digest), one.when)).collect();
            if let Some(lists) = there.repositories.get_mut(in_use::REPOSITORY) {
                lists.tags.retain(|host, _| !forget.contains(host));
            }
            Ok((plan(&there, &used, &policy, now)?, there))
        };
        tokio::task::spawn_blocking(look).await?
    }

    /// Applies this plan, or the one that its policy makes now where `exactly` is false.
    ///
    /// # Errors
    /// [`Kind::Differs`]: something of the plan is needed by now, or gone. Nothing was removed then.
    pub async fn apply(&self, wanted: &Plan, exactly: bool) -> Result<Collected> {
        let _lock = self.place.lock().await?;
        // Most of the time nobody has to be sent away to find that out.
        let now = self.plan(&wanted.policy).await?;
        if exactly {
            refuse_stale(wanted, &now)?;
        }
        if now.is_empty() && self.forget.is_empty() {
            return self.record(now);
        }
        let runs = Server::Writer.runs(self.place).await;
        self.reporter.begin(STEP, "publishers are told to come again");
        let stopped = match runs {
            true => Server::Writer.pause(self.place, self.reporter).await,
            false => Ok(()),
        };
        let collected = match stopped {
            Ok(()) => self.behind_the_door(wanted, exactly).await,
            Err(error) => Err(error),
        };
        if runs {
            let started = Server::Writer.start(self.place, self.settings, self.reporter).await;
            if let Err(error) = started.context("the publishers' server does not come back") {
                let mut fault = Fault::of(&error);
                fault.next = Some(format!("moorage start-registry; its words: {}", Server::Writer.log()));
                if let Err(first) = collected {
                    fault.why.insert(0, Fault::of(&first).to_string());
                }
                return Err(fault.into());
            }
            self.reporter.end(STEP, "publishers are served again");
        }
        collected
    }

    async fn behind_the_door(&self, wanted: &Plan, exactly: bool) -> Result<Collected> {
        let door = Door::open(self.place, self.settings).await;
        if let Err(error) = &door {
            // They are refused instead.
            self.reporter.warning(format!("publishers are not told why: {error:#}"));
        }
        let (now, there) = self.look(&wanted.policy).await?;
        let plan = match exactly {
            true => {
                refuse_stale(wanted, &now)?;
                wanted.clone()
            }
            false => now,
        };
        self.remember(&plan, &there)?;
        let (directory, goes, forget) = (self.settings.directory.clone(), plan.clone(), self.forget.clone());
        tokio::task::spawn_blocking(move || unlink(&directory, &goes, &there, &forget)).await??;
        crate::failpoint::reach("collect-unlinked");
        self.reporter.begin(STEP, format!("{} in {} blobs", ByteSize(plan.bytes), plan.blobs.len()));
        let configuration = Server::Writer.configuration(self.place);
        let configuration = configuration.to_str().context("the configuration's path")?;
        service::run(STEP, PROGRAM, &["garbage-collect", configuration], self.reporter).await?;
        let (directory, goes) = (self.settings.directory.clone(), plan.clone());
        tokio::task::spawn_blocking(move || finish(&directory, &goes)).await??;
        self.record(plan)
    }

    /// Writes down what loses its tag now and stays for a while, before it does.
    fn remember(&self, plan: &Plan, there: &Inventory) -> Result<()> {
        let now = Timestamp::now().as_second();
        let is_there = |one: &Dropped| {
            there
                .repositories
                .get(&one.repository)
                .is_some_and(|home| home.manifests.contains_key(&one.digest))
        };
        let old = dropped(self.place)?.into_iter().filter(|one| now - one.when < REMEMBER && is_there(one));
        let new = plan.tags.iter().map(|tag| Dropped {
            repository: tag.repository.clone(),
            digest: tag.digest,
            when: now,
        });
        // The latest counts.
        let all: Vec<Dropped> = old.chain(new).collect();
        crate::state::replace(&self.place.dropped(), &serde_json::to_vec(&all)?)
    }

    fn record(&self, plan: Plan) -> Result<Collected> {
        let record = Record {
            when: Timestamp::now(),
            tags: plan.tags.len(),
            manifests: plan.manifests.len(),
            blobs: plan.blobs.len(),
            bytes: plan.bytes,
        };
        crate::state::replace(&self.place.collection(), &serde_json::to_vec(&record)?)?;
        Ok(Collected { record, plan })
    }
}

fn dropped(place: &Place) -> Result<Vec<Dropped>> {
    let path = place.dropped();
    let Some(text) = place.text(&path)? else { return Ok(Vec::new()) };
    serde_json::from_str(&text)
        .with_context(|| format!("{} is damaged; move it away to go on without it", path.display()))
}

fn refuse_stale(wanted: &Plan, now: &Plan) -> Result<()> {
    let stale = wanted.stale(now);
    if stale.is_empty() {
        return Ok(());
    }
    let mut fault =
        Fault::new(Kind::Differs, "the plan has gone stale: what it names is needed by now, or gone");
    fault.why = stale.iter().take(5).cloned().collect();
    if stale.len() > 5 {
        fault.why.push(format!("and {} more", stale.len() - 5));
    }
    Err(fault
        .remains("nothing was removed")
        .next("make a new one: moorage collect-garbage --dry-run, with the same words")
        .into())
}

/// Takes away the names of all that goes, and holds what stays though no manifest names it. From here on the server's sweep
/// takes exactly what the plan says. Whatever this is killed at, what is left is whole.
fn unlink(directory: &Path, plan: &Plan, there: &Inventory, forget: &[String]) -> Result<()> {
    let storage = Storage::at(directory);
    let goes: BTreeSet<Digest> = plan.blobs.iter().map(|blob| blob.digest).collect();
    hold(&storage, there, plan)?;
    for host in forget {
        remove(&storage.tag(in_use::REPOSITORY, host))?;
    }
    for tag in &plan.tags {
        remove(&storage.tag(&tag.repository, &tag.tag))?;
    }
    for manifest in &plan.manifests {
        remove(&storage.revision(&manifest.repository, &manifest.digest))?;
    }
    for (name, home) in &there.repositories {
        for digest in home.layers.keys().filter(|digest| goes.contains(digest)) {
            remove(&storage.layer(name, digest))?;
        }
    }
    // A name that came back after a power cut would name what is not there any more.
    let top = std::fs::File::open(directory).with_context(|| format!("open {}", directory.display()))?;
    rustix::fs::syncfs(&top).with_context(|| format!("sync {}", directory.display()))
}

/// Puts what stays without a manifest that names it into one: what is being pushed has none yet, and the sweep knows nothing
/// else.
fn hold(storage: &Storage, there: &Inventory, plan: &Plan) -> Result<()> {
    let goes: BTreeSet<(&str, Digest)> =
        plan.manifests.iter().map(|one| (one.repository.as_str(), one.digest)).collect();
    let mut named: BTreeSet<Digest> = plan.blobs.iter().map(|blob| blob.digest).collect();
    for (name, home) in &there.repositories {
        for digest in home.manifests.keys().filter(|digest| !goes.contains(&(name.as_str(), **digest))) {
            named.insert(*digest);
            let manifest = there.manifests.get(digest);
            named.extend(manifest.into_iter().flat_map(|says| says.blobs.iter().chain(&says.children)));
        }
    }
    let layers: Vec<_> = there
        .blobs
        .iter()
        .filter(|(digest, _)| !named.contains(digest))
        .map(|(digest, blob)| serde_json::json!({ "mediaType": "application/octet-stream", "size": blob.size, "digest": digest }))
        .collect();
    let Some(first) = layers.first() else { return Ok(()) };
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": first,
        "layers": layers,
    });
    let bytes = serde_json::to_vec(&manifest)?;
    let digest = Digest(<sha2::Sha256 as sha2::Digest>::digest(&bytes).into());
    // The server finds repositories by this directory.
    make(&storage.repository(HELD).join("_layers"))?;
    put(&storage.blob(&digest), &bytes)?;
    put(&storage.revision(HELD, &digest).join("link"), digest.to_string().as_bytes())
}

/// Takes away what held, and looks whether all that should have gone has.
fn finish(directory: &Path, plan: &Plan) -> Result<()> {
    let storage = Storage::at(directory);
    let there = inventory::read(directory)?;
    for digest in there.repositories.get(HELD).into_iter().flat_map(|held| held.manifests.keys()) {
        let blob = storage.blob(digest);
        remove(blob.parent().context("a blob has a directory")?)?;
    }
    forget_repository(&storage, HELD)?;
    for (name, home) in &there.repositories {
        let uploads = storage.repository(name).join("_uploads");
        let is_empty = home.tags.is_empty() && home.manifests.is_empty() && home.layers.is_empty();
        if is_empty && !std::fs::read_dir(&uploads).is_ok_and(|mut uploads| uploads.next().is_some()) {
            forget_repository(&storage, name)?;
        }
    }
    let left = plan.blobs.iter().filter(|blob| there.blobs.contains_key(&blob.digest)).count();
    ensure!(left == 0, "the server's sweep has left {left} blobs of {}", plan.blobs.len());
    Ok(())
}

/// Removes what is the repository's own; repositories below it stay.
fn forget_repository(storage: &Storage, name: &str) -> Result<()> {
    let top = storage.repository(name);
    for own in ["_layers", "_manifests", "_uploads"] {
        remove(&top.join(own))?;
    }
    let mut directory = top.as_path();
    while directory != storage.repositories() && std::fs::remove_dir(directory).is_ok() {
        let Some(above) = directory.parent() else { break };
        directory = above;
    }
    Ok(())
}

fn make(directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))
}

fn put(path: &Path, bytes: &[u8]) -> Result<()> {
    make(path.parent().context("a file has a directory")?)?;
    crate::state::replace(path, bytes)
}

/// Removes a directory with all in it; one that is gone is no error.
fn remove(directory: &Path) -> Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}
