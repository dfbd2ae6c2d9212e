//! Rebuilding what is stale: candidates level by level, each tried, then all tags of a line moved, parents first.
//!
//! A candidate is tagged `<repository>:candidate` and remembered with what it was made of, so that a run that failed
//! or was killed is gone on with. Before the first tag of a line is moved, all that will be moved is written down: a
//! run that was killed between two tags is completed by the next.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use bollard::query_parameters::{RemoveImageOptions, TagImageOptions};
use futures_util::{StreamExt as _, stream};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::dockerfile::{self, On};
use super::lineage::{Graph, Why, lowest, plan, stale};
use super::memory::Memory;
use super::survey::{Ask, Survey, survey};
use super::{Build, base, known, label, log, smoke};
use crate::report::{Event, Fault, Kind, Reporter};
use crate::site::Site;
use crate::spec::Digest;

/// The tag of an image that nobody gets yet.
const CANDIDATE: &str = "candidate";

/// What is wanted.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Only this image and what stands on it.
    pub base: Option<String>,
    /// Images built at the same time.
    pub jobs: usize,
    pub offline: bool,
}

/// What became of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// Another image has its name now.
    Rebuilt {
        id: String,
    },
    /// Made anew it is the same: nothing above it has to change.
    Unchanged,
    /// Good, and kept as a candidate: another image of its line failed.
    Kept {
        id: String,
    },
    Failed {
        why: Vec<String>,
    },
    /// What it is built on failed.
    Blocked {
        by: String,
    },
}

/// A line of the result.
#[derive(Debug, Clone, Serialize)]
pub struct Rebuilt {
    pub name: String,
    pub image: String,
    pub why: Vec<Why>,
    #[serde(flatten)]
    pub outcome: Outcome,
    pub log: Option<String>,
}

/// What is remembered of an image's last rebuild that was not promoted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    /// Digest of all that it was made of.
    inputs: Digest,
    at: Timestamp,
    result: Tried,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Tried {
    Good { id: String, lock: Option<base::Lock> },
    Failed { why: Vec<String> },
}

/// Tags that are to be moved, parents first: written before the first of them is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Promotion {
    moves: Vec<Move>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Move {
    name: String,
    reference: String,
    id: String,
    lock: Option<base::Lock>,
}

/// What would be rebuilt, level by level, each with its reasons.
pub fn planned(survey: &Survey, wish: &Wish) -> Vec<Vec<(String, Vec<Why>)>> {
    let mut stale = stale(&survey.graph);
    let levels = plan(&survey.graph, wish.base.as_deref()).into_iter();
    let with_why = |name: String| (name.clone(), stale.remove(&name).unwrap_or_default());
    let mut with_why = with_why;
    levels.map(|level| level.into_iter().map(&mut with_why).collect()).collect()
}

/// Rebuilds what is stale. What could not be rebuilt is in the answer, not an error.
pub async fn rebuild(build: Build<'_>, memory: &Memory, wish: &Wish) -> Result<Vec<Rebuilt>> {
    let _turn = memory.turn()?;
    let rebuild = Rebuild { build, memory, candidates: Candidates::default() };
    rebuild.finish_promotion().await?;
    let ask = Ask { site: build.site, engine: build.engine, memory, offline: wish.offline };
    let survey = survey(ask).await?;
    for (base, error) in &survey.unanswered {
        build.report.warning(format!("{base}: whether there are newer packages is not known: {error:#}"));
    }
    rebuild.run(&survey, wish).await
}

/// What is good so far: the id of each candidate by its image's name.
type Candidates = BTreeMap<String, String>;

struct Rebuild<'a> {
    build: Build<'a>,
    memory: &'a Memory,
    candidates: Candidates,
}

/// One image that was made, or not.
struct Done {
    name: String,
    outcome: Result<Made>,
    log: Option<String>,
}

enum Made {
    Candidate { id: String, lock: Option<base::Lock> },
    Unchanged { lock: Option<base::Lock> },
}

