//! What systemd inside sees of the host's control groups, and where the container's own group is.
//!
//! systemd as PID 1 needs one subtree that it may write. Whoever may write a group may raise its limits, and whoever may
//! write the host's tree may freeze the host, so nothing else is writable inside:
//!
//! - **cgroup v1**: the controllers are seen read-only, each by a mount of its own (a read-only bind of `/sys/fs/cgroup`
//!   alone leaves the mounts below it writable). Of the named hierarchy `systemd`, which carries no limits, the
//!   container's own subtree is writable. `unified`, the hybrid's second hierarchy, is hidden: systemd wants to write it.
//! - **cgroup v2**: the container runs in an inner slice, which it may write; the limits are properties of that slice's
//!   parent, which it does not see (`container::slice`).

use std::path::Path;

use bollard::models::{Mount, MountBindOptions, MountType};

/// Where the hierarchies are mounted.
const ROOT: &str = "/sys/fs/cgroup";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// Who makes the groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    Cgroupfs,
    Systemd,
}

/// How the engine arranges control groups on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroups {
    pub version: Version,
    pub driver: Driver,
    /// The group that all containers of ours are below, e.g. `moorage`.
    pub root: String,
    /// The hierarchies of version 1, by the names they are mounted under.
    pub hierarchies: Vec<String>,
}

/// What the container is created with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub parent: String,
    /// Read-only binds that carry no mount below them along.
    pub read_only: Vec<String>,
    /// The one path that is writable; the engine makes it where it is missing, after a reboot too.
    pub writable: String,
    /// Hidden behind an empty tmpfs.
    pub hidden: Vec<String>,
}

