//! What may go. Pure: what is there, what is in use and the policy come in as data.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use super::in_use;
use super::inventory::{Inventory, Repository};
use crate::report::{Fault, Kind};
use crate::spec::Digest;

/// Which tags stay. A tag stays that one of the rules keeps; without any rule all of them do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub keep: Keep,
    /// Seconds for which something that nobody needs stays all the same: a pull or a push of it may be under way.
    pub grace: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keep {
    /// So many of each repository, those that were pushed last.
    pub last: Option<usize>,
    /// Those that were pushed in the last so many seconds.
    pub seconds: Option<i64>,
    /// Those that match: `release-*` is about tags, `team/*:release-*` about repositories and tags.
    pub tags: Vec<String>,
}

impl Keep {
    fn has_rules(&self) -> bool {
        self.last.is_some() || self.seconds.is_some() || !self.tags.is_empty()
    }
}

/// What is in use, whoever pushed it and whenever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Used {
    /// Digests of manifests, or of images' configurations.
    pub digests: BTreeSet<Digest>,
    /// `repository:tag`
    pub names: BTreeSet<String>,
    /// Globs of `repository:tag`, whose `*` is any text.
    pub patterns: Vec<String>,
    /// Manifests whose last tag an earlier collection has dropped, by repository, and when.
    pub dropped: BTreeMap<(String, Digest), i64>,
}

/// All that goes, and nothing else does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub policy: Policy,
    pub tags: Vec<DroppedTag>,
    pub manifests: Vec<DroppedManifest>,
    pub blobs: Vec<DroppedBlob>,
    /// Sum of the blobs, which is what the disk gets back.
    pub bytes: u64,
    /// What stays only because a pull or a push of it may be under way: a later collection takes it.
    pub later: Later,
    pub kept: Kept,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DroppedTag {
    pub repository: String,
    pub tag: String,
    pub digest: Digest,
    /// When it was pushed, seconds since 1970.
    pub pushed: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DroppedManifest {
    pub repository: String,
    pub digest: Digest,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DroppedBlob {
    pub digest: Digest,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Later {
    pub manifests: usize,
    pub bytes: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    pub tags: usize,
    pub manifests: usize,
    pub bytes: u64,
}

/// A manifest in a repository.
type Node<'a> = (&'a str, Digest);

/// Decides what goes. `now` is in seconds since 1970.
///
/// # Errors
/// [`Kind::Usage`]: a pattern that is none.
pub fn plan(there: &Inventory, used: &Used, policy: &Policy, now: i64) -> Result<Plan> {
    let since = now.saturating_sub(policy.grace);
    let patterns = Patterns::new(&policy.keep.tags)?;
    let pinned = pinned(&used.patterns)?;
    let mut plan = Plan { policy: policy.clone(), ..Plan::default() };
    let graph = Graph::of(there);
    let mut roots: Vec<Node<'_>> = used.digests.iter().flat_map(|digest| graph.everywhere(digest)).collect();
    let in_use: BTreeSet<Digest> = roots.iter().map(|(_, digest)| *digest).collect();
    for (name, repository) in &there.repositories {
        let judge =
            Judge { used, pinned: &pinned, in_use: &in_use, keep: &policy.keep, patterns: &patterns, now };
        let kept = judge.keeps(name, repository);
        for (tag, found) in &repository.tags {
            if kept.contains(tag.as_str()) {
                roots.push((name, found.digest));
                plan.kept.tags += 1;
            } else {
                let (repository, tag) = (name.clone(), tag.clone());
                plan.tags.push(DroppedTag { repository, tag, digest: found.digest, pushed: found.when });
            }
        }
    }
    let needed = graph.closure(roots.iter().copied());

    let dropped: BTreeSet<Node<'_>> =
        plan.tags.iter().map(|tag| (tag.repository.as_str(), tag.digest)).collect();
    let mut fresh = Vec::new();
    for (name, repository) in &there.repositories {
        for (digest, pushed) in &repository.manifests {
            let node = (name.as_str(), *digest);
            let untagged = untagged_after(repository, digest)
                .max(used.dropped.get(&(name.clone(), *digest)).copied())
                // Its tag goes now, and who has just asked for it may still want all of it.
                .max(dropped.contains(&node).then_some(now));
            if !needed.contains(&node) && (*pushed > since || untagged.is_some_and(|when| when > since)) {
                fresh.push(node);
            }
        }
    }
    // Without a grace even what happened in this very second is over.
    let fresh = if policy.grace == 0 { Vec::new() } else { fresh };
    let staying = graph.closure(roots.iter().copied().chain(fresh));
    plan.later.manifests = staying.len() - needed.len();
    plan.kept.manifests = needed.len();
    for (name, repository) in &there.repositories {
        for digest in
            repository.manifests.keys().filter(|digest| !staying.contains(&(name.as_str(), **digest)))
        {
            plan.manifests.push(DroppedManifest { repository: name.clone(), digest: *digest });
        }
    }
    blobs(there, (&graph.blobs(&needed), &graph.blobs(&staying)), since, &mut plan);
    plan.tags.sort();
    Ok(plan)
}

/// What decides about tags.
struct Judge<'a> {
    used: &'a Used,
    pinned: &'a GlobSet,
    /// Manifests in use.
    in_use: &'a BTreeSet<Digest>,
    keep: &'a Keep,
    patterns: &'a Patterns,
    now: i64,
}

impl Judge<'_> {
    /// The tags of a repository that stay.
    fn keeps<'a>(&self, name: &str, repository: &'a Repository) -> BTreeSet<&'a str> {
        let keep = self.keep;
        let mut newest: Vec<_> = repository.tags.iter().collect();
        newest.sort_by_key(|(tag, found)| (std::cmp::Reverse(found.when), std::cmp::Reverse(*tag)));
        let kept = newest.into_iter().enumerate().filter(|(place, (tag, found))| {
            let full = format!("{name}:{tag}");
            !keep.has_rules()
                || name == in_use::REPOSITORY
                || keep.last.is_some_and(|last| *place < last)
                || keep.seconds.is_some_and(|seconds| found.when > self.now.saturating_sub(seconds))
                || self.patterns.keep(tag, &full)
                || self.used.names.contains(&full)
                || self.pinned.is_match(&full)
                || self.in_use.contains(&found.digest)
        });
        kept.map(|(_, (tag, _))| tag.as_str()).collect()
    }
}

