//! Ceilings and weights of a container.

use serde::{Deserialize, Serialize};

use super::ByteSize;

/// Ceilings and weights; what is absent is filled in from the host's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Relative share of CPU time, 1 to 10000, default 100 (cgroup v2 `cpu.weight`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_weight: Option<u32>,
    /// Bytes of memory the container may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// What it may do to each disk.
    #[serde(default, skip_serializing_if = "Io::is_empty")]
    pub io: Io,
}

/// Ceilings of what a container does to each disk that its files are on. 0 is no ceiling.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Io {
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<ByteSize>,
    /// Bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<ByteSize>,
    /// Reads a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_ops: Option<u32>,
    /// Writes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write_ops: Option<u32>,
}

impl Limits {
    /// Field by field: this one's, else `below`'s.
    pub fn or(&self, below: &Limits) -> Limits {
        Limits {
            cpu_weight: self.cpu_weight.or(below.cpu_weight),
            memory: self.memory.or(below.memory),
            pids: self.pids.or(below.pids),
            io: self.io.or(&below.io),
        }
    }

    /// Nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Limits::default()
    }

    /// Each that there is, as people read it.
    pub fn words(&self) -> Vec<(&'static str, String)> {
        let Limits { cpu_weight, memory, pids, io } = self;
        let each_second = |what: Option<ByteSize>| match what {
            Some(ByteSize(0)) => Some("unlimited".to_owned()),
            size => size.map(|size| format!("{size}/s")),
        };
        let ops = |what: Option<u32>| match what {
            Some(0) => Some("unlimited".to_owned()),
            count => count.map(|count| format!("{count}/s")),
        };
        let all = [
            ("memory", memory.map(|size| size.to_string())),
            ("cpu weight", cpu_weight.map(|weight| weight.to_string())),
            ("pids", pids.map(|count| count.to_string())),
            ("disk read", each_second(io.read)),
            ("disk write", each_second(io.write)),
            ("disk reads", ops(io.read_ops)),
            ("disk writes", ops(io.write_ops)),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }
}

impl Io {
    pub fn is_empty(&self) -> bool {
        *self == Io::default()
    }

    fn or(&self, below: &Io) -> Io {
        Io {
            read: self.read.or(below.read),
            write: self.write.or(below.write),
            read_ops: self.read_ops.or(below.read_ops),
            write_ops: self.write_ops.or(below.write_ops),
        }
    }

    /// Name and number of each ceiling; the numbers as the kernel takes them, 0 for none.
    pub fn numbers(&self) -> [(&'static str, Option<u64>); 4] {
        [
            ("io.read", self.read.map(|size| size.0)),
            ("io.write", self.write.map(|size| size.0)),
            ("io.read_ops", self.read_ops.map(u64::from)),
            ("io.write_ops", self.write_ops.map(u64::from)),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_absent_comes_from_below() {
        let io = |read: Option<u64>, write_ops| Io { read: read.map(ByteSize), write_ops, ..Io::default() };
        let above = Limits { pids: Some(1), io: io(Some(0), None), ..Limits::default() };
        let below =
            Limits { pids: Some(2), cpu_weight: Some(3), io: io(Some(5), Some(6)), ..Limits::default() };
        let both = above.or(&below);
        assert_eq!((both.pids, both.cpu_weight), (Some(1), Some(3)));
        assert_eq!(both.io, io(Some(0), Some(6)));
        assert!(Limits::default().is_empty() && !both.is_empty());
    }

    #[test]
    fn people_read_each_that_there_is() {
        let io = Io { write: Some(ByteSize(100_000_000)), read_ops: Some(0), ..Io::default() };
        let limits = Limits { pids: Some(9), io, ..Limits::default() };
        let words = limits.words();
        assert_eq!(words[0], ("pids", "9".to_owned()));
        assert!(
            words.iter().any(|(name, value)| *name == "disk write" && value == "95.37 MiB/s"),
            "{words:?}"
        );
        assert!(words.contains(&("disk reads", "unlimited".to_owned())));
    }

    #[test]
    fn none_is_written_as_nothing() {
        assert_eq!(serde_json::to_string(&Limits::default()).unwrap(), "{}");
        let read: Limits = serde_json::from_str(r#"{"io":{"write":"1MB"}}"#).unwrap();
        assert_eq!(read.io.write, Some(ByteSize(1_000_000)));
    }
}
