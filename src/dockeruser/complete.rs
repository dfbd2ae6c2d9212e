//! What the shell may complete in this role's verbs: containers, projects, branches.

use std::path::PathBuf;
use std::time::Duration;

use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};

use crate::api::{self, Client, ContainerView};

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