/// The latest moment at which a manifest may have lost a tag to another, where it ever had one.
fn untagged_after(repository: &Repository, digest: &Digest) -> Option<i64> {
    repository.tags.values().filter(|tag| tag.past.contains(digest)).map(|tag| tag.when).max()
}

fn blobs(
    there: &Inventory,
    (needed, staying): (&BTreeSet<Digest>, &BTreeSet<Digest>),
    since: i64,
    plan: &mut Plan,
) {
    // What is being pushed has blobs, and no manifest yet.
    let mut arrived: BTreeMap<Digest, i64> = BTreeMap::new();
    for (digest, when) in there.repositories.values().flat_map(|repository| &repository.layers) {
        let latest = arrived.entry(*digest).or_insert(*when);
        *latest = (*latest).max(*when);
    }
    for (digest, blob) in &there.blobs {
        let arrived = arrived.get(digest).copied().unwrap_or(blob.when).max(blob.when);
        if needed.contains(digest) {
            plan.kept.bytes += blob.size;
        } else if staying.contains(digest) || (arrived > since && plan.policy.grace > 0) {
            plan.later.bytes += blob.size;
        } else {
            plan.bytes += blob.size;
            plan.blobs.push(DroppedBlob { digest: *digest, bytes: blob.size });
        }
    }
}

/// Who needs whom.
struct Graph<'a> {
    there: &'a Inventory,
    /// The repositories that have a manifest.
    homes: BTreeMap<Digest, Vec<&'a str>>,
    /// The manifests with a configuration.
    of_config: BTreeMap<Digest, Vec<Digest>>,
    /// What was attached to a manifest.
    attached: BTreeMap<Digest, Vec<Digest>>,
}

