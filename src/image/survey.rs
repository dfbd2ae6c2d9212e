//! What is here of the site's images, and what their repositories have: the data that [`super::lineage`] decides on.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use bollard::models::{ContainerSummary, ImageSummary};
use bollard::query_parameters::{ListContainersOptions, ListImagesOptions};

use super::lineage::{Graph, Here, News, Node, lowest};
use super::memory::Memory;
use super::{base, dockerfile, label};
use crate::engine::Engine;
use crate::site::Site;
use crate::spec::Digest;

/// What is asked, and of whom.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    pub site: &'a Site,
    pub engine: &'a Engine,
    pub memory: &'a Memory,
    /// Ask no package repository.
    pub offline: bool,
}

/// What came out.
#[derive(Debug, Default)]
pub struct Survey {
    pub graph: Graph,
    /// The containers of each image by its name, and whether they are of an earlier one.
    pub containers: BTreeMap<String, Vec<User>>,
    /// The signed metadata that the repositories of each base have now.
    pub metadata: BTreeMap<String, BTreeMap<String, Digest>>,
    /// Why the repositories of a base could not be asked.
    pub unanswered: BTreeMap<String, anyhow::Error>,
}

/// A container that uses an image.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct User {
    pub name: String,
    /// The image it was made from has been replaced since.
    pub outdated: bool,
}

/// Looks at all images of the site. A definition that is wrong is an error, never left out.
pub async fn survey(ask: Ask<'_>) -> Result<Survey> {
    let docker = ask.engine.docker().await?;
    let images = docker.list_images(None::<ListImagesOptions>).await.context("list the images")?;
    let all = ListContainersOptions { all: true, ..ListContainersOptions::default() };
    let containers = docker.list_containers(Some(all)).await.context("list the containers")?;
    let by_tag: HashMap<&str, &ImageSummary> = images
        .iter()
        .flat_map(|image| image.repo_tags.iter().map(move |tag| (tag.as_str(), image)))
        .collect();
    let mut survey = Survey { graph: graph(ask.site, &by_tag)?, ..Survey::default() };
    survey.containers = users(&survey.graph, &containers);
    survey.ask_repositories(ask).await?;
    Ok(survey)
}

fn graph(site: &Site, by_tag: &HashMap<&str, &ImageSummary>) -> Result<Graph> {
    let here = |reference: &str| by_tag.get(reference).map(|image| here(image));
    let node = |name: &str, reference: String, on: Option<String>, definition: Option<Digest>| Node {
        name: name.to_owned(),
        here: here(&reference),
        reference,
        on,
        definition,
        news: News::None,
    };
    let mut graph = Graph::new();
    let (bases, images) = (site.bases()?, site.images()?);
    for name in &bases {
        let definition = base::digest(&site.base(name)?)?;
        graph.insert(name.clone(), node(name, site.image_reference(name)?, None, Some(definition)));
    }
    for name in &images {
        let (reference, definition) = (site.image_reference(name)?, site.image(name)?);
        let below = &definition.raw.base;
        let defined = bases.contains(below) || images.contains(below);
        let on = if defined { below.clone() } else { site.image_reference(below)? };
        if !defined {
            graph.insert(on.clone(), node(&on, on.clone(), None, None));
        }
        let digest = dockerfile::digest(&definition)?;
        graph.insert(name.clone(), node(name, reference, Some(on), Some(digest)));
    }
    Ok(graph)
}

fn here(image: &ImageSummary) -> Here {
    let label = |name: &str| image.labels.get(name).cloned();
    Here {
        id: image.id.clone(),
        size: image.size.max(0) as u64,
        created: image.created,
        definition: label(label::DEFINITION),
        base_id: label(label::BASE_ID),
        root: label(label::ROOT),
    }
}

/// A container has the labels of its image, so its image's name is known when that has been replaced, too.
fn users(graph: &Graph, containers: &[ContainerSummary]) -> BTreeMap<String, Vec<User>> {
    let mut users: BTreeMap<String, Vec<User>> = BTreeMap::new();
    for container in containers {
        let id = container.image_id.as_deref().unwrap_or_default();
        let of = graph.values().find(|node| node.here.as_ref().is_some_and(|here| here.id == id));
        let labelled = container.labels.as_ref().and_then(|labels| labels.get(label::NAME));
        let Some(image) = of.map(|node| &node.name).or(labelled).filter(|name| graph.contains_key(*name))
        else {
            continue;
        };
        let name = container.names.iter().flatten().next().map(|name| name.trim_start_matches('/'));
        let user = User { name: name.unwrap_or_default().to_owned(), outdated: of.is_none() };
        users.entry(image.clone()).or_default().push(user);
    }
    users.values_mut().for_each(|users| users.sort_by(|a, b| a.name.cmp(&b.name)));
    users
}

