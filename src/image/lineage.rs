//! Which images are stale, why, and in which order they are rebuilt. Pure: what is here comes in as data.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::spec::Digest;

/// An image of the site, or one that images of the site are built on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The definition's name; the full reference of an image that the site does not define.
    pub name: String,
    pub reference: String,
    /// The node it is built on; none for a base and for what the site does not define.
    pub on: Option<String>,
    /// Digest of the definition as it is now; none where the site does not define it.
    pub definition: Option<Digest>,
    pub here: Option<Here>,
    pub news: News,
}

/// What is here of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Here {
    /// `sha256:…`
    pub id: String,
    /// Bytes, all layers.
    pub size: u64,
    /// Seconds since 1970; of a base the definition's epoch.
    pub created: i64,
    /// From its labels: what it was made from, and the id of what it was built on.
    pub definition: Option<String>,
    pub base_id: Option<String>,
    pub root: Option<String>,
}

/// What the package repositories have for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// Nothing newer, or they were not asked.
    None,
    /// Packages with another version: `bash:amd64 5.2-1 → 5.2-2`.
    Packages(Vec<String>),
    /// The site's lock names another root filesystem.
    Locked,
    /// What it was made of is not known on this host.
    Unknown,
}

/// Why an image is stale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// Its definition has changed.
    Definition,
    /// What it is built on was replaced by another image of that name.
    Parent,
    /// What it is built on is stale itself.
    ParentStale(String),
    /// The repositories have other packages.
    Packages(Vec<String>),
    /// The site's lock has changed.
    Lock,
    /// Nobody knows what it was made of.
    Unknown,
}

impl std::fmt::Display for Why {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Why::Definition => f.write_str("its definition has changed"),
            Why::Parent => f.write_str("built on an image that was replaced"),
            Why::ParentStale(parent) => write!(f, "{parent} is stale"),
            Why::Packages(news) => match news.as_slice() {
                [] => f.write_str("there are newer packages"),
                [one] => f.write_str(one),
                [one, more @ ..] => write!(f, "{one} and {} more", more.len()),
            },
            Why::Lock => f.write_str("the site's lock has changed"),
            Why::Unknown => f.write_str("what it was made of is not known here"),
        }
    }
}

/// The nodes by their names.
pub type Graph = BTreeMap<String, Node>;

/// Every image that is here and stale, with all reasons. What is defined and not here is not stale: nobody uses it.
pub fn stale(graph: &Graph) -> BTreeMap<String, Vec<Why>> {
    let mut stale: BTreeMap<String, Vec<Why>> = BTreeMap::new();
    for level in order(graph) {
        for node in level.iter().filter_map(|name| graph.get(name)) {
            let why = reasons(graph, node, &stale);
            if !why.is_empty() {
                stale.insert(node.name.clone(), why);
            }
        }
    }
    stale
}

fn reasons(graph: &Graph, node: &Node, stale: &BTreeMap<String, Vec<Why>>) -> Vec<Why> {
    let (Some(here), Some(definition)) = (&node.here, node.definition) else { return Vec::new() };
    let mut why = Vec::new();
    if here.definition != Some(definition.to_string()) {
        why.push(Why::Definition);
    }
    if let Some(parent) = node.on.as_ref().and_then(|on| graph.get(on)) {
        if stale.contains_key(&parent.name) {
            why.push(Why::ParentStale(parent.name.clone()));
        }
        // A parent that went away says nothing of the image that was built on it.
        if parent.here.as_ref().is_some_and(|parent| here.base_id.as_ref() != Some(&parent.id)) {
            why.push(Why::Parent);
        }
    }
    match &node.news {
        News::None => {}
        News::Packages(news) => why.push(Why::Packages(news.clone())),
        News::Locked => why.push(Why::Lock),
        // An image of another definition is rebuilt anyway.
        News::Unknown if why.is_empty() => why.push(Why::Unknown),
        News::Unknown => {}
    }
    why
}

/// All names, level by level: what an image is built on is in an earlier level. Images that are built on each other are
/// in none.
pub fn order(graph: &Graph) -> Vec<Vec<String>> {
    let mut levels = Vec::new();
    let mut placed: BTreeSet<&str> = BTreeSet::new();
    loop {
        let ready = |node: &&Node| {
            !placed.contains(node.name.as_str())
                && node.on.as_ref().is_none_or(|on| placed.contains(on.as_str()) || !graph.contains_key(on))
        };
        let level: Vec<&Node> = graph.values().filter(ready).collect();
        if level.is_empty() {
            return levels;
        }
        placed.extend(level.iter().map(|node| node.name.as_str()));
        levels.push(level.iter().map(|node| node.name.clone()).collect());
    }
}

/// The lowest image of the line that `name` stands on: all that stand on it are promoted together.
pub fn lowest<'a>(graph: &'a Graph, name: &'a str) -> &'a str {
    let mut at = name;
    // Not deeper than there are images, should they be built on each other.
    for _ in 0..graph.len() {
        match graph.get(at).and_then(|node| node.on.as_deref()).filter(|on| graph.contains_key(*on)) {
            Some(on) => at = on,
            None => break,
        }
    }
    at
}

