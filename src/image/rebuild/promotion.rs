//! All tags of a line that is good are moved, parents first.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use bollard::query_parameters::{RemoveImageOptions, TagImageOptions};
use serde::{Deserialize, Serialize};

use super::{Outcome, Outcomes, Rebuild};
use crate::image::lineage::{Graph, lowest};
use crate::image::{base, known};

/// The tag of an image that nobody gets yet.
const CANDIDATE: &str = "candidate";

/// Tags that are to be moved, parents first: written before the first of them is.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Promotion {
    moves: Vec<Move>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Move {
    pub name: String,
    pub reference: String,
    pub id: String,
    pub lock: Option<base::Lock>,
}

impl Rebuild<'_> {
    /// A line is promoted as a whole or not at all.
    pub(super) async fn promote_lines(
        &self,
        graph: &Graph,
        moves: Vec<Move>,
        outcomes: &mut Outcomes,
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
    pub(super) async fn finish_promotion(&self) -> Result<()> {
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

    pub(super) async fn untag(&self, reference: &str) -> Result<()> {
        let docker = self.build.docker().await?;
        if known(docker, reference).await?.is_some() {
            let keep = RemoveImageOptions { noprune: true, ..RemoveImageOptions::default() };
            let removed = docker.remove_image(reference, Some(keep), None).await;
            removed.with_context(|| format!("take the tag {reference} away"))?;
        }
        Ok(())
    }
}

/// What a candidate for the name `reference` is called.
pub(super) fn candidate(reference: &str) -> String {
    format!("{}:{CANDIDATE}", split(reference).0)
}

/// Repository and tag.
fn split(reference: &str) -> (&str, &str) {
    reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).unwrap_or((reference, "latest"))
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
}
