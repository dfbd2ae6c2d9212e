//! This host: `/etc/moorage/config.toml`. The CLI takes defaults from it; the daemon checks every request against it.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::text::Source;
use crate::report::{Fault, Kind};
use crate::spec::network::{ConflictCheck, OnTimeout};
use crate::spec::{Addressing, ByteSize, Limits, MacPrefix, Owner};

/// Where the settings of a host are.
pub const CONFIG: &str = "/etc/moorage/config.toml";

/// The settings of one host. docs/site.md lists the keys for people.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostConfig {
    /// The interface the containers' macvlan links hang on; absent until `setup` chose one.
    pub parent: Option<String>,
    /// The VLAN of `parent` they hang on; absent: untagged.
    pub vlan: Option<u16>,
    /// The Docker network containers hang on.
    pub network: String,
    /// Where people find their containers' files.
    pub storage: PathBuf,
    /// The site's directory, unless `--site` names another.
    pub site: Option<PathBuf>,
    /// What image names without a `/` are prefixed with, e.g. `registry.corp:5000`; absent: local images, `moorage/…`.
    pub registry: Option<String>,
    /// Who may do everything: persons and `@groups`.
    pub admins: Vec<Owner>,
    /// Host directories below which a path may be mounted into a container.
    pub mounts: Vec<PathBuf>,
    /// Host directories below which a `file://` archive may lie.
    pub archives: Vec<PathBuf>,
    /// The most that archives which no container needs may take; absent: they stay until somebody removes them.
    pub cache: Option<ByteSize>,
    /// Registries images may come from, beside `registry`; local `moorage/…` images always may.
    pub registries: Vec<String>,
    /// The registry that is told, every hour, what this host uses of it: where publishers push, as root is logged in there.
    pub in_use_to: Option<String>,
    /// Capabilities a project may ask for beyond the default ones, without `CAP_`.
    pub capabilities: Vec<String>,
    pub limits: HostLimits,
    /// The control group that all containers are below.
    pub cgroup: String,
    /// How long to wait for an answer of the LAN's DHCP server, seconds.
    pub dhcp_timeout: u32,
    /// What a container's start does then.
    pub on_timeout: OnTimeout,
    /// When an address is checked for another machine that uses it.
    pub conflict_check: ConflictCheck,
    /// How containers come by their addresses that ask for nothing else: `dhcp`, `nat` or `none`.
    pub address: Addressing,
    /// What the MACs begin with that moorage gives to containers; for LANs that know only registered ones.
    pub mac_prefix: MacPrefix,
}

/// What a container gets when it asks for nothing, and the most it may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostLimits {
    pub default: Limits,
    pub max: Limits,
}

/// Processes and threads of a container that asks for no limit: enough for a product, too few to take the host down.
const DEFAULT_PIDS: u32 = 8192;

impl Default for HostLimits {
    fn default() -> Self {
        HostLimits {
            default: Limits { pids: Some(DEFAULT_PIDS), ..Limits::default() },
            max: Limits::default(),
        }
    }
}

impl Default for HostConfig {
    fn default() -> Self {
        HostConfig {
            parent: None,
            vlan: None,
            network: "lan".into(),
            storage: "/opt/containers".into(),
            site: None,
            registry: None,
            admins: Vec::new(),
            mounts: Vec::new(),
            archives: vec!["/usr/local/share/moorage".into()],
            cache: None,
            registries: Vec::new(),
            in_use_to: None,
            capabilities: Vec::new(),
            limits: HostLimits::default(),
            cgroup: "moorage".into(),
            dhcp_timeout: 10,
            on_timeout: OnTimeout::default(),
            conflict_check: ConflictCheck::default(),
            address: Addressing::default(),
            mac_prefix: MacPrefix::default(),
        }
    }
}

