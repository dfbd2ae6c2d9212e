//! Edges between modules point down only. Reads the sources, as the compiler would let every edge pass.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Each top-level module with those it may use. A module that is not here has to be put here.
const ALLOWED: &[(&str, &[&str])] = &[
    ("report", &[]),
    ("state", &[]),
    ("failpoint", &[]),
    ("apart", &[]),
    ("spec", &[]),
    ("api", &["spec", "report"]),
    ("site", &["spec", "report", "state"]),
    // dockerd holds its locks while it calls these two: neither ever calls the engine.
    ("lan", &["spec", "report", "state"]),
    ("opt", &["oci", "spec", "report", "state", "failpoint", "apart"]),
    // Speaks to registries, never to the engine, so that `opt` may use it.
    ("oci", &["spec", "report", "apart"]),
    ("engine", &["spec", "report", "state", "apart"]),
    // Programs of others: it knows what runs, not what for.
    ("service", &["report", "state"]),
    ("registry", &["service", "spec", "report", "state", "failpoint"]),
    // A LAN to try with: it knows nothing of the driver.
    ("lab", &["spec", "report", "state"]),
    ("image", &["engine", "oci", "site", "spec", "report", "state"]),
    (
        "container",
        &["engine", "lan", "oci", "opt", "site", "api", "spec", "report", "state", "failpoint", "apart"],
    ),
    (
        "daemon",
        &[
            "container",
            "image",
            "engine",
            "lan",
            "oci",
            "opt",
            "site",
            "api",
            "spec",
            "report",
            "state",
            "apart",
        ],
    ),
    ("invocation", &["api", "report"]),
    // What only the person's own process does.
    ("checkout", &["api", "spec", "report", "invocation"]),
    ("dockeruser", VERB),
    ("containerauthor", VERB),
    ("registryserver", VERB),
    ("scripthacker", VERB),
    (
        "cli",
        &[
            "daemon",
            "dockeruser",
            "containerauthor",
            "registryserver",
            "scripthacker",
            "invocation",
            "report",
            "api",
            "site",
            "spec",
        ],
    ),
];

const VERB: &[&str] = &[
    "checkout",
    "lab",
    "invocation",
    "image",
    "registry",
    "service",
    "container",
    "engine",
    "oci",
    "site",
    "api",
    "spec",
    "report",
    "state",
];

/// A verb is one file or directory of its role's; what verbs share lies below the roles.
const ROLES: &[&str] = &["dockeruser", "containerauthor", "registryserver", "scripthacker"];

/// The paths that follow `crate::` in a file, up to their second part: `a`, or `a::b`. Braces are taken apart.
fn edges(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` and `my_crate::` are other things.
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || "_$".contains(c)) {
            continue;
        }
        collect(&code[at + "crate::".len()..], "", &mut found);
    }
    found
}

/// Adds what `rest` begins with: a path, or a list in braces.
fn collect(rest: &str, before: &str, found: &mut BTreeSet<String>) {
    let rest = rest.trim_start();
    if let Some(list) = rest.strip_prefix('{') {
        let (mut depth, mut begin) = (0, 0);
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' => {
                    if depth == 0 {
                        collect(&list[begin..at], before, found);
                        begin = at + 1;
                    }
                    if c == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    let name = &rest[..end];
    if name.is_empty() || name == "self" {
        return;
    }
    match (before, rest[end..].trim_start().strip_prefix("::")) {
        ("", Some(further)) => {
            found.insert(name.to_owned());
            collect(further, name, found);
        }
        ("", None) => drop(found.insert(name.to_owned())),
        (module, _) => drop(found.insert(format!("{module}::{name}"))),
    }
}

/// Every source file with its module path, `dockeruser/setup/plan.rs` as `[dockeruser, setup, plan]`.
fn sources() -> Vec<(Vec<String>, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources: Vec<(Vec<String>, String)> = Vec::new();
    let mut directories = vec![root.clone()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let inside = path.strip_prefix(&root).unwrap().with_extension("");
                let module = inside.iter().map(|part| part.to_str().unwrap().to_owned());
                sources.push((
                    module.filter(|part| part != "mod").collect(),
                    fs::read_to_string(&path).unwrap(),
                ));
            }
        }
    }
    sources.retain(|(module, _)| !matches!(module[0].as_str(), "main" | "lib"));
    sources
}

#[test]
fn edges_point_down_only() {
    let allowed: BTreeMap<_, _> = ALLOWED.iter().copied().collect();
    let mut wrong = Vec::new();
    for (module, text) in sources() {
        let Some(allowed) = allowed.get(module[0].as_str()) else {
            wrong.push(format!("{}: has no place in this table", module.join("::")));
            continue;
        };
        for edge in edges(&text) {
            let top = edge.split("::").next().unwrap();
            if top != module[0] && !allowed.contains(&top) {
                wrong.push(format!("{} uses {top}", module.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "edges that point up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn a_verb_never_uses_a_verb() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (module, text) in &sources {
        let role = module[0].as_str();
        if !ROLES.contains(&role) || module.len() < 2 {
            continue;
        }
        let verb = module[1].as_str();
        // A role declares its verbs `pub`; what they share is private to it.
        let declared = fs::read_to_string(Path::new("src").join(role).join("mod.rs")).unwrap();
        let is_verb = |name: &str| declared.contains(&format!("\npub mod {name};"));
        let own = edges(text).into_iter().filter_map(|edge| {
            edge.strip_prefix(role).and_then(|rest| rest.strip_prefix("::")).map(str::to_owned)
        });
        // `super::` of a verb's file is its role.
        let mut above = BTreeSet::new();
        if module.len() == 2 {
            for (at, _) in text.match_indices("\nuse super::") {
                collect(&text[at + "\nuse super::".len()..], "", &mut above);
            }
        }
        for used in own.chain(above) {
            if used != verb && is_verb(&used) {
                wrong.push(format!("{role}::{verb} uses {role}::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "verbs that use verbs:\n{}", wrong.join("\n"));
}

#[test]
fn edges_are_found_in_every_form() {
    let text = "use crate::{report::{Fault, Kind}, spec};\nfn f() { crate::engine::Engine::new(); } // crate::lan\nuse $crate::x;";
    let found: Vec<_> = edges(text).into_iter().collect();
    assert_eq!(found, ["engine", "engine::Engine", "report", "report::Fault", "report::Kind", "spec"]);
}
