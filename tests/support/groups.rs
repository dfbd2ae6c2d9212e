//! The control groups that a container is in, as the kernel has them.

use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::root;

/// The control groups of a container's init, as the host has them.
pub struct Groups {
    /// `/proc/PID/cgroup` (cgroups(7)).
    text: String,
}

impl Groups {
    pub fn of(name: &str) -> Groups {
        let pid = root().run("docker", &["inspect", "-f", "{{.State.Pid}}", name]).ok();
        Groups { text: std::fs::read_to_string(format!("/proc/{}/cgroup", pid.stdout.trim())).unwrap() }
    }

    /// The directory of the group that a version 1 controller has it in.
    fn version1(&self, controller: &str) -> Option<PathBuf> {
        self.text.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (names, path) = rest.split_once(':')?;
            let ours = names.split(',').any(|name| name == controller);
            ours.then(|| Path::new("/sys/fs/cgroup").join(controller).join(path.trim_start_matches('/')))
        })
    }

    /// The groups of version 2, innermost first.
    fn version2(&self) -> Vec<PathBuf> {
        let path = self.text.lines().find_map(|line| line.strip_prefix("0::/")).expect("a version 2 group");
        let ancestors = Path::new(path).ancestors();
        ancestors.map(|group| Path::new("/sys/fs/cgroup").join(group)).collect()
    }

    fn number(path: &Path) -> Option<u64> {
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }

    /// A ceiling: the lowest that holds for it.
    fn ceiling(&self, controller: &str, (version1, version2): (&str, &str)) -> u64 {
        let found = match self.version1(controller) {
            Some(group) => Groups::number(&group.join(version1)),
            None => self.version2().iter().filter_map(|group| Groups::number(&group.join(version2))).min(),
        };
        found.unwrap_or_else(|| panic!("no ceiling of {controller} in\n{}", self.text))
    }

    pub fn memory(&self) -> u64 {
        self.ceiling("memory", ("memory.limit_in_bytes", "memory.max"))
    }

    pub fn pids(&self) -> u64 {
        self.ceiling("pids", ("pids.max", "pids.max"))
    }

    /// On the scale of version 2, where 100 is usual.
    pub fn cpu_weight(&self) -> u64 {
        match self.version1("cpu") {
            Some(group) => Groups::number(&group.join("cpu.shares")).unwrap() * 100 / 1024,
            // Set on the outer group (`container::slice`).
            None => Groups::number(&self.version2()[2].join("cpu.weight")).unwrap(),
        }
    }

    /// What may be done to the disk of `/opt/containers`: bytes read and written, reads and writes, each a second; 0 is
    /// no ceiling.
    pub fn io(&self) -> [u64; 4] {
        let device = std::fs::metadata("/opt/containers").unwrap().st_dev();
        let link = format!("/sys/dev/block/{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        let own = std::fs::canonicalize(link).unwrap();
        let disk = if own.join("partition").exists() { own.parent().unwrap().to_owned() } else { own };
        let disk = std::fs::read_to_string(disk.join("dev")).unwrap().trim().to_owned();
        let lines = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        match self.version1("blkio") {
            Some(group) => ["read_bps", "write_bps", "read_iops", "write_iops"].map(|what| {
                let text = lines(group.join(format!("blkio.throttle.{what}_device")));
                let own = text.lines().find_map(|line| line.strip_prefix(&format!("{disk} ")));
                own.map_or(0, |number| number.trim().parse().unwrap())
            }),
            None => ["rbps", "wbps", "riops", "wiops"].map(|what| {
                let groups = self.version2().into_iter().map(|group| lines(group.join("io.max")));
                let own = |text: String| {
                    let line =
                        text.lines().find_map(|line| line.strip_prefix(&format!("{disk} ")))?.to_owned();
                    line.split(' ').find_map(|word| word.strip_prefix(&format!("{what}="))?.parse().ok())
                };
                groups.filter_map(own).min().unwrap_or(0)
            }),
        }
    }
}