impl Rebuild<'_> {
    async fn run(mut self, survey: &Survey, wish: &Wish) -> Result<Vec<Rebuilt>> {
        let graph = &survey.graph;
        let mut reasons: BTreeMap<String, Vec<Why>> = BTreeMap::new();
        let mut outcomes: BTreeMap<String, (Outcome, Option<String>)> = BTreeMap::new();
        let mut moves: Vec<Move> = Vec::new();
        let levels = planned(survey, wish);
        for level in &levels {
            let mut ready = Vec::new();
            for (name, why) in level {
                reasons.insert(name.clone(), why.clone());
                match self.blocked_by(graph, name, &outcomes) {
                    Some(by) => drop(outcomes.insert(name.clone(), (Outcome::Blocked { by }, None))),
                    None => ready.push((name, why)),
                }
            }
            let this = &self;
            let done: Vec<Done> = stream::iter(ready)
                .map(|(name, why)| async move { this.image(survey, name, why).await })
                .buffer_unordered(wish.jobs.max(1))
                .collect()
                .await;
            for Done { name, outcome, log } in done {
                let outcome = match outcome {
                    Ok(Made::Candidate { id, lock }) => {
                        self.candidates.insert(name.clone(), id.clone());
                        let reference = graph[&name].reference.clone();
                        moves.push(Move { name: name.clone(), reference, id: id.clone(), lock });
                        Outcome::Kept { id }
                    }
                    Ok(Made::Unchanged { lock }) => {
                        if let Some(lock) = lock {
                            self.memory.locks()?.put(&name, &lock)?;
                        }
                        self.memory.attempts()?.remove(&name)?;
                        Outcome::Unchanged
                    }
                    Err(error) => {
                        let fault = Fault::of(&error);
                        let why: Vec<String> = std::iter::once(fault.what).chain(fault.why).collect();
                        Outcome::Failed { why }
                    }
                };
                outcomes.insert(name, (outcome, log));
            }
        }
        self.promote_lines(graph, moves, &mut outcomes).await?;
        let line = |(name, why): &(String, Vec<Why>)| {
            let (outcome, log) = outcomes.remove(name)?;
            let image = graph[name].reference.clone();
            Some(Rebuilt { name: name.clone(), image, why: why.clone(), outcome, log })
        };
        Ok(levels
            .iter()
            .flatten()
            .filter_map({
                let mut line = line;
                move |entry| line(entry)
            })
            .collect())
    }

    fn blocked_by(
        &self,
        graph: &Graph,
        name: &str,
        outcomes: &BTreeMap<String, (Outcome, Option<String>)>,
    ) -> Option<String> {
        let on = graph[name].on.as_ref()?;
        match outcomes.get(on)?.0 {
            Outcome::Failed { .. } => Some(on.clone()),
            Outcome::Blocked { ref by } => Some(by.clone()),
            _ => None,
        }
    }

    /// Builds and tries one image, unless that was done before.
    async fn image(&self, survey: &Survey, name: &str, why: &[Why]) -> Done {
        let opened = log::tee(&self.memory.logs(), name, self.build.report);
        let (path, report) = match opened {
            Ok((path, report)) => (Some(path.display().to_string()), report),
            Err(error) => return Done { name: name.to_owned(), outcome: Err(error), log: None },
        };
        let report = labelled(&report, name);
        let build = Build { report: &report, refresh: true, ..self.build };
        let outcome = self.made(build, survey, name, why).await;
        if let Err(error) = &outcome {
            report.output(super::STEP, format!("failed: {error:#}"));
        }
        Done { name: name.to_owned(), outcome, log: path }
    }

    async fn made(&self, build: Build<'_>, survey: &Survey, name: &str, why: &[Why]) -> Result<Made> {
        let node = &survey.graph[name];
        let here = node.here.as_ref().context("only what is here is rebuilt")?;
        let on = match &node.on {
            Some(on) => Some(self.on(survey, on).await?),
            None => None,
        };
        let definition = node.definition.context("only what the site defines is rebuilt")?;
        // A parent that came out the same is no reason any more.
        if let Some(on) = &on
            && here.base_id.as_ref() == Some(&on.id)
            && why.iter().all(|why| matches!(why, Why::Parent | Why::ParentStale(_)))
        {
            return Ok(Made::Unchanged { lock: None });
        }
        let parent = on.as_ref().map(|on| on.id.clone()).unwrap_or_default();
        let site_lock = lock_of(build.site, name)?;
        let held = site_lock.as_ref().map(|lock| lock.root.to_string()).unwrap_or_default();
        let inputs = label::digest([definition.to_string().as_bytes(), parent.as_bytes(), held.as_bytes()]);
        let metadata = survey.metadata.get(lowest(&survey.graph, name));
        if let Some(made) = self.kept(name, inputs, metadata).await? {
            build.report.end(super::STEP, "was made and tried before");
            return Ok(made);
        }
        let made = self.make(build, survey, (name, on.as_ref(), site_lock.as_ref())).await;
        let result = match &made {
            Ok(Made::Candidate { id, lock }) => Tried::Good { id: id.clone(), lock: lock.clone() },
            Ok(Made::Unchanged { .. }) => return made,
            Err(error) => {
                let fault = Fault::of(error);
                Tried::Failed { why: std::iter::once(fault.what).chain(fault.why).collect() }
            }
        };
        self.memory.attempts()?.put(name, &Attempt { inputs, at: Timestamp::now(), result })?;
        made
    }

    /// A candidate of an earlier run, where it is what would be made now.
    async fn kept(
        &self,
        name: &str,
        inputs: Digest,
        metadata: Option<&BTreeMap<String, Digest>>,
    ) -> Result<Option<Made>> {
        let Some(Attempt { inputs: before, result: Tried::Good { id, lock }, .. }) =
            self.memory.attempts()?.get(name)?
        else {
            return Ok(None);
        };
        let current = match (&lock, metadata) {
            (Some(lock), Some(metadata)) => {
                metadata.values().all(|digest| lock.metadata.values().any(|known| known == digest))
            }
            _ => true,
        };
        let there = known(self.build.docker().await?, &id).await?.is_some();
        Ok((before == inputs && current && there).then_some(Made::Candidate { id, lock }))
    }

    async fn make(
        &self,
        build: Build<'_>,
        survey: &Survey,
        (name, on, lock): (&str, Option<&On>, Option<&base::Lock>),
    ) -> Result<Made> {
        let node = &survey.graph[name];
        let reference = candidate(&node.reference);
        let here = node.here.as_ref().map(|here| here.id.as_str());
        let (id, lock, checks) = match on {
            None => {
                let definition = build.site.base(name)?;
                let made = base::make_as(build, &definition, &reference, lock).await?;
                if Some(made.built.id.as_str()) == here {
                    self.untag(&reference).await?;
                    return Ok(Made::Unchanged { lock: made.lock });
                }
                (made.built.id, made.lock, definition.checks)
            }
            Some(on) => {
                let definition = build.site.image(name)?;
                let built = dockerfile::build_as(build, &definition, on, &reference).await?;
                let metadata = survey.metadata.get(lowest(&survey.graph, name)).cloned().unwrap_or_default();
                let lock = dockerfile::lock(build, &definition, &built.id, metadata).await?;
                (built.id, Some(lock), definition.raw.checks)
            }
        };
        let cgroup = &build.site.host().cgroup;
        let trial = smoke::Trial {
            engine: build.engine,
            report: build.report,
            cgroup,
            image: &id,
            name,
            checks: &checks,
        };
        smoke::test(trial).await?;
        Ok(Made::Candidate { id, lock })
    }

    /// What an image is built on now: the candidate where there is one.
    async fn on(&self, survey: &Survey, name: &str) -> Result<On> {
        let node = &survey.graph[name];
        let reference = node.reference.clone();
        if let Some(id) = self.candidates.get(name) {
            return Ok(On { reference, pinned: id.clone(), id: id.clone() });
        }
        let here = known(self.build.docker().await?, &reference).await?;
        let here = here.with_context(|| format!("{reference}, which it is built on, is not here"))?;
        Ok(On { pinned: dockerfile::pin(&reference, &here), id: here.id, reference })
    }

    /// A line is promoted as a whole or not at all.
    async fn promote_lines(
        &self,
        graph: &Graph,
        moves: Vec<Move>,
        outcomes: &mut BTreeMap<String, (Outcome, Option<String>)>,
    ) -> Result<()> {
        let failed: BTreeSet<&str> = outcomes
            .iter()
            .filter(|(_, (outcome, _))| matches!(outcome, Outcome::Failed { .. }))
            .map(|(name, _)| lowest(graph, name))
            .collect();
        let good: Vec<Move> =
            moves.into_iter().filter(|one| !failed.contains(lowest(graph, &one.name))).collect();
        let promoted: Vec<(String, String)> =
            good.iter().map(|one| (one.name.clone(), one.id.clone())).collect();
        if good.is_empty() {
            return Ok(());
        }
        self.memory.promotions()?.put(CANDIDATE, &Promotion { moves: good })?;
        self.finish_promotion().await?;
        for (name, id) in promoted {
            if let Some((outcome, _)) = outcomes.get_mut(&name) {
                *outcome = Outcome::Rebuilt { id };
            }
        }
        Ok(())
    }

    /// Moves the tags that are written down, of this run or of one that was killed. Moving one twice changes nothing.
    async fn finish_promotion(&self) -> Result<()> {
        let promotions = self.memory.promotions()?;
        let Some(promotion) = promotions.get(CANDIDATE)? else { return Ok(()) };
        let docker = self.build.docker().await?;
        for one in &promotion.moves {
            let (repo, tag) = split(&one.reference);
            let to = TagImageOptions { repo: Some(repo.to_owned()), tag: Some(tag.to_owned()) };
            docker
                .tag_image(&one.id, Some(to))
                .await
                .with_context(|| format!("give {} its name {}", one.id, one.reference))?;
            if let Some(lock) = &one.lock {
                self.memory.locks()?.put(&one.name, lock)?;
            }
        }
        for one in &promotion.moves {
            self.untag(&candidate(&one.reference)).await?;
            self.memory.attempts()?.remove(&one.name)?;
        }
        promotions.remove(CANDIDATE)
    }

    async fn untag(&self, reference: &str) -> Result<()> {
        let docker = self.build.docker().await?;
        if known(docker, reference).await?.is_some() {
            let keep = RemoveImageOptions { noprune: true, ..RemoveImageOptions::default() };
            let removed = docker.remove_image(reference, Some(keep), None).await;
            removed.with_context(|| format!("take the tag {reference} away"))?;
        }
        Ok(())
    }
}

