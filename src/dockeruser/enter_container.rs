//! `enter-container`.

use std::convert::Infallible;
use std::io::Read as _;

use anyhow::{Context as _, Result};
use clap::builder::NonEmptyStringValueParser;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::api::frame::{self, Frame};
use crate::api::{Client, EnterRequest};
use crate::invocation::Invocation;
use crate::report::terminal::{self, Kept};
use crate::report::{Fault, Kind, Silent};

/// Open a shell in a container, or run a command there
///
/// On a terminal it is one inside too, with its size and every key. Elsewhere input, output, errors and signals are
/// passed through. The exit code is the command's.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage enter-container siem-9.2
  moorage enter-container siem-9.2 --user root
  moorage enter-container siem-9.2 -- journalctl -b --no-pager
  moorage enter-container --clones-of siem-9.2 -- uptime")]
pub struct Args {
    /// The container; your own also by its short name (siem-9.2)
    #[arg(required_unless_present = "clones_of", value_parser = NonEmptyStringValueParser::new(),
          add = super::complete::containers())]
    name: Option<String>,
    /// Run the command in all clones of this container, each line with the clone's name before it
    #[arg(long, value_name = "NAME", conflicts_with = "name", requires = "command",
          value_parser = NonEmptyStringValueParser::new(), add = super::complete::containers())]
    clones_of: Option<String>,
    /// Who to be inside; you (or the owner) where absent
    #[arg(long, short)]
    user: Option<String>,
    /// What to run instead of a login shell
    #[arg(last = true)]
    command: Vec<String>,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    if let Some(source) = &args.clones_of {
        return super::together::run(source, &args.command, args.user.as_deref(), invocation).await;
    }
    let name = args.name.unwrap_or_default();
    // Before anything is begun, so that no signal is lost.
    let signals = Signals::new()?;
    let client = Client::connect(&invocation.socket).await?;
    let size = terminal::size();
    let request = EnterRequest {
        command: args.command,
        user: args.user,
        terminal: size,
        env: environment(size.is_some()),
    };
    let connection = client.enter(&name, &request).await?;
    let (from, to) = tokio::io::split(connection);
    let kept = size.map(|_| Kept::now()).transpose()?;
    if let Some(kept) = &kept {
        kept.raw()?;
    }
    let ended = pass(from, to, signals, size.is_some()).await;
    drop(kept);
    match ended? {
        0 => Ok(()),
        code => Err(Silent(code).into()),
    }
}

/// What programs inside need to know of the terminal.
fn environment(terminal: bool) -> Vec<String> {
    let names: &[&str] = if terminal { &["TERM", "COLORTERM"] } else { &[] };
    names.iter().filter_map(|name| Some(format!("{name}={}", std::env::var(name).ok()?))).collect()
}

/// Passes everything both ways until the process inside has ended; returns its exit code.
async fn pass(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    signals: Signals,
    terminal: bool,
) -> Result<u8> {
    tokio::select! {
        code = show(from) => code,
        left = send(to, signals, terminal) => left,
    }
}

/// Writes what comes from inside, to its end.
async fn show(mut from: impl AsyncRead + Unpin) -> Result<u8> {
    let (mut out, mut err) = (tokio::io::stdout(), tokio::io::stderr());
    loop {
        match frame::read(&mut from).await.context("read from the daemon")? {
            Some(Frame::Output(bytes)) => write(&mut out, &bytes).await?,
            Some(Frame::ErrorOutput(bytes)) => write(&mut err, &bytes).await?,
            Some(Frame::Exit(code)) => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            Some(Frame::Failed(fault)) => return Err((*fault).into()),
            Some(other) => anyhow::bail!("the daemon sent {other:?}, which only a client sends"),
            None => {
                let what = "the daemon went away; what ran inside may have ended with it";
                return Err(Fault::new(Kind::Failed, what).next("moorage list-containers").into());
            }
        }
    }
}

async fn write(to: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> Result<()> {
    let written = async {
        to.write_all(bytes).await?;
        to.flush().await
    };
    match written.await {
        // The reader (`| head`) has had enough; closing the connection ends what runs inside.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Err(Silent(0).into()),
        other => other.context("write what comes from inside"),
    }
}

/// Sends input, sizes and signals. Only returns when the person's terminal goes away or the command is told to end.
async fn send(mut to: impl AsyncWrite + Unpin, signals: Signals, terminal: bool) -> Result<u8> {
    let Signals { mut ending, mut resized } = signals;
    let mut input = input();
    let mut open = true;
    loop {
        let frame = tokio::select! {
            bytes = input.recv(), if open => {
                let bytes = bytes.unwrap_or_default();
                open = !bytes.is_empty();
                Frame::Input(bytes)
            }
            number = ending.next() => match terminal {
                // The terminal inside is not ours: end, which closes it, as a lost connection would.
                true => return Ok(128 + number),
                false => Frame::Signal(number),
            },
            _ = resized.recv() => match terminal::size() {
                Some((columns, rows)) if terminal => Frame::Resize(columns, rows),
                _ => continue,
            },
        };
        if frame::write(&mut to, &frame).await.is_err() {
            // The other side has closed; what it said last is on its way through `show`.
            let never: Infallible = std::future::pending().await;
            match never {}
        }
    }
}

/// Reads stdin on a thread of its own; an empty chunk is its end. (A terminal cannot be read without blocking
/// unless it is changed for every process that shares it.)
fn input() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut chunk = vec![0; 16 << 10];
        loop {
            let count = match std::io::stdin().lock().read(&mut chunk) {
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other.unwrap_or(0),
            };
            if sender.blocking_send(chunk[..count].to_vec()).is_err() || count == 0 {
                return;
            }
        }
    });
    receiver
}

/// The signals that concern what runs inside.
struct Signals {
    ending: Ending,
    resized: Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        let listen = |kind| signal(kind).context("listen for signals");
        let ending = Ending {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
            quit: listen(SignalKind::quit())?,
        };
        Ok(Signals { ending, resized: listen(SignalKind::window_change())? })
    }
}

/// The signals that would end a process.
struct Ending {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Ending {
    /// The number of the next one.
    async fn next(&mut self) -> u8 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
            _ = self.quit.recv() => SignalKind::quit(),
        };
        u8::try_from(kind.as_raw_value()).unwrap_or_default()
    }
}
