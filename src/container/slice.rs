//! The ceilings of a container on a cgroup v2 host, and what is left of control groups when it is gone.
//!
//! The engine's own limits sit on a group that systemd inside may write (`engine::cgroup`), so there they are set on that
//! group's parent too. On cgroup v1 the container sees its limits read-only and the engine's hold.

use std::io::ErrorKind;

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::engine::{Cgroups, Disk, Driver, Version};
use crate::report::{Fault, Kind};
use crate::spec::Limits;

/// What `systemctl set-property` is told (systemd.resource-control(5)).
fn properties(limits: &Limits, disks: &[Disk]) -> Vec<String> {
    let memory = limits.memory.map(|size| format!("MemoryMax={}", size.0));
    let pids = limits.pids.map(|count| format!("TasksMax={count}"));
    let weight = limits.cpu_weight.map(|weight| format!("CPUWeight={weight}"));
    let kinds = ["IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"].into_iter();
    let io = kinds.zip(limits.io.numbers()).flat_map(|(kind, (_, number))| {
        // Nothing takes away what was set before.
        let none = (!disks.is_empty()).then(|| format!("{kind}="));
        let set = disks.iter().filter_map(move |disk| {
            number
                .filter(|number| *number > 0)
                .map(|number| format!("{kind}={} {number}", disk.node.display()))
        });
        none.into_iter().chain(set)
    });
    memory.into_iter().chain(pids).chain(weight).chain(io).collect()
}

/// Sets the limits; they hold over reboots. What is done to these disks is set, or no longer limited.
pub async fn confine(cgroups: &Cgroups, id: &str, limits: &Limits, disks: &[Disk]) -> Result<()> {
    let properties = properties(limits, disks);
    match (cgroups.version, cgroups.driver) {
        (Version::V1, _) => Ok(()),
        (Version::V2, Driver::Systemd) => {
            let slice = outer(cgroups, id);
            systemctl(["set-property", &slice].into_iter().chain(properties.iter().map(String::as_str))).await
        }
        (Version::V2, Driver::Cgroupfs) => {
            Err(Fault::new(Kind::Missing, "on cgroup v2 Docker has to use its systemd cgroup driver")
                .why("with cgroupfs a container could raise its own limits")
                .next("remove native.cgroupdriver from /etc/docker/daemon.json and restart dockerd")
                .into())
        }
    }
}

fn outer(cgroups: &Cgroups, id: &str) -> String {
    format!("{}-{id}.slice", cgroups.root)
}

/// Forgets the limits and groups of a container that is gone. One without any is no error.
pub async fn release(cgroups: &Cgroups, id: &str) -> Result<()> {
    if (cgroups.version, cgroups.driver) == (Version::V2, Driver::Systemd) {
        systemctl(["revert", &outer(cgroups, id)].into_iter()).await?;
    }
    for directory in cgroups.remains(id) {
        match std::fs::remove_dir(&directory) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            // systemd and the engine remove theirs in their own time; an empty group that stays does no harm.
            Err(e) => tracing::debug!("{}: {e}", directory.display()),
        }
    }
    Ok(())
}

async fn systemctl<'a>(arguments: impl Iterator<Item = &'a str>) -> Result<()> {
    let output = Command::new("systemctl").args(arguments).output().await.context("run systemctl")?;
    match output.status.success() {
        true => Ok(()),
        false => Err(Fault::new(Kind::Failed, "systemd does not take the container's limits")
            .why(String::from_utf8_lossy(&output.stderr).trim().to_owned())
            .next("systemctl --failed; then run the same command again")
            .into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteSize;

    #[test]
    fn limits_are_said_in_systemds_words() {
        let (cpu_weight, pids) = (Some(50), Some(100));
        let mut limits = Limits { cpu_weight, memory: Some(ByteSize(1 << 30)), pids, ..Limits::default() };
        assert_eq!(properties(&limits, &[]), ["MemoryMax=1073741824", "TasksMax=100", "CPUWeight=50"]);
        assert!(properties(&Limits::default(), &[]).is_empty());
        limits.io.write = Some(ByteSize(1000));
        let disk = Disk { number: "252:0".into(), node: "/dev/vda".into() };
        assert_eq!(
            properties(&limits, &[disk])[3..],
            [
                "IOReadBandwidthMax=",
                "IOWriteBandwidthMax=",
                "IOWriteBandwidthMax=/dev/vda 1000",
                "IOReadIOPSMax=",
                "IOWriteIOPSMax="
            ]
        );
    }
}