impl HostConfig {
    /// Reads `path`; a missing file means the defaults.
    pub fn load(path: &Path) -> Result<HostConfig, Fault> {
        match std::fs::File::open(path) {
            Ok(file) => HostConfig::read(path, file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(HostConfig::default()),
            Err(e) => Err(unreadable(path, &e)),
        }
    }

    /// The same for the daemon, which believes only what root alone can write: the file and its directory must belong to
    /// root and be writable by nobody else ([`Kind::Denied`] otherwise).
    pub fn load_trusted(path: &Path) -> Result<HostConfig, Fault> {
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(HostConfig::default()),
            Err(e) => return Err(unreadable(path, &e)),
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        let above = std::fs::metadata(directory).map_err(|e| unreadable(directory, &e))?;
        let own = file.metadata().map_err(|e| unreadable(path, &e))?;
        for (checked, metadata) in [(directory, above), (path, own)] {
            if metadata.uid() != 0 || metadata.mode() & 0o022 != 0 {
                return Err(Fault::new(
                    Kind::Denied,
                    format!(
                        "{} can be written by others than root, so it is not believed",
                        checked.display()
                    ),
                )
                .next(format!("chown root {0} && chmod go-w {0}", checked.display())));
            }
        }
        HostConfig::read(path, file)
    }

    fn read(path: &Path, mut file: std::fs::File) -> Result<HostConfig, Fault> {
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(|e| unreadable(path, &e))?;
        HostConfig::parse(&Source { origin: path.display().to_string(), text })
    }

    fn parse(source: &Source) -> Result<HostConfig, Fault> {
        let mut config: HostConfig = source.parse()?;
        config.limits.default.pids.get_or_insert(DEFAULT_PIDS);
        let wrong = |key: &str, why: String| {
            Fault::new(Kind::Usage, format!("{}: {key}: {why}", source.origin))
                .next("an admin has to correct it there")
        };
        let absolute = |path: &&PathBuf| {
            !path.is_absolute() || path.components().any(|c| c == std::path::Component::ParentDir)
        };
        let roots = [("mounts", &config.mounts), ("archives", &config.archives)];
        let paths = roots.iter().flat_map(|(key, paths)| paths.iter().map(move |path| (*key, path)));
        let single = [("storage", Some(&config.storage)), ("site", config.site.as_ref())];
        let single = single.into_iter().filter_map(|(key, path)| path.map(|path| (key, path)));
        if let Some((key, path)) = paths.chain(single).find(|(_, path)| absolute(path)) {
            return Err(wrong(key, format!("{} is not an absolute path without `..`", path.display())));
        }
        for (key, limits) in [("limits.default", &config.limits.default), ("limits.max", &config.limits.max)]
        {
            plausible(limits).map_err(|why| wrong(key, why))?;
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || "_/-".contains(c);
        if config.cgroup.is_empty() || !config.cgroup.chars().all(plain) || config.cgroup.starts_with('/') {
            return Err(wrong("cgroup", format!("{:?} is not the name of a control group", config.cgroup)));
        }
        if config.dhcp_timeout == 0 {
            return Err(wrong("dhcp_timeout", "0 seconds are too short for an answer".into()));
        }
        if let Some(id) = config.vlan.filter(|id| !(1..=4094).contains(id)) {
            return Err(wrong("vlan", format!("{id} is not a VLAN: 1 to 4094")));
        }
        if let Addressing::Static(fixed) = config.address {
            return Err(wrong(
                "address",
                format!("{fixed} can be one container's only: here is dhcp, nat or none"),
            ));
        }
        Ok(config)
    }
}

/// Whether the engine and the kernel can make sense of the values.
pub(crate) fn plausible(limits: &Limits) -> Result<(), String> {
    if let Some(weight) = limits.cpu_weight.filter(|w| !(1..=10_000).contains(w)) {
        return Err(format!("a cpu_weight is 1 to 10000, not {weight}"));
    }
    // Docker refuses less than 6 MB.
    if let Some(memory) = limits.memory.filter(|m| m.0 < 6 << 20) {
        return Err(format!("{memory} of memory are too little to start anything"));
    }
    match limits.pids {
        Some(0) => Err("0 pids are too few to start anything".into()),
        _ => Ok(()),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Fault {
    let kind = match error.kind() {
        std::io::ErrorKind::PermissionDenied => Kind::Denied,
        _ => Kind::Failed,
    };
    Fault::new(kind, format!("{} cannot be read", path.display()))
        .why(error.to_string())
        .next(format!("ls -la {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<HostConfig, Fault> {
        HostConfig::parse(&Source { origin: "config.toml".into(), text: text.into() })
    }

    #[test]
    fn nothing_means_the_defaults() {
        assert_eq!(HostConfig::load(Path::new("/nonexistent/config.toml")).unwrap(), HostConfig::default());
        assert_eq!(parse("").unwrap(), HostConfig::default());
        assert_eq!(parse("[limits.default]\nmemory = '1GB'").unwrap().limits.default.pids, Some(8192));
    }

    #[test]
    fn every_key_is_read() {
        let text = r#"
            parent = "eth0"
            vlan = 120
            network = "office"
            storage = "/srv/containers"
            site = "/srv/site"
            registry = "registry.corp:5000"
            admins = ["ann", "@ops"]
            mounts = ["/data"]
            archives = ["/srv/opt"]
            cache = "200GB"
            registries = ["other.corp"]
            in_use_to = "registry.corp:5001"
            capabilities = ["NET_ADMIN"]
            dhcp_timeout = 20
            on_timeout = "fail"
            conflict_check = "before"
            address = "nat"
            mac_prefix = "02:5e:10"
            [limits.default]
            memory = "8GiB"
            [limits.max]
            cpu_weight = 1000
            memory = "32GiB"
            pids = 16384
        "#;
        insta::assert_debug_snapshot!(parse(text).unwrap());
    }

    #[test]
    fn mistakes_say_where() {
        let messages: Vec<String> = [
            "parnet = 'eth0'",
            "mounts = ['data']",
            "mounts = '/data'",
            "admins = ['@']",
            "[limits.max]\nmemory = 'much'",
            "[limits.max]\nmemory = '1MB'",
            "[limits.maximum]",
            "dhcp_timeout = 0",
            "mac_prefix = '01:00'",
            "vlan = 4095",
            "address = 'wifi'",
            "address = '10.0.0.5/24'",
            "network = ",
        ]
        .iter()
        .map(|text| parse(text).unwrap_err().what)
        .collect();
        insta::assert_debug_snapshot!(messages);
    }

    #[test]
    fn the_daemon_believes_only_root() {
        use std::os::unix::fs::PermissionsExt as _;
        assert!(rustix::process::geteuid().is_root(), "this test gives files away and needs root");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        std::fs::write(&path, "network = 'x'").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&path, 0o644);
        assert_eq!(HostConfig::load_trusted(&path).unwrap().network, "x");
        mode(&path, 0o664);
        assert_eq!(HostConfig::load_trusted(&path).unwrap_err().kind, Kind::Denied);
        mode(&path, 0o644);
        mode(directory.path(), 0o777);
        assert_eq!(HostConfig::load_trusted(&path).unwrap_err().kind, Kind::Denied);
        mode(directory.path(), 0o755);
        std::os::unix::fs::chown(&path, Some(1), None).unwrap();
        assert_eq!(HostConfig::load_trusted(&path).unwrap_err().kind, Kind::Denied);
    }
}
