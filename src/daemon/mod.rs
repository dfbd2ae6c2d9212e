//! The one root daemon: drivers for Docker on one socket, operations for people on the other.
//!
//! It is not in the data path: stopping it disturbs no running container.

mod begun;
mod clones;
mod doctor;
mod enter;
mod events;
mod given_up;
mod handed_on;
mod in_use;
mod limits;
mod listen;
mod logs;
mod memory;
mod operations;
mod permit;
mod plugin;
mod published;
mod recover;
mod routes;
mod serve;
mod snapshots;
mod store;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::fs::Mode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::container::{self, Host};
use crate::engine::Engine;
use crate::lan::{self, Lan};
use crate::oci::Access;
use crate::opt::{self, Store};
use crate::report::{Fault, Kind};
use crate::site::host::HostConfig;
use crate::state::Records;

use operations::Operations;

/// How long operations in progress may take to undo themselves when the daemon is told to end.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Run the daemon in the foreground
///
/// Serves people on /run/moorage/api.sock and dockerd on /run/moorage/plugin.sock. systemd starts it through its
/// sockets; elsewhere `moorage setup` starts it in the background.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The host's configuration
    #[arg(long, default_value = "/etc/moorage/config.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Where records are kept
    #[arg(long, default_value = "/var/lib/moorage", value_name = "DIR")]
    pub state: PathBuf,
    /// Where the sockets are made
    #[arg(long, default_value = "/run/moorage", value_name = "DIR")]
    pub run: PathBuf,
}

/// What the handlers of people's requests share.
pub(crate) struct App {
    pub host: Host,
    pub operations: Operations,
}

/// Runs until SIGTERM or SIGINT.
pub fn run(args: &Args) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Err(Fault::new(Kind::Denied, "the daemon has to run as root")
            .next("sudo moorage daemon")
            .into());
    }
    // journald adds times and colours of its own; elsewhere the log is a plain file.
    let filter = tracing_subscriber::EnvFilter::try_from_env("MOORAGE_LOG").unwrap_or_else(|_| "info".into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    match std::env::var_os("JOURNAL_STREAM") {
        Some(_) => log.without_time().init(),
        None => log.init(),
    }
    memory::few_arenas();
    // People reach sockets, logs and views, whatever whoever starts the daemon wants their own files to be.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    // Two workers serve a whole host, and every thread costs memory for good.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        // For what is short whatever happens; all else has threads of its own (`apart`).
        .max_blocking_threads(64)
        .thread_keep_alive(Duration::from_secs(2))
        .enable_all()
        .build()
        .context("start the runtime")?;
    let ended = runtime.block_on(serve(args));
    // A walk through a tree, or a dead server's file, may go on for hours, and nobody waits for it any more.
    runtime.shutdown_background();
    ended
}

/// Records hold host keys and licences: nobody but root enters their directory, whoever made it.
fn private(state: &Path) -> Result<()> {
    std::fs::create_dir_all(state)
        .and_then(|()| std::fs::set_permissions(state, Permissions::from_mode(0o700)))
        .with_context(|| format!("make {} private", state.display()))
}

async fn serve(args: &Args) -> Result<()> {
    let _lock = listen::only_one(&args.run)?;
    serve::more_descriptors();
    private(&args.state)?;
    let config = HostConfig::load_trusted(&args.config)?;
    // The drivers answer dockerd at once; what they had in hand is adopted while they do.
    let lan = Lan::start(lan::Config {
        state: args.state.clone(),
        dhcp_timeout: Duration::from_secs(config.dhcp_timeout.into()),
        on_timeout: config.on_timeout,
        conflict_check: config.conflict_check,
        ..lan::Config::new(&args.state)
    })
    .await?;
    let opt = Store::open(opt::Config {
        storage: config.storage.clone(),
        state: args.state.clone(),
        archive_roots: config.archives.clone(),
        mount_roots: config.mounts.clone(),
        docker: Access::of_docker(),
    })?;
    let app = Arc::new(App {
        host: Host {
            records: Records::open(args.state.join("containers"))?,
            images: Records::open(args.state.join("images"))?,
            snapshots: Records::open(args.state.join("snapshots"))?,
            held_roots: Default::default(),
            walks: Default::default(),
            host_id: container::host_id(&args.state)?,
            engine: Engine::of_this_host(),
            lan: lan.clone(),
            opt: opt.clone(),
            leftovers: tokio::sync::Notify::new(),
            limits_changed: tokio::sync::watch::Sender::new(()),
            config,
        },
        operations: Operations::default(),
    });
    let stop = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let sockets = listen::sockets(&args.run)?;
    let drivers = plugin::router(&lan, &opt);
    let people = routes::router(app.clone());
    let serving = [
        tokio::spawn(serve::drivers(sockets.plugin, drivers, stop.clone())),
        tokio::spawn(serve::people(sockets.api, people, app.clone(), stop.clone())),
    ];
    let recovery = tokio::spawn(recover::recover(app.clone(), stop.clone()));
    let starting = tokio::spawn(given_up::start(app.clone(), stop.clone()));
    let telling = tokio::spawn(in_use::tell(app.clone(), stop.clone()));
    let handing = tokio::spawn(handed_on::keep(app.clone(), stop.clone()));
    let limiting = tokio::spawn(limits::keep(app.clone(), stop.clone()));
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    // Not waited for: dockerd is, by everybody, and a removal that was interrupted may be of hundreds of gigabytes.
    let left = std::thread::Builder::new().name("discard".into()).spawn(move || opt.remove_left());
    left.context("start a thread")?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), run = %args.run.display(), "moorage is up");

    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    tracing::info!("ending; containers go on running");
    stop.cancel();
    app.operations.cancel_all();
    if tokio::time::timeout(LAST_WORDS, app.operations.all_ended()).await.is_err() {
        tracing::warn!("operations in progress did not end; they are undone at the next start");
    }
    recovery.abort();
    starting.abort();
    telling.abort();
    handing.abort();
    limiting.abort();
    serving.iter().for_each(tokio::task::JoinHandle::abort);
    listen::close(&sockets.made);
    Ok(())
}
