//! Rebuilding what is stale: candidates level by level, each tried, then all tags of a line moved, parents first.
//!
//! A candidate is tagged `<repository>:candidate` and remembered with what it was made of, so that a run that failed
//! or was killed is gone on with. Before the first tag of a line is moved, all that will be moved is written down: a
//! run that was killed between two tags is completed by the next.

mod candidate;
mod outcome;
mod promotion;

use std::collections::BTreeMap;

use anyhow::Result;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;

pub use self::candidate::Attempt;
use self::candidate::{Done, Made};
pub use self::outcome::fault;
use self::promotion::Move;
pub use self::promotion::Promotion;
use super::Build;
use super::lineage::{Graph, Why, plan, stale};
use super::memory::Memory;
use super::survey::{Ask, Survey, survey};
use crate::report::Fault;

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

/// What would be rebuilt, level by level, each with its reasons.
pub fn planned(survey: &Survey, wish: &Wish) -> Vec<Vec<(String, Vec<Why>)>> {
    let mut stale = stale(&survey.graph);
    let levels = plan(&survey.graph, wish.base.as_deref()).into_iter();
    let mut with_why = |name: String| (name.clone(), stale.remove(&name).unwrap_or_default());
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
/// What became of each image, by its name, with its log.
type Outcomes = BTreeMap<String, (Outcome, Option<String>)>;

struct Rebuild<'a> {
    build: Build<'a>,
    memory: &'a Memory,
    candidates: Candidates,
}

impl Rebuild<'_> {
    async fn run(mut self, survey: &Survey, wish: &Wish) -> Result<Vec<Rebuilt>> {
        let graph = &survey.graph;
        let mut outcomes = Outcomes::new();
        let mut moves: Vec<Move> = Vec::new();
        let levels = planned(survey, wish);
        for level in &levels {
            let mut ready = Vec::new();
            for (name, why) in level {
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
        let line = |(name, why): (String, Vec<Why>)| {
            let (outcome, log) = outcomes.remove(&name)?;
            let image = graph[&name].reference.clone();
            Some(Rebuilt { name, image, why, outcome, log })
        };
        Ok(levels.into_iter().flatten().filter_map(line).collect())
    }

    fn blocked_by(&self, graph: &Graph, name: &str, outcomes: &Outcomes) -> Option<String> {
        let on = graph[name].on.as_ref()?;
        match outcomes.get(on)?.0 {
            Outcome::Failed { .. } => Some(on.clone()),
            Outcome::Blocked { ref by } => Some(by.clone()),
            _ => None,
        }
    }
}
