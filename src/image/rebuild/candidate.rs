//! One image of a rebuild: made as a candidate and tried, unless an earlier run has done that.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Rebuild;
use super::promotion::candidate;
use crate::image::dockerfile::{self, On};
use crate::image::lineage::{Why, lowest};
use crate::image::survey::Survey;
use crate::image::{Build, STEP, base, known, label, log, smoke};
use crate::report::{Event, Fault, Reporter};
use crate::site::Site;
use crate::spec::Digest;

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

/// One image that was made, or not.
pub(super) struct Done {
    pub name: String,
    pub outcome: Result<Made>,
    pub log: Option<String>,
}

pub(super) enum Made {
    Candidate { id: String, lock: Option<base::Lock> },
    Unchanged { lock: Option<base::Lock> },
}

impl Rebuild<'_> {
    /// Builds and tries one image, unless that was done before.
    pub(super) async fn image(&self, survey: &Survey, name: &str, why: &[Why]) -> Done {
        let opened = log::tee(&self.memory.logs(), name, self.build.report);
        let (path, report) = match opened {
            Ok((path, report)) => (Some(path.display().to_string()), report),
            Err(error) => return Done { name: name.to_owned(), outcome: Err(error), log: None },
        };
        let report = labelled(&report, name);
        let build = Build { report: &report, refresh: true, ..self.build };
        let outcome = self.made(build, survey, name, why).await;
        if let Err(error) = &outcome {
            report.output(STEP, format!("failed: {error:#}"));
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
            build.report.end(STEP, "was made and tried before");
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