impl Cgroups {
    /// The names of the version 1 hierarchies in a mountinfo(5) text.
    pub fn hierarchies(mountinfo: &str) -> Vec<String> {
        let mut names: Vec<String> = mountinfo
            .lines()
            .filter_map(|line| {
                let (mount, rest) = line.split_once(" - ")?;
                let name = mount.split(' ').nth(4)?.strip_prefix(ROOT)?.strip_prefix('/')?;
                (rest.starts_with("cgroup") && !name.contains('/')).then(|| name.to_owned())
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// The group of the container with record `id`, below a hierarchy's root.
    fn group(&self, id: &str) -> String {
        let root = &self.root;
        match self.driver {
            Driver::Cgroupfs => format!("{root}/{id}"),
            Driver::Systemd => format!("{root}.slice/{root}-{id}.slice"),
        }
    }

    pub fn view(&self, id: &str) -> View {
        let (root, group) = (&self.root, self.group(id));
        match self.version {
            Version::V1 => View {
                parent: match self.driver {
                    Driver::Cgroupfs => format!("/{group}"),
                    Driver::Systemd => format!("{root}-{id}.slice"),
                },
                read_only: std::iter::once(ROOT.to_owned())
                    .chain(
                        self.hierarchies
                            .iter()
                            .filter(|name| *name != "unified")
                            .map(|name| format!("{ROOT}/{name}")),
                    )
                    .collect(),
                writable: format!("{ROOT}/systemd/{group}"),
                hidden: self
                    .hierarchies
                    .iter()
                    .filter(|name| *name == "unified")
                    .map(|name| format!("{ROOT}/{name}"))
                    .collect(),
            },
            Version::V2 => {
                let inner = match self.driver {
                    Driver::Cgroupfs => "in".to_owned(),
                    Driver::Systemd => format!("{root}-{id}-in.slice"),
                };
                View {
                    parent: match self.driver {
                        Driver::Cgroupfs => format!("/{group}/{inner}"),
                        Driver::Systemd => inner.clone(),
                    },
                    read_only: Vec::new(),
                    writable: format!("{ROOT}/{group}/{inner}"),
                    hidden: Vec::new(),
                }
            }
        }
    }

    /// The directories that are left of a container that is gone, deepest first; the engine removes only its own.
    pub fn remains(&self, id: &str) -> Vec<std::path::PathBuf> {
        let group = self.group(id);
        match self.version {
            Version::V1 => {
                self.hierarchies.iter().map(|name| Path::new(ROOT).join(name).join(&group)).collect()
            }
            Version::V2 => {
                let (view, outer) = (self.view(id), Path::new(ROOT).join(&group));
                vec![view.writable.into(), outer]
            }
        }
    }
}

impl View {
    pub(super) fn mounts(&self) -> impl Iterator<Item = Mount> + '_ {
        self.read_only.iter().map(|path| Mount {
            typ: Some(MountType::BIND),
            source: Some(path.clone()),
            target: Some(path.clone()),
            read_only: Some(true),
            bind_options: Some(MountBindOptions { non_recursive: Some(true), ..Default::default() }),
            ..Default::default()
        })
    }

    pub(super) fn binds(&self) -> Vec<String> {
        vec![format!("{0}:{0}:rw", self.writable)]
    }

    /// The same as flags of `docker create`.
    pub fn flags(&self) -> Vec<String> {
        let read_only = self
            .read_only
            .iter()
            .map(|path| format!("--mount type=bind,src={path},dst={path},ro,bind-nonrecursive"));
        let hidden = self.hidden.iter().map(|path| format!("--tmpfs {path}:ro"));
        ["--cgroupns host".to_owned(), format!("--cgroup-parent {}", self.parent)]
            .into_iter()
            .chain(read_only)
            .chain([format!("-v {0}:{0}:rw", self.writable)])
            .chain(hidden)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cgroups(version: Version, driver: Driver) -> Cgroups {
        let hierarchies = ["memory", "systemd", "unified"].map(str::to_owned).into();
        Cgroups { version, driver, root: "moorage".into(), hierarchies }
    }

    #[test]
    fn hierarchies_are_found_by_their_mounts() {
        let mountinfo = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
             32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu\n\
             33 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
             34 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
             35 31 0:39 / /mnt/cgroup rw - cgroup cgroup rw\n";
        assert_eq!(Cgroups::hierarchies(mountinfo), ["cpu,cpuacct", "systemd", "unified"]);
    }

    #[test]
    fn on_v1_only_the_own_subtree_of_the_hierarchy_without_limits_is_writable() {
        for (driver, group) in
            [(Driver::Cgroupfs, "moorage/abc"), (Driver::Systemd, "moorage.slice/moorage-abc.slice")]
        {
            let view = cgroups(Version::V1, driver).view("abc");
            assert_eq!(view.writable, format!("/sys/fs/cgroup/systemd/{group}"));
            assert_eq!(view.read_only, ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/systemd"]);
            assert_eq!(view.hidden, ["/sys/fs/cgroup/unified"]);
        }
        assert_eq!(cgroups(Version::V1, Driver::Cgroupfs).view("abc").parent, "/moorage/abc");
    }

    #[test]
    fn on_v2_the_limits_are_out_of_reach() {
        let view = cgroups(Version::V2, Driver::Systemd).view("abc");
        assert_eq!(view.parent, "moorage-abc-in.slice");
        assert_eq!(view.writable, "/sys/fs/cgroup/moorage.slice/moorage-abc.slice/moorage-abc-in.slice");
        assert!(view.read_only.is_empty());
    }

    #[test]
    fn as_flags_it_is_what_a_person_could_type() {
        let flags = cgroups(Version::V1, Driver::Cgroupfs).view("abc").flags();
        assert_eq!(flags[..2], ["--cgroupns host", "--cgroup-parent /moorage/abc"]);
        assert!(flags.contains(
            &"-v /sys/fs/cgroup/systemd/moorage/abc:/sys/fs/cgroup/systemd/moorage/abc:rw".to_owned()
        ));
        assert_eq!(flags.last().unwrap(), "--tmpfs /sys/fs/cgroup/unified:ro");
    }
}
