//! Processes inside that nobody waits for any more.

use anyhow::Result;
use bollard::Docker;
use rustix::process::Signal;

use super::{Engine, fault, process};

/// A process inside that nobody waits for when this is dropped: it is told to end, and made to a little later.
pub(super) struct Unfinished {
    docker: Docker,
    exec: Option<String>,
}

/// Seconds that a process may take to end when it is told to.
const GRACE: i64 = 10;

impl Unfinished {
    pub(super) fn new(docker: Docker, exec: String) -> Unfinished {
        Unfinished { docker, exec: Some(exec) }
    }

    pub(super) fn done(mut self) {
        self.exec = None;
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (Some(exec), docker) = (self.exec.take(), self.docker.clone()) else { return };
        tokio::spawn(async move { end(&docker, &exec).await });
    }
}

/// Tells the process to end, and makes it when it does not. Returns when it is gone.
async fn end(docker: &Docker, exec: &str) {
    for signal in [Signal::TERM, Signal::KILL] {
        let process = match process::find(docker, exec).await {
            Ok(Some(process)) => process,
            Ok(None) => return,
            Err(error) => return tracing::warn!("a process inside may run on: {error:#}"),
        };
        // The runtime makes it the leader of a session of its own, so its children are told as well.
        process.signal_group(signal);
        if let Err(error) = process.ended(GRACE).await {
            tracing::warn!("{error:#}");
        }
    }
}

impl Engine {
    /// Ends what still runs inside `container` and was started with `mark` as its last word: its daemon was killed before
    /// it could. The engine forgets a process that has ended.
    pub async fn end_left_over(&self, container: &str, mark: &str) -> Result<()> {
        let docker = self.docker().await?;
        let seen = docker.inspect_container(container, None).await;
        let seen = seen.map_err(|e| fault(e, format!("look for processes in {container}")))?;
        for exec in seen.exec_ids.unwrap_or_default() {
            let Ok(process) = docker.inspect_exec(&exec).await else { continue };
            let words = process.process_config.as_ref().and_then(|process| process.arguments.as_ref());
            if words.and_then(|words| words.last()).is_some_and(|last| last == mark) {
                end(docker, &exec).await;
            }
        }
        Ok(())
    }
}