/// What is to be rebuilt, level by level: the stale ones, all of them or those in the line of `base`.
pub fn plan(graph: &Graph, base: Option<&str>) -> Vec<Vec<String>> {
    let stale = stale(graph);
    let wanted =
        |name: &String| stale.contains_key(name) && base.is_none_or(|base| stands_on(graph, name, base));
    let levels = order(graph).into_iter().map(|level| level.into_iter().filter(&wanted).collect());
    levels.filter(|level: &Vec<String>| !level.is_empty()).collect()
}

/// Whether `name` is `base` or stands on it.
pub fn stands_on(graph: &Graph, name: &str, base: &str) -> bool {
    let mut at = name;
    for _ in 0..=graph.len() {
        if at == base {
            return true;
        }
        match graph.get(at).and_then(|node| node.on.as_deref()) {
            Some(on) => at = on,
            None => return false,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Digest = Digest([1; 32]);

    /// `name on parent`; each was made from the definition as it is, on the parent as it is.
    fn graph(lines: &[&str]) -> Graph {
        let node = |line: &&str| {
            let (name, on) = line.split_once(" on ").map_or((*line, None), |(name, on)| (name, Some(on)));
            let here = Here {
                id: format!("id-{name}"),
                definition: Some(ONE.to_string()),
                base_id: on.map(|on| format!("id-{on}")),
                ..Here::default()
            };
            let node = Node {
                name: name.into(),
                reference: format!("moorage/{name}:latest"),
                on: on.map(str::to_owned),
                definition: Some(ONE),
                here: Some(here),
                news: News::None,
            };
            (name.to_owned(), node)
        };
        lines.iter().map(node).collect()
    }

    fn company() -> Graph {
        graph(&[
            "debian-12",
            "demo on debian-12",
            "siem on demo",
            "other on debian-12",
            "el-9",
            "sim on el-9",
        ])
    }

    fn names(plan: &[Vec<String>]) -> Vec<Vec<&str>> {
        plan.iter().map(|level| level.iter().map(String::as_str).collect()).collect()
    }

    #[test]
    fn nothing_is_stale_where_nothing_changed() {
        assert!(stale(&company()).is_empty());
        assert!(plan(&company(), None).is_empty());
    }

    #[test]
    fn newer_packages_of_a_base_make_exactly_its_line_stale_level_by_level() {
        let mut graph = company();
        graph.get_mut("debian-12").unwrap().news = News::Packages(vec!["bash 1 → 2".into()]);
        assert_eq!(names(&plan(&graph, None)), [vec!["debian-12"], vec!["demo", "other"], vec!["siem"]]);
        assert!(plan(&graph, Some("el-9")).is_empty());
        insta::assert_debug_snapshot!(stale(&graph));
    }

    #[test]
    fn a_definition_makes_what_is_above_it_stale_and_nothing_beside_it() {
        let mut graph = company();
        graph.get_mut("demo").unwrap().definition = Some(Digest([2; 32]));
        assert_eq!(names(&plan(&graph, None)), [vec!["demo"], vec!["siem"]]);
        assert_eq!(names(&plan(&graph, Some("demo"))), [vec!["demo"], vec!["siem"]]);
        assert_eq!(lowest(&graph, "siem"), "debian-12");
    }

    #[test]
    fn an_image_on_a_parent_that_was_replaced_is_stale() {
        let mut graph = company();
        graph.get_mut("el-9").unwrap().here.as_mut().unwrap().id = "id-newer".into();
        assert_eq!(stale(&graph).into_iter().collect::<Vec<_>>(), [("sim".to_owned(), vec![Why::Parent])]);
    }

    #[test]
    fn what_is_not_here_is_not_stale_and_hides_nothing() {
        let mut graph = company();
        graph.get_mut("demo").unwrap().here = None;
        assert!(stale(&graph).is_empty());
        graph.get_mut("debian-12").unwrap().news = News::Locked;
        assert_eq!(names(&plan(&graph, None)), [vec!["debian-12"], vec!["other"]]);
    }

    #[test]
    fn what_nobody_knows_is_said_and_images_on_each_other_end_nothing() {
        let mut graph = graph(&["a on b", "b on a", "c"]);
        graph.get_mut("c").unwrap().news = News::Unknown;
        assert_eq!(names(&plan(&graph, None)), [["c"]]);
        assert!(!stands_on(&graph, "a", "c"));
        assert_eq!(lowest(&graph, "c"), "c");
        lowest(&graph, "a");
    }

    proptest::proptest! {
        #[test]
        fn a_parent_is_always_in_an_earlier_level(parents in proptest::collection::vec(proptest::option::of(0usize..12), 1..12)) {
            let lines: Vec<String> = parents.iter().enumerate().map(|(at, parent)| match parent.filter(|p| *p < at) {
                Some(parent) => format!("n{at} on n{parent}"),
                None => format!("n{at}"),
            }).collect();
            let graph = graph(&lines.iter().map(String::as_str).collect::<Vec<_>>());
            let levels = order(&graph);
            let level_of = |name: &str| levels.iter().position(|level| level.iter().any(|other| other == name));
            for node in graph.values() {
                proptest::prop_assert!(level_of(&node.name).is_some());
                if let Some(on) = &node.on {
                    proptest::prop_assert!(level_of(on) < level_of(&node.name));
                }
            }
        }
    }
}