impl<'a> Graph<'a> {
    fn of(there: &'a Inventory) -> Graph<'a> {
        let (mut homes, mut of_config, mut attached) =
            (BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new(), BTreeMap::<_, Vec<_>>::new());
        for (name, repository) in &there.repositories {
            for digest in repository.manifests.keys() {
                homes.entry(*digest).or_default().push(name.as_str());
            }
        }
        for (digest, manifest) in &there.manifests {
            if let Some(config) = manifest.config {
                of_config.entry(config).or_default().push(*digest);
            }
            if let Some(subject) = manifest.subject {
                attached.entry(subject).or_default().push(*digest);
            }
        }
        Graph { there, homes, of_config, attached }
    }

    /// A manifest in all repositories that have it: by its own digest, or its configuration's.
    fn everywhere(&self, digest: &Digest) -> Vec<Node<'a>> {
        let manifests = self.of_config.get(digest).into_iter().flatten().chain([digest]);
        let homes = manifests.flat_map(|digest| {
            self.homes.get(digest).into_iter().flatten().map(move |home| (*home, *digest))
        });
        homes.collect()
    }

    /// All that is needed for these: the manifests of an index, what an image was built on, and what was attached.
    fn closure(&self, roots: impl Iterator<Item = Node<'a>>) -> BTreeSet<Node<'a>> {
        let mut open: Vec<Node<'a>> = roots.collect();
        let mut all = BTreeSet::new();
        while let Some((home, digest)) = open.pop() {
            let is_there =
                self.there.repositories.get(home).is_some_and(|home| home.manifests.contains_key(&digest));
            if !is_there || !all.insert((home, digest)) {
                continue;
            }
            open.extend(self.attached.get(&digest).into_iter().flatten().map(|attached| (home, *attached)));
            let Some(manifest) = self.there.manifests.get(&digest) else { continue };
            open.extend(manifest.children.iter().chain(&manifest.subject).map(|child| (home, *child)));
            open.extend(manifest.bases.iter().flat_map(|base| self.everywhere(base)));
        }
        all
    }

    /// The blobs that manifests need, and themselves.
    fn blobs(&self, nodes: &BTreeSet<Node<'a>>) -> BTreeSet<Digest> {
        let mut all = BTreeSet::new();
        for (_, digest) in nodes {
            all.insert(*digest);
            if let Some(manifest) = self.there.manifests.get(digest) {
                // The server's sweep marks an index's manifests as well, whether the repository has them or not.
                all.extend(manifest.blobs.iter().chain(&manifest.children).copied());
            }
        }
        all
    }
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.tags.is_empty() && self.manifests.is_empty() && self.blobs.is_empty()
    }

    /// What this plan has and `now` has not: somebody needs it again, or it is gone. Empty while it may be applied.
    pub fn stale(&self, now: &Plan) -> Vec<String> {
        fn missing<T: Ord>(of: &[T], now: &[T], name: impl Fn(&T) -> String) -> Vec<String> {
            let now: BTreeSet<&T> = now.iter().collect();
            of.iter().filter(|item| !now.contains(item)).map(name).collect()
        }
        let mut stale = missing(&self.tags, &now.tags, |tag| format!("{}:{}", tag.repository, tag.tag));
        stale.extend(missing(&self.manifests, &now.manifests, |manifest| {
            format!("{}@{}", manifest.repository, manifest.digest)
        }));
        stale.extend(missing(&self.blobs, &now.blobs, |blob| format!("the blob {}", blob.digest)));
        stale
    }
}

/// Patterns of what is in use, as [`Used::patterns`].
fn pinned(patterns: &[String]) -> Result<GlobSet> {
    let mut all = GlobSetBuilder::new();
    for pattern in patterns {
        all.add(Glob::new(pattern).with_context(|| format!("{pattern:?}, which is in use"))?);
    }
    Ok(all.build()?)
}

struct Patterns {
    tags: GlobSet,
    full: GlobSet,
}

impl Patterns {
    fn new(patterns: &[String]) -> Result<Patterns> {
        let (mut tags, mut full) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for pattern in patterns {
            let glob = GlobBuilder::new(pattern).literal_separator(true).build().map_err(|e| {
                Fault::new(Kind::Usage, format!("{pattern:?} is no pattern for tags"))
                    .why(e.kind().to_string())
                    .next("for example --keep-tag 'release-*' or --keep-tag 'team/*:9.?'")
            })?;
            let set = if pattern.contains(':') { &mut full } else { &mut tags };
            set.add(glob);
        }
        Ok(Patterns { tags: tags.build()?, full: full.build()? })
    }

    fn keep(&self, tag: &str, full: &str) -> bool {
        self.tags.is_match(tag) || self.full.is_match(full)
    }
}

#[cfg(test)]
mod tests;