impl Survey {
    /// Base by base: are there other packages than those the base, and the images on it, were made of?
    async fn ask_repositories(&mut self, ask: Ask<'_>) -> Result<()> {
        let locks = ask.memory.locks()?;
        for name in ask.site.bases()? {
            let line: Vec<String> =
                self.graph.keys().filter(|node| lowest(&self.graph, node) == name).cloned().collect();
            let line: Vec<String> = line.into_iter().filter(|node| self.graph[node].here.is_some()).collect();
            if line.is_empty() {
                continue;
            }
            let definition = ask.site.base(&name)?;
            let locked = self.hold_to_lock(ask, &name)?;
            if ask.offline {
                continue;
            }
            let known: Vec<(String, base::Lock)> = line
                .into_iter()
                .filter_map(|node| Some((node.clone(), locks.get(&node).transpose()?)))
                .map(|(node, lock)| Ok((node, lock?)))
                .filter(|found: &Result<(String, base::Lock)>| match found {
                    Ok((node, lock)) => self.is_lock_of(node, lock),
                    Err(_) => true,
                })
                .collect::<Result<_>>()?;
            let has_own = known.iter().any(|(node, _)| *node == name);
            if !has_own && !locked {
                self.news(&name, News::Unknown);
            }
            let metadata = match base::updates::metadata(&definition).await {
                Ok(metadata) => metadata,
                Err(error) => {
                    self.unanswered.insert(name.clone(), error);
                    continue;
                }
            };
            let fresh = |lock: &base::Lock| {
                metadata.values().all(|digest| lock.metadata.values().any(|known| known == digest))
            };
            // A base with a lock of the site has what that says, whatever is newer.
            let changed: Vec<&(String, base::Lock)> =
                known.iter().filter(|(node, lock)| !(fresh(lock) || locked && *node == name)).collect();
            if !changed.is_empty() {
                let only: Vec<&base::Lock> = changed.iter().map(|(_, lock)| lock).collect();
                match base::updates::newer(&definition, &only).await {
                    Ok(newer) => {
                        for ((node, lock), newer) in changed.into_iter().zip(newer) {
                            match newer.is_empty() {
                                // Next time the metadata alone say so.
                                true => locks
                                    .put(node, &base::Lock { metadata: metadata.clone(), ..lock.clone() })?,
                                false => self.news(node, News::Packages(newer)),
                            }
                        }
                    }
                    Err(error) => drop(self.unanswered.insert(name.clone(), error)),
                }
            }
            self.metadata.insert(name, metadata);
        }
        Ok(())
    }

    /// Whether the site has a lock of this base; an image that is not of it has news.
    fn hold_to_lock(&mut self, ask: Ask<'_>, name: &str) -> Result<bool> {
        let (Some((file, text)), Some(node)) = (ask.site.lock_of(name)?, self.graph.get(name)) else {
            return Ok(false);
        };
        let (Some(definition), Some(here)) = (node.definition, &node.here) else { return Ok(true) };
        let lock = base::Lock::parse(&file.display().to_string(), &text, name, definition)?;
        if here.root != Some(lock.root.to_string()) {
            self.news(name, News::Locked);
        }
        Ok(true)
    }

    /// Whether this is what the image that is here was made of, and not one before it.
    fn is_lock_of(&self, name: &str, lock: &base::Lock) -> bool {
        let here = self.graph.get(name).and_then(|node| node.here.as_ref());
        here.is_some_and(|here| {
            [here.root.as_deref(), Some(here.id.as_str())].contains(&Some(&lock.root.to_string()))
        })
    }

    fn news(&mut self, name: &str, news: News) {
        if let Some(node) = self.graph.get_mut(name) {
            node.news = news;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_told_by_their_image_and_by_its_label() {
        let here = Here { id: "sha256:2".into(), ..Here::default() };
        let node = Node {
            name: "demo".into(),
            reference: "moorage/demo:latest".into(),
            on: None,
            definition: None,
            here: Some(here),
            news: News::None,
        };
        let graph = Graph::from([("demo".to_owned(), node)]);
        let container = |name: &str, id: &str, label: Option<&str>| ContainerSummary {
            names: Some(vec![format!("/{name}")]),
            image_id: Some(id.into()),
            labels: label.map(|name| HashMap::from([(label::NAME.to_owned(), name.to_owned())])),
            ..ContainerSummary::default()
        };
        let all = [
            container("new", "sha256:2", None),
            container("foreign", "sha256:9", None),
            container("earlier", "sha256:1", Some("demo")),
            container("gone", "sha256:1", Some("gone")),
        ];
        let user = |name: &str, outdated| User { name: name.into(), outdated };
        assert_eq!(users(&graph, &all)["demo"], [user("earlier", true), user("new", false)]);
    }
}
