//! One of the two servers, kept serving: connections are taken here and handed to the server's own process, which is started
//! again when it ends, and followed by another one when there is a new certificate. So nobody who pulls notices either: it is
//! told to end when nobody is connected to it any more, as it hangs up on whoever has not asked yet when it is told.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::configuration::PROGRAM;

/// How long a process that is followed by another one waits for those who are connected to it.
const LONGEST: Duration = Duration::from_secs(3600);
/// How long it goes on with what it is sending then.
const DRAIN: &str = "1h";
/// How long it goes on when all is to end.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// How long a connection waits for a process that is starting.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a socket is tried that may not be there yet: its program tells nobody when it opens it.
const RETRY: Duration = Duration::from_millis(20);
/// Before one is started again that has ended at once.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a connection on their way, in each direction.
const BUFFER: usize = 256 << 10;

/// Where connections go; nowhere while a process starts.
type Now = watch::Sender<Option<Open>>;

/// A process that listens, and all who are connected to it.
struct Open {
    socket: PathBuf,
    connections: TaskTracker,
}

/// Keeps the server with this configuration on `port`, until SIGTERM. SIGHUP: the configuration's certificate is a new one.
pub async fn keep(configuration: &Path, port: u16) -> Result<()> {
    let (mut hangup, mut end) = (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    let mut interrupt = signal(SignalKind::interrupt())?;
    let sockets = tempfile::Builder::new().prefix("moorage-registry-").tempdir_in("/run");
    let sockets = sockets.context("make a directory for the server's socket")?;
    let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
        Ok(listener) => listener,
        // A host without IPv6.
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
            .await
            .with_context(|| format!("listen on port {port}"))?,
    };
    let (now, at) = watch::channel(None);
    let taking = tokio::spawn(take(listener, at));
    let mut process = Process::start(configuration, sockets.path(), &now).await?;
    let (mut former, ending) = (JoinSet::new(), CancellationToken::new());
    loop {
        tokio::select! {
            status = process.child.wait() => {
                tracing::warn!("{PROGRAM} has ended ({}), and is started again", status?);
                now.send_replace(None);
                process = again(configuration, sockets.path(), &now, process.since).await?;
            }
            _ = hangup.recv() => {
                // What serves now goes on where the next one does not start.
                match Process::start(configuration, sockets.path(), &now).await {
                    Ok(next) => {
                        let last = std::mem::replace(&mut process, next);
                        former.spawn(last.retire(ending.clone()));
                        tracing::info!("another process serves, with the certificate as it is now");
                    }
                    Err(error) => tracing::error!("the process that serves stays: {error:#}"),
                }
            }
            Some(_) = former.join_next() => {}
            _ = end.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    taking.abort();
    process.tell(Signal::TERM);
    ending.cancel();
    // What is left after this ends with us.
    let all = async {
        let _ = process.child.wait().await;
        while former.join_next().await.is_some() {}
    };
    let _ = timeout(LAST_WORDS, all).await;
    Ok(())
}

/// Starts the process again, as often as it takes.
async fn again(configuration: &Path, sockets: &Path, now: &Now, mut since: Instant) -> Result<Process> {
    let mut end = signal(SignalKind::terminate())?;
    loop {
        if since.elapsed() < PAUSE {
            tokio::select! {
                () = sleep(PAUSE) => {}
                _ = end.recv() => bail!("told to end while {PROGRAM} did not start"),
            }
        }
        since = Instant::now();
        match Process::start(configuration, sockets, now).await {
            Ok(process) => return Ok(process),
            Err(error) => tracing::error!("{error:#}"),
        }
    }
}

struct Process {
    child: Child,
    since: Instant,
    connections: TaskTracker,
}

impl Process {
    /// Starts one that listens on a socket of its own, waits until it does, and sends it all connections from now on.
    async fn start(configuration: &Path, sockets: &Path, now: &Now) -> Result<Process> {
        let since = Instant::now();
        let socket = sockets.join(format!("{:x}", rand::random::<u64>()));
        // It ends with us, however we end.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", PROGRAM, "serve"])
            .arg(configuration)
            .env("REGISTRY_HTTP_NET", "unix")
            .env("REGISTRY_HTTP_ADDR", &socket)
            .env("REGISTRY_HTTP_DRAINTIMEOUT", DRAIN)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn();
        let child = child.with_context(|| format!("start {PROGRAM}"))?;
        let mut process = Process { child, since, connections: TaskTracker::new() };
        while UnixStream::connect(&socket).await.is_err() {
            if let Ok(ended) = timeout(RETRY, process.child.wait()).await {
                bail!("{PROGRAM} has ended at once: {}", ended?);
            }
            if since.elapsed() > PATIENCE {
                bail!("{PROGRAM} does not listen after {} s", PATIENCE.as_secs());
            }
        }
        now.send_replace(Some(Open { socket, connections: process.connections.clone() }));
        Ok(process)
    }

    /// Ends it once nobody is connected to it, to which nobody connects any more.
    async fn retire(mut self, ending: CancellationToken) {
        self.connections.close();
        tokio::select! {
            () = self.connections.wait() => {}
            () = sleep(LONGEST) => {}
            () = ending.cancelled() => {}
        }
        self.tell(Signal::TERM);
        let _ = self.child.wait().await;
    }

    fn tell(&self, signal: Signal) {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
        if let Some(pid) = pid {
            let _ = kill_process(pid, signal);
        }
    }
}

/// Takes connections and hands them on.
async fn take(listener: TcpListener, at: watch::Receiver<Option<Open>>) {
    loop {
        match listener.accept().await {
            // Those that are there outlive this: what is being sent is sent to the end.
            Ok((client, _)) => drop(tokio::spawn(hand_on(client, at.clone()))),
            // Too many files are open, for instance.
            Err(error) => {
                tracing::warn!("a connection could not be taken: {error}");
                sleep(RETRY).await;
            }
        }
    }
}

async fn hand_on(mut client: TcpStream, mut at: watch::Receiver<Option<Open>>) {
    let _ = client.set_nodelay(true);
    let connect = async {
        loop {
            let (socket, connected) = {
                // No other process follows it while this is borrowed.
                let now = at.wait_for(Option::is_some).await.ok()?;
                let open = now.as_ref()?;
                (open.socket.clone(), open.connections.token())
            };
            if let Ok(server) = UnixStream::connect(&socket).await {
                return Some((server, connected));
            }
            // It has just ended, which is not known yet.
            sleep(RETRY).await;
        }
    };
    if let Ok(Some((mut server, _connected))) = timeout(PATIENCE, connect).await {
        // Either side may go away at any time.
        let _ = copy_bidirectional_with_sizes(&mut client, &mut server, BUFFER, BUFFER).await;
    }
}
