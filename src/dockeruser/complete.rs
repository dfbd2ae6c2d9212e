//! What the shell may complete in this role's verbs: containers, projects, branches.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use crate::api::{self, Client, ContainerView};
use crate::site::{BranchView, HostConfig, ProjectView, Site, host};

/// A person waits for a Tab this long and no longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Completes the names of containers.
pub fn containers() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let candidate = |container: ContainerView| {
            CompletionCandidate::new(container.name.to_string())
                .help(Some(container.owner.to_string().into()))
        };
        known().into_iter().map(candidate).collect()
    })
}

/// Completes `--filter`.
pub fn filters() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let mut filters: Vec<String> = Vec::new();
        for container in known() {
            filters.push(format!("owner={}", container.owner));
            filters.push(format!("project={}", container.project));
            filters.push(format!("branch={}", container.branch));
        }
        filters.extend(["running", "stopped", "busy", "setup-failed"].map(|state| format!("state={state}")));
        filters.sort();
        filters.dedup();
        filters.into_iter().map(CompletionCandidate::new).collect()
    })
}

/// The containers, or none when the daemon does not answer at once: a Tab must not hang or complain.
fn known() -> Vec<ContainerView> {
    let socket = std::env::var_os("MOORAGE_SOCKET").map_or_else(|| PathBuf::from(api::SOCKET), PathBuf::from);
    let ask = async {
        let client = Client::connect(&socket).await?;
        client.get::<Vec<ContainerView>>("/v1/containers").await
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime
        .ok()
        .and_then(|runtime| runtime.block_on(async { tokio::time::timeout(PATIENCE, ask).await }).ok())
        .and_then(Result::ok)
        .unwrap_or_default()
}

/// Completes a project's name.
pub fn projects() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let candidate = |project: ProjectView| {
            CompletionCandidate::new(project.name).help(Some(project.description.into()))
        };
        defined().into_iter().map(candidate).collect()
    })
}

/// Completes the branch of the project that was typed before it; a glob stands for branches nobody lists.
pub fn branches() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let names = typed_branches().into_iter().map(|branch| branch.pattern);
        names.filter(|name| !name.contains(['*', '?', '[', '{'])).map(CompletionCandidate::new).collect()
    })
}

/// Completes the patches of the project that was typed.
pub fn patches() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let mut names: Vec<String> = typed_branches().into_iter().flat_map(|branch| branch.patches).collect();
        names.sort();
        names.dedup();
        names.into_iter().map(CompletionCandidate::new).collect()
    })
}

/// The branches of the project that is among the words of the command line.
fn typed_branches() -> Vec<BranchView> {
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    defined()
        .into_iter()
        .filter(|project| words.contains(&project.name))
        .flat_map(|project| project.branches)
        .collect()
}

/// The projects of the site; none where it is wrong, which the verb itself says better.
fn defined() -> Vec<ProjectView> {
    let directory = std::env::var_os("MOORAGE_SITE").map(PathBuf::from);
    HostConfig::load(Path::new(host::CONFIG))
        .and_then(|host| Site::load(directory.as_deref(), host))
        .and_then(|site| site.projects())
        .unwrap_or_default()
}
