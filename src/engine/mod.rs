//! The Docker Engine in our words and types. Nobody else speaks to it.
//!
//! dockerd calls our drivers while it serves us, so `lan` and `opt` must never come here.

mod cgroup;
mod changes;
mod container;
mod disk;
mod down;
mod exec;
mod files;
mod image;
mod import;
mod network;
mod process;
mod push;
mod root;
mod starts;
mod trial;
mod unfinished;
mod used;
mod whole;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bollard::Docker;
use bollard::errors::Error;
use tokio::sync::{Mutex, OnceCell};

use crate::report::{Fault, Kind};

pub use cgroup::{Cgroups, Driver, Version, View};
pub use container::{Create, Found, Init, Names, Place, Volume};
pub use disk::{Disk, disks_of};
pub use down::Incarnation;
pub use exec::{Exec, Piece, Session, SessionInput, SessionOutput};
pub use files::{File, Layers};
pub use image::{Image, ImageFacts, PROBE};
pub use import::Taken;
pub use network::{InUse, Network};
pub use process::Process;
pub use push::Pushing;
pub use root::{Change, ROOTS, root_image};

/// The label of everything in Docker that is ours; its value is the record's id.
pub const LABEL: &str = "moorage.id";
/// The name our network and volume drivers have in Docker.
pub const DRIVER: &str = "moorage";

/// Seconds one request may take until its answer begins. Stopping a container waits for its init.
const TIMEOUT: u64 = 300;
/// For a request that is answered once the disk has done all of it. An engine that goes away ends it at once.
const WHOLE_DISK: Duration = Duration::from_secs(7 * 24 * 3600);

/// What an engine says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    pub version: String,
    /// Whether containers go on running while it is away.
    pub live_restore: bool,
    /// Where images and containers are.
    pub root: PathBuf,
}

/// A connection to one engine. Connects when it is first used, so that the daemon can start before dockerd.
#[derive(Debug)]
pub struct Engine {
    socket: PathBuf,
    docker: OnceCell<Docker>,
    /// Version and driver of the control groups; an engine has to be restarted to change them, and the host for one.
    groups: OnceCell<(Version, Driver)>,
    /// Held while an image is looked into, or a file of one is read.
    probing: Mutex<()>,
}

impl Engine {
    pub fn new(socket: impl Into<PathBuf>) -> Engine {
        Engine {
            socket: socket.into(),
            docker: OnceCell::new(),
            groups: OnceCell::new(),
            probing: Mutex::default(),
        }
    }

    /// The engine of this host: `DOCKER_HOST` where it names a unix socket, else Docker's default.
    pub fn of_this_host() -> Engine {
        let named = std::env::var("DOCKER_HOST").ok();
        let socket = named.as_deref().and_then(|host| host.strip_prefix("unix://"));
        Engine::new(socket.unwrap_or("/var/run/docker.sock"))
    }

    /// The client, at an API version that both sides speak.
    pub async fn docker(&self) -> Result<&Docker> {
        self.docker.get_or_try_init(|| async { connect(&self.socket).await }).await
    }

    /// How the engine arranges control groups; all of ours are below `root`.
    pub async fn cgroups(&self, root: &str) -> Result<Cgroups> {
        let (version, driver) = *self.groups.get_or_try_init(|| self.ask_groups()).await?;
        let mountinfo =
            std::fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        Ok(Cgroups { version, driver, root: root.to_owned(), hierarchies: Cgroups::hierarchies(&mountinfo) })
    }

    async fn ask_groups(&self) -> Result<(Version, Driver)> {
        let info = self.docker().await?.info().await;
        let info = info.map_err(|e| fault(e, "ask the Docker Engine how it is set up"))?;
        let says = |value: Option<String>, text: &str| value.is_some_and(|value| value == text);
        let version = match says(info.cgroup_version.map(|version| version.to_string()), "2") {
            true => Version::V2,
            false => Version::V1,
        };
        let driver = match says(info.cgroup_driver.map(|driver| driver.to_string()), "systemd") {
            true => Driver::Systemd,
            false => Driver::Cgroupfs,
        };
        Ok((version, driver))
    }

    /// What the engine says of itself.
    pub async fn about(&self) -> Result<About> {
        let info = self.docker().await?.info().await;
        let info = info.map_err(|e| fault(e, "ask the Docker Engine what it is"))?;
        Ok(About {
            version: info.server_version.unwrap_or_default(),
            live_restore: info.live_restore_enabled.unwrap_or_default(),
            root: info.docker_root_dir.unwrap_or_else(|| "/var/lib/docker".to_owned()).into(),
        })
    }

    /// Answers when the engine does.
    pub async fn ping(&self) -> Result<()> {
        self.docker()
            .await?
            .ping()
            .await
            .map_err(|e| fault(e, "ask the Docker Engine whether it is there"))?;
        Ok(())
    }
}

async fn connect(socket: &Path) -> Result<Docker> {
    let open = || async {
        let path = socket.to_string_lossy();
        Docker::connect_with_unix(&path, TIMEOUT, bollard::API_DEFAULT_VERSION)?.negotiate_version().await
    };
    open().await.map_err(|e| absent(socket).why(e.to_string()).into())
}

fn absent(socket: &Path) -> Fault {
    Fault::new(Kind::Missing, format!("the Docker Engine does not answer on {}", socket.display()))
        .next(how_to_start())
}

fn how_to_start() -> &'static str {
    match Path::new("/run/systemd/system").exists() {
        true => "systemctl start docker",
        false => "start dockerd, for example: moorage setup",
    }
}

/// What Docker answered, as a fault about `doing`.
fn fault(error: Error, doing: impl Into<String>) -> Fault {
    let doing = doing.into();
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            let kind = match status_code {
                404 => Kind::NotFound,
                403 => Kind::Denied,
                _ => Kind::Failed,
            };
            Fault::new(kind, format!("cannot {doing}"))
                .why(message.trim().to_owned())
                .next("when what the Docker Engine says is mended, run the same command again")
        }
        Error::RequestTimeoutError => Fault::new(Kind::TimedOut, format!("cannot {doing}"))
            .why("the Docker Engine did not answer in time")
            .next("see what dockerd is busy with, then run the same command again"),
        // It was there when we connected first, and is not now.
        Error::HyperLegacyError { err } if err.is_connect() => {
            Fault::new(Kind::Missing, "the Docker Engine does not answer")
                .why(format!("cannot {doing}"))
                .next(how_to_start())
        }
        Error::HyperLegacyError { .. } | Error::SocketNotFoundError(_) | Error::HyperResponseError { .. } => {
            Fault::new(Kind::Missing, format!("cannot {doing}"))
                .why(format!("the Docker Engine went away: {error}"))
                .next("check dockerd, then run the same command again")
        }
        other => Fault::new(Kind::Failed, format!("cannot {doing}"))
            .why(other.to_string())
            .next("read dockerd's log, then run the same command again"),
    }
}

/// `Ok(None)` for "there is no such thing", which is not the same as "cannot tell".
fn found<T>(answer: Result<T, Error>, doing: impl Into<String>) -> Result<Option<T>> {
    match answer {
        Ok(thing) => Ok(Some(thing)),
        Err(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
        Err(error) => Err(fault(error, doing).into()),
    }
}
