//! What is in progress: one operation a container at a time, each of which can be cancelled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::api::SourceDone;
use crate::container::record::random_hex;
use crate::report::{Fault, Kind};

/// The daemon's own operation: undoing or finishing what was interrupted.
pub const RECOVERY: &str = "recovery";
/// A container's state is being taken: it is over in seconds.
pub const CLONE: &str = "clone";
/// How long a command waits for an earlier one to be undone: an engine may take its time to stop a container.
const PATIENCE: Duration = Duration::from_secs(60);

/// All operations in progress, by container name.
#[derive(Clone)]
pub struct Operations {
    running: Arc<Mutex<HashMap<String, Running>>>,
    count: Arc<watch::Sender<usize>>,
}

impl Default for Operations {
    fn default() -> Self {
        Operations { running: Arc::default(), count: Arc::new(watch::Sender::new(0)) }
    }
}

struct Running {
    id: String,
    uid: u32,
    verb: &'static str,
    cancel: CancellationToken,
    staged: Option<oneshot::Sender<SourceDone>>,
}

impl Running {
    /// Whether it is on its way back to nothing, or soon over.
    fn is_ending(&self) -> bool {
        self.cancel.is_cancelled() || [RECOVERY, CLONE].contains(&self.verb)
    }
}

/// One operation; ends when dropped.
pub struct Operation {
    operations: Operations,
    name: String,
    pub id: String,
    pub cancel: CancellationToken,
    staged: Option<oneshot::Receiver<SourceDone>>,
}

impl Operation {
    /// Where the client's word that its checkout is there will arrive. A second taker hears that nobody will say it.
    pub fn take_staged(&mut self) -> oneshot::Receiver<SourceDone> {
        self.staged.take().unwrap_or_else(|| oneshot::channel().1)
    }
}

impl Operations {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins `verb` on container `name`. Waits while an earlier operation there is being undone, so that the same
    /// command, typed again after an interruption, goes on from a clean state; a fault when another is in progress.
    pub async fn begin(&self, name: &str, verb: &'static str, uid: u32) -> Result<Operation, Fault> {
        let mut count = self.count.subscribe();
        let undone = async {
            while self.lock().get(name).is_some_and(Running::is_ending) {
                if count.changed().await.is_err() {
                    return;
                }
            }
        };
        // Past that the fault below says what is in the way.
        let _ = tokio::time::timeout(PATIENCE, undone).await;
        self.begin_now(name, verb, uid)
    }

    /// The same without waiting.
    pub fn begin_now(&self, name: &str, verb: &'static str, uid: u32) -> Result<Operation, Fault> {
        let mut running = self.lock();
        if let Some(other) = running.get(name) {
            return Err(Fault::new(Kind::Failed, format!("{name} is busy: {} is in progress", other.verb))
                .next("wait until it has ended, then run the same command again"));
        }
        let (send, staged) = oneshot::channel();
        let (id, cancel) = (random_hex::<8>(), CancellationToken::new());
        let entry = Running { id: id.clone(), uid, verb, cancel: cancel.clone(), staged: Some(send) };
        running.insert(name.to_owned(), entry);
        self.count.send_replace(running.len());
        Ok(Operation { operations: self.clone(), name: name.to_owned(), id, cancel, staged: Some(staged) })
    }

    /// The verb in progress on `name`.
    pub fn verb(&self, name: &str) -> Option<String> {
        self.lock().get(name).map(|running| running.verb.to_owned())
    }

    /// Hands on that the checkout of operation `id` is there; only to the one who began it.
    pub fn staged(&self, id: &str, uid: u32, done: SourceDone) -> Result<(), Fault> {
        let mut running = self.lock();
        let own = running.values_mut().find(|running| running.id == id && running.uid == uid);
        match own.and_then(|running| running.staged.take()) {
            Some(sender) => sender.send(done).map_err(|_| ()),
            None => Err(()),
        }
        .map_err(|()| {
            Fault::new(Kind::NotFound, format!("operation {id} does not wait for sources"))
                .next("run the whole command again")
        })
    }

    /// Cancels operation `id`; only for the one who began it. It goes on to undo itself, and says so to its client.
    pub fn cancel(&self, id: &str, uid: u32) -> Result<(), Fault> {
        let running = self.lock();
        match running.values().find(|running| running.id == id && running.uid == uid) {
            Some(running) => {
                running.cancel.cancel();
                Ok(())
            }
            None => {
                Err(Fault::new(Kind::NotFound, format!("operation {id} is over"))
                    .next("moorage list-containers"))
            }
        }
    }

    pub fn cancel_all(&self) {
        self.lock().values().for_each(|running| running.cancel.cancel());
    }

    /// Waits until nothing is in progress.
    pub async fn all_ended(&self) {
        let mut count = self.count.subscribe();
        let _ = count.wait_for(|count| *count == 0).await;
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        let mut running = self.operations.lock();
        running.remove(&self.name);
        self.operations.count.send_replace(running.len());
    }
}
