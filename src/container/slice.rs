//! The ceilings of a container on a cgroup v2 host.
//!
//! systemd inside needs to write its own subtree, and whoever may write a group may raise its limits. So the engine puts
//! the container into an inner slice, which it may write, and the limits sit on that slice's parent, which it cannot
//! reach. On cgroup v1 the container sees its groups read-only and the engine's own limits hold.

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::engine::Cgroup;
use crate::report::{Fault, Kind};
use crate::spec::Limits;

/// The slice that carries the limits of the container with record `id`.
fn outer(id: &str) -> String {
    format!("moorage-{id}.slice")
}

/// What `systemctl set-property` is told (systemd.resource-control(5)).
fn properties(limits: &Limits) -> Vec<String> {
    let memory = limits.memory.map(|size| format!("MemoryMax={}", size.0));
    let pids = limits.pids.map(|count| format!("TasksMax={count}"));
    let weight = limits.cpu_weight.map(|weight| format!("CPUWeight={weight}"));
    memory.into_iter().chain(pids).chain(weight).collect()
}

/// Sets the limits; they hold over reboots.
pub async fn confine(cgroup: Cgroup, id: &str, limits: &Limits) -> Result<()> {
    let properties = properties(limits);
    if cgroup == Cgroup::V1 || properties.is_empty() {
        return Ok(());
    }
    let slice = outer(id);
    systemctl(["set-property", &slice].into_iter().chain(properties.iter().map(String::as_str))).await
}

/// Forgets the limits of a container that is removed. One without any is no error.
pub async fn release(cgroup: Cgroup, id: &str) -> Result<()> {
    match cgroup {
        Cgroup::V1 => Ok(()),
        Cgroup::V2 => systemctl(["revert", &outer(id)].into_iter()).await,
    }
}

async fn systemctl<'a>(arguments: impl Iterator<Item = &'a str>) -> Result<()> {
    let output = Command::new("systemctl").args(arguments).output().await.context("run systemctl")?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Fault::new(Kind::Failed, "systemd does not take the container's limits")
            .why(String::from_utf8_lossy(&output.stderr).trim().to_owned())
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteSize;

    #[test]
    fn limits_are_said_in_systemds_words() {
        let limits = Limits { cpu_weight: Some(50), memory: Some(ByteSize(1 << 30)), pids: Some(100) };
        assert_eq!(properties(&limits), ["MemoryMax=1073741824", "TasksMax=100", "CPUWeight=50"]);
        assert!(properties(&Limits::default()).is_empty());
    }
}
