//! What this host is like before anything is done.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::timeout;

use crate::api::client::Client;
use crate::engine::{Engine, Network};
use crate::report::{Fault, Kind};

use super::{Args, parent, site};

/// The files setup has to do with, all below one root.
#[derive(Debug, Clone)]
pub struct Host {
    root: PathBuf,
}

impl Host {
    pub fn at(root: &Path) -> Host {
        Host { root: root.to_owned() }
    }

    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// The text of a file, `None` where there is none.
    pub fn text(&self, absolute: &str) -> Result<Option<String>> {
        let path = self.path(absolute);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
        }
    }
}

/// One of the commands that are links to the binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Missing,
    Ours,
    /// Something else has that name.
    Foreign,
}

/// The Docker network, as far as it can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lan {
    /// The engine does not answer yet.
    Unknown,
    Absent,
    There(Network),
}

/// How `/usr/local/bin/moorage` compares with the program that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    Installed,
    Missing,
    Older,
}

/// What the host's configuration says of the things that setup sets, and where the store is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configured {
    pub parent: Option<String>,
    pub network: Option<String>,
    pub site: Option<String>,
    pub storage: Option<String>,
    pub vlan: Option<u16>,
    /// The kind of address that containers get.
    pub address: Option<String>,
}

impl Configured {
    pub fn read(text: &str) -> Result<Configured> {
        let table: toml::Table = text.parse().map_err(|e: toml::de::Error| {
            Fault::new(Kind::Usage, format!("{CONFIG} is no TOML"))
                .why(e.to_string().trim().to_owned())
                .next("correct it there, then run moorage setup again")
        })?;
        let value = |key: &str| table.get(key).and_then(|value| value.as_str()).map(str::to_owned);
        Ok(Configured {
            parent: value("parent"),
            network: value("network"),
            site: value("site"),
            storage: value("storage"),
            address: value("address"),
            vlan: table.get("vlan").and_then(|id| id.as_integer()).and_then(|id| id.try_into().ok()),
        })
    }
}

/// All that the plan depends on.
#[derive(Debug, Clone)]
pub struct Seen {
    pub systemd: bool,
    pub apt: bool,
    pub engine_installed: bool,
    pub engine_answers: bool,
    pub daemon_answers: bool,
    pub program: PathBuf,
    pub binary: Binary,
    /// The text of each file that setup writes, by its path; `None` where it is missing.
    pub files: BTreeMap<&'static str, Option<String>>,
    pub units_enabled: bool,
    pub links: BTreeMap<String, Link>,
    pub configured: Configured,
    /// Interfaces that could be parents.
    pub usable: Vec<String>,
    /// What is wrong with the parent that was asked for or is configured.
    pub parent_fault: Option<Fault>,
    pub site: site::Checkout,
    pub lan: Lan,
}

/// What setup writes, beside the links.
pub const CONFIG: &str = "/etc/moorage/config.toml";
pub const SPEC: &str = "/etc/docker/plugins/moorage.spec";
pub const SITE: &str = "/etc/moorage/site";
pub const PROGRAM: &str = "/usr/local/bin/moorage";
pub const UNITS: [&str; 3] = [
    "/etc/systemd/system/moorage.service",
    "/etc/systemd/system/moorage.socket",
    "/etc/systemd/system/moorage-plugin.socket",
];