/// The lock of the site for a base, where it has one.
fn lock_of(site: &Site, name: &str) -> Result<Option<base::Lock>> {
    if !site.bases()?.iter().any(|base| base == name) {
        return Ok(None);
    }
    let Some((file, text)) = site.lock_of(name)? else { return Ok(None) };
    let definition = base::digest(&site.base(name)?)?;
    Ok(Some(base::Lock::parse(&file.display().to_string(), &text, name, definition)?))
}

/// What is said of one image among several that are built at the same time.
fn labelled(report: &Reporter, name: &str) -> Reporter {
    let (report, step) = (report.clone(), name.to_owned());
    Reporter::new(move |event| {
        let step = step.clone();
        report.send(match event {
            Event::Begin { text, .. } => Event::Begin { step, text },
            Event::Progress { done, total, unit, .. } => Event::Progress { step, done, total, unit },
            Event::End { text, .. } => Event::End { step, text },
            Event::Output { line, .. } => Event::Output { step, line },
            other => other,
        });
    })
}

fn candidate(reference: &str) -> String {
    format!("{}:{CANDIDATE}", split(reference).0)
}

/// Repository and tag.
fn split(reference: &str) -> (&str, &str) {
    reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((reference, "latest"))
}

/// One error for all that failed; none where nothing did.
pub fn fault(rebuilt: &[Rebuilt]) -> Option<Fault> {
    let failed = |one: &&Rebuilt| matches!(one.outcome, Outcome::Failed { .. } | Outcome::Blocked { .. });
    let bad: Vec<&Rebuilt> = rebuilt.iter().filter(failed).collect();
    if bad.is_empty() {
        return None;
    }
    let promoted = rebuilt.iter().any(|one| matches!(one.outcome, Outcome::Rebuilt { .. }));
    let names: Vec<&str> = bad.iter().map(|one| one.name.as_str()).collect();
    let kind = if promoted { Kind::Partly } else { Kind::Failed };
    let mut fault = Fault::new(kind, format!("not rebuilt: {}", names.join(", ")));
    for one in &bad {
        match &one.outcome {
            Outcome::Failed { why } => fault.why.push(format!("{}: {}", one.name, why.join(": "))),
            Outcome::Blocked { by } => {
                fault.why.push(format!("{}: {by}, which it is built on, failed", one.name))
            }
            _ => {}
        }
    }
    let kept = |one: &&Rebuilt| matches!(one.outcome, Outcome::Kept { .. });
    for one in rebuilt.iter().filter(kept) {
        fault.remains.push(format!(
            "{} is good and waits as {} until its line is",
            one.name,
            candidate(&one.image)
        ));
    }
    if let Some(log) = bad.iter().find_map(|one| one.log.as_ref()) {
        fault.remains.push(format!("the log {log}"));
    }
    Some(fault.next("correct what failed, then: moorage rebuild-images builds only what is missing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_taken_apart() {
        assert_eq!(split("r.corp:5000/demo:latest"), ("r.corp:5000/demo", "latest"));
        assert_eq!(candidate("moorage/demo:latest"), "moorage/demo:candidate");
        assert_eq!(candidate("r.corp:5000/demo"), "r.corp:5000/demo:candidate");
    }

    #[test]
    fn what_failed_is_told_with_what_waits() {
        let one = |name: &str, outcome| Rebuilt {
            name: name.into(),
            image: format!("moorage/{name}:latest"),
            why: Vec::new(),
            outcome,
            log: None,
        };
        assert!(fault(&[one("a", Outcome::Unchanged)]).is_none());
        let failed = fault(&[
            one("a", Outcome::Kept { id: "sha256:1".into() }),
            one("b", Outcome::Failed { why: vec!["b fails its test".into(), "exit 1".into()] }),
            one("c", Outcome::Blocked { by: "b".into() }),
        ]);
        insta::assert_debug_snapshot!(failed);
    }
}
