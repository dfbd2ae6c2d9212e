//! Running a verb so that Ctrl-C always works.

use std::future::Future;

use anyhow::{Context as _, Result, anyhow};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

fn runtime() -> Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("start the runtime")
}

/// Runs a verb that handles signals itself.
pub fn alone(work: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = runtime()?;
    let result = runtime.block_on(work);
    // A thread may still be reading stdin.
    runtime.shutdown_background();
    result
}

/// Runs a verb on a thread of its own. The first SIGINT, SIGTERM or SIGHUP drops its future, which closes its
/// connection to the daemon, and the result is `interrupted`; the second does not wait for a verb that is in the
/// middle of something.
pub fn stoppable<W, F>(interrupted: anyhow::Error, work: W) -> Result<()>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<()>>,
{
    let cancelled = CancellationToken::new();
    let cancel = cancelled.clone();
    run(interrupted, cancel, async move || {
        tokio::select! {
            biased;
            result = work() => Some(result),
            () = cancelled.cancelled() => None,
        }
    })
}

/// The same for a verb that ends in good order by itself when the first signal sets `cancel`.
pub fn graceful<W, F>(interrupted: anyhow::Error, cancel: CancellationToken, work: W) -> Result<()>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = Result<()>>,
{
    run(interrupted, cancel, async move || Some(work().await))
}

fn run<W, F>(interrupted: anyhow::Error, cancel: CancellationToken, work: W) -> Result<()>
where
    W: FnOnce() -> F + Send + 'static,
    F: Future<Output = Option<Result<()>>>,
{
    let (done, mut outcome) = oneshot::channel::<Option<Result<()>>>();
    let verb = move || {
        let result = runtime().map(|runtime| {
            let result = runtime.block_on(work());
            runtime.shutdown_background();
            result
        });
        let _ = done.send(result.unwrap_or_else(|error| Some(Err(error))));
    };
    runtime()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        std::thread::Builder::new().name("verb".into()).spawn(verb).context("start a thread")?;
        loop {
            tokio::select! {
                ended = &mut outcome => return match ended {
                    Ok(Some(result)) => result,
                    Ok(None) => Err(interrupted),
                    Err(_) => Err(anyhow!("the verb ended in a panic, which is a mistake in moorage")),
                },
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            if cancel.is_cancelled() {
                return Err(interrupted);
            }
            cancel.cancel();
        }
    })
}