pub async fn observe(host: &Host, args: &Args, links: &[&str]) -> Result<Seen> {
    let mut files = BTreeMap::new();
    for file in [CONFIG, SPEC].into_iter().chain(UNITS) {
        files.insert(file, host.text(file)?);
    }
    let configured = match files.get(CONFIG) {
        Some(Some(text)) => Configured::read(text)?,
        _ => Configured::default(),
    };
    let interfaces = host.path("/sys/class/net");
    let parent = args.parent.as_ref().or(configured.parent.as_ref());
    let program = std::env::current_exe().context("find the program that runs")?;
    let engine = Engine::of_this_host();
    let engine_answers = engine.ping().await.is_ok();
    let lan = match engine_answers {
        false => Lan::Unknown,
        true => engine.network(&args.network).await?.map_or(Lan::Absent, Lan::There),
    };
    Ok(Seen {
        systemd: host.path("/run/systemd/system").exists(),
        apt: host.path("/usr/bin/apt-get").exists(),
        engine_installed: ["/usr/sbin/dockerd", "/usr/bin/dockerd", "/usr/local/bin/dockerd"]
            .iter()
            .any(|path| host.path(path).exists()),
        engine_answers,
        daemon_answers: answers(Path::new(crate::api::SOCKET)).await,
        binary: binary(&host.path(PROGRAM), &program)?,
        program,
        files,
        units_enabled: host.path("/etc/systemd/system/sockets.target.wants/moorage.socket").is_symlink(),
        links: links.iter().map(|name| ((*name).to_owned(), link(host, name))).collect(),
        parent_fault: parent.and_then(|name| parent::check(&interfaces, name).err()),
        usable: parent::usable(&interfaces),
        configured,
        site: site::look(&host.path(SITE))?,
        lan,
    })
}

/// How long a daemon that listens may take to say who it is.
const ANSWER: Duration = Duration::from_secs(5);

/// Whether the moorage daemon answers on `socket`.
pub async fn answers(socket: &Path) -> bool {
    timeout(ANSWER, Client::connect(socket)).await.is_ok_and(|answer| answer.is_ok())
}

fn binary(installed: &Path, program: &Path) -> Result<Binary> {
    match (installed.canonicalize(), program.canonicalize()) {
        (Err(e), _) if e.kind() == ErrorKind::NotFound => Ok(Binary::Missing),
        (Ok(installed), Ok(program)) if installed == program => Ok(Binary::Installed),
        _ => {
            let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
            Ok(if read(installed)? == read(program)? { Binary::Installed } else { Binary::Older })
        }
    }
}

fn link(host: &Host, name: &str) -> Link {
    let path = host.path("/usr/local/bin").join(name);
    match (path.read_link(), path.symlink_metadata()) {
        (Ok(target), _) if target == Path::new("moorage") || target == Path::new(PROGRAM) => Link::Ours,
        (_, Err(e)) if e.kind() == ErrorKind::NotFound => Link::Missing,
        _ => Link::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nobody_listening_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!answers(&directory.path().join("socket")).await);
    }

    #[test]
    fn links_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let bin = root.path().join("usr/local/bin");
        fs::create_dir_all(&bin).unwrap();
        std::os::unix::fs::symlink("moorage", bin.join("list-containers")).unwrap();
        std::os::unix::fs::symlink("/bin/true", bin.join("show-logs")).unwrap();
        fs::write(bin.join("doctor"), "").unwrap();
        let host = Host::at(root.path());
        assert_eq!(link(&host, "list-containers"), Link::Ours);
        assert_eq!(link(&host, "show-logs"), Link::Foreign);
        assert_eq!(link(&host, "doctor"), Link::Foreign);
        assert_eq!(link(&host, "ssh-config"), Link::Missing);
    }

    #[test]
    fn the_configuration_is_read_and_a_broken_one_is_an_error() {
        let eth1 = Configured { parent: Some("eth1".into()), ..Configured::default() };
        assert_eq!(Configured::read("parent = \"eth1\"\n").unwrap(), eth1);
        assert_eq!(Configured::read("# nothing\n").unwrap(), Configured::default());
        assert!(Configured::read("parent = \n").is_err());
    }

    #[test]
    fn an_older_program_is_seen() {
        let root = tempfile::tempdir().unwrap();
        let (installed, program) = (root.path().join("installed"), root.path().join("program"));
        fs::write(&program, "new").unwrap();
        assert_eq!(binary(&installed, &program).unwrap(), Binary::Missing);
        fs::write(&installed, "old").unwrap();
        assert_eq!(binary(&installed, &program).unwrap(), Binary::Older);
        fs::write(&installed, "new").unwrap();
        assert_eq!(binary(&installed, &program).unwrap(), Binary::Installed);
    }
}
