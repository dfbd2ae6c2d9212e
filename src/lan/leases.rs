//! All leases that are kept, and how to talk to their keepers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{OwnedMutexGuard, broadcast, mpsc, oneshot, watch};

use super::dhcp::{Port, Ports};
use super::keeper::{Acquired, Command, Ground, Keeper, Unanswered, Waiter};
use super::lease::State;
use super::record::{Endpoint, Key, LeaseRecord, Tenure};
use super::view::LeaseView;
use crate::report::{Fault, Kind};
use crate::spec::network::OnTimeout;

/// Commands that may wait for one keeper.
const BACKLOG: usize = 8;
const ENDED: &str = "the lease was released in this moment; try again";

/// The table of keepers.
pub struct Leases {
    ground: Arc<Ground>,
    ports: Ports,
    kept: Mutex<HashMap<Key, Handle>>,
}

/// One keeper, seen from outside.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<LeaseView>,
    gate: Arc<tokio::sync::Mutex<()>>,
}

/// Held by a handler for as long as it works on a lease's endpoint.
pub type Gate = OwnedMutexGuard<()>;

/// A lease that was opened for an endpoint, with its gate.
pub struct Entered {
    pub handle: Handle,
    _gate: Gate,
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.handle.forget();
    }
}

impl Leases {
    pub fn new(ground: Arc<Ground>, ports: Ports) -> Leases {
        Leases { ground, ports, kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<Key, Handle>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn find(&self, key: &Key) -> Option<Handle> {
        self.kept().get(key).filter(|handle| !handle.commands.is_closed()).cloned()
    }

    /// The keeper of the record's lease, started if there is none. Its name, tenure and chosen address become the record's.
    pub async fn open(self: &Arc<Self>, record: LeaseRecord, parent: &str) -> Result<Handle> {
        loop {
            let handle = self.start(record.clone(), parent, false)?;
            if handle.describe(&record).await {
                return Ok(handle);
            }
        }
    }

    /// The same with its gate. Where nothing has come of it in the end, the lease is forgotten.
    pub async fn enter(self: &Arc<Self>, record: LeaseRecord, parent: &str) -> Result<Entered> {
        loop {
            let handle = self.start(record.clone(), parent, false)?;
            let gate = handle.gate().await;
            if handle.describe(&record).await {
                return Ok(Entered { handle, _gate: gate });
            }
        }
    }

    /// Goes on with the lease of an earlier process.
    pub fn adopt(self: &Arc<Self>, record: LeaseRecord, parent: &str) -> Result<Handle> {
        self.start(record, parent, true)
    }

    fn start(self: &Arc<Self>, record: LeaseRecord, parent: &str, adopt: bool) -> Result<Handle> {
        let key = Key::new(&record.network, record.mac);
        let mut kept = self.kept();
        if let Some(handle) = kept.get(&key).filter(|handle| !handle.commands.is_closed()) {
            return Ok(handle.clone());
        }
        let (commands, inbox) = mpsc::channel(BACKLOG);
        let (keeper, view) = Keeper::new(self.ground.clone(), record, self.ports.of(parent), inbox)?;
        let handle = Handle { commands, view, gate: Arc::default() };
        kept.insert(key.clone(), handle.clone());
        let table = Arc::downgrade(self);
        tokio::spawn(async move {
            keeper.run(adopt).await;
            if let Some(table) = table.upgrade() {
                let mut kept = table.kept();
                if kept.get(&key).is_some_and(|handle| handle.commands.is_closed()) {
                    kept.remove(&key);
                }
            }
        });
        Ok(handle)
    }

    /// See [`Ground::news`].
    pub fn news(&self) -> broadcast::Receiver<LeaseView> {
        self.ground.news.subscribe()
    }

    /// The port of a parent interface.
    pub fn port(&self, parent: &str) -> Arc<Port> {
        self.ports.of(parent)
    }

    /// The keys of a network's leases.
    pub fn of_network(&self, network: &str) -> Vec<Key> {
        self.kept().keys().filter(|key| key.network == network).cloned().collect()
    }

    pub fn views(&self) -> Vec<LeaseView> {
        let kept = self.kept();
        let open = kept.values().filter(|handle| !handle.commands.is_closed());
        let mut views: Vec<LeaseView> = open.map(Handle::view).collect();
        views.sort_by(|a, b| (&a.network, &a.hostname, a.mac).cmp(&(&b.network, &b.hostname, b.mac)));
        views
    }
}

impl Handle {
    pub fn view(&self) -> LeaseView {
        self.view.borrow().clone()
    }

    pub fn watch(&self) -> watch::Receiver<LeaseView> {
        self.view.clone()
    }

    pub async fn gate(&self) -> Gate {
        self.gate.clone().lock_owned().await
    }

    /// Tells the keeper what the record says of itself. False: it has ended, with nothing more to write, so that another
    /// one can be started. Cancel-safe: see [`Handle::acquire`].
    async fn describe(&self, record: &LeaseRecord) -> bool {
        let forget = ForgetOnDrop(&self.commands);
        let (heard, hears) = oneshot::channel();
        let described = Command::Describe(record.hostname.clone(), record.tenure, record.fixed, heard);
        let described = self.tell(described).await.is_ok() && self.answer(hears).await.is_ok();
        if !described {
            self.commands.closed().await;
        }
        std::mem::forget(forget);
        described
    }

    async fn tell(&self, command: Command) -> Result<()> {
        self.commands.send(command).await.ok().context(ENDED)
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<Result<T>>) -> Command) -> Result<T> {
        let (answer, answered) = oneshot::channel();
        self.tell(command(answer)).await?;
        self.answer(answered).await?
    }

    /// What the keeper answers. A command that comes as it ends stays in its mailbox for as long as there are senders.
    async fn answer<T>(&self, mut answered: oneshot::Receiver<T>) -> Result<T> {
        tokio::select! {
            answer = &mut answered => answer.ok(),
            () = self.commands.closed() => answered.try_recv().ok(),
        }
        .context(ENDED)
    }

    /// An address that may be used, waiting at most `wait` for a server. If none answers and there never was a lease,
    /// it is forgotten with an error, or with [`OnTimeout::Background`] sought further: the view has no address then.
    /// Where it has the address, `endpoint` is written down with it. Cancel-safe: it is forgotten when the caller goes away.
    pub async fn acquire(
        &self,
        endpoint: Option<Endpoint>,
        wait: Duration,
        on_timeout: OnTimeout,
    ) -> Result<Acquired> {
        let forget = ForgetOnDrop(&self.commands);
        let (answer, answered) = oneshot::channel();
        self.tell(Command::Acquire(Waiter { endpoint, answer })).await?;
        let mut answered = std::pin::pin!(self.answer(answered));
        let answer = match tokio::time::timeout(wait, &mut answered).await {
            Ok(answer) => answer,
            Err(_elapsed) => {
                self.tell(Command::Deadline).await?;
                answered.await
            }
        };
        match answer? {
            Ok(acquired) => {
                std::mem::forget(forget);
                Ok(acquired)
            }
            // A chosen address that another machine has is not sought any further.
            Err(Unanswered) if on_timeout == OnTimeout::Background && self.view().state != State::Static => {
                std::mem::forget(forget);
                Ok(Acquired { view: self.view(), claimed: false })
            }
            Err(Unanswered) => Err(self.unanswered(wait).into()),
        }
    }

    fn unanswered(&self, wait: Duration) -> Fault {
        let view = self.view();
        let name = if view.hostname.is_empty() { "a container" } else { &view.hostname };
        if let (State::Static, Some(address)) = (view.state, view.address) {
            let what = format!("the address {address} of {name} is used by another machine");
            let fault = Fault::new(Kind::Failed, what).next("choose another one for one of the two");
            return view.last.into_iter().fold(fault, |fault, last| fault.why(last.text));
        }
        let fault = Fault::new(
            Kind::TimedOut,
            format!(
                "no DHCP server gave {name} ({}) an address on {} within {} s",
                view.mac,
                view.parent,
                wait.as_secs_f32()
            ),
        );
        let fault = match view.last {
            Some(last) => fault.why(last.text),
            None => fault,
        };
        fault.next(format!(
            "tcpdump -eni {} port 67 or port 68   # does the request leave, does an answer come? A switch, hypervisor \
             or cloud may drop frames of MACs it does not know",
            view.parent
        ))
    }

    /// Ends the search for an address that nobody will use.
    pub fn forget(&self) {
        drop(ForgetOnDrop(&self.commands));
    }

    pub async fn claim(&self, endpoint: Endpoint) -> Result<()> {
        self.ask(|answer| Command::Claim(endpoint, answer)).await
    }

    pub async fn arrived(&self, endpoint: &str) -> Result<()> {
        self.tell(Command::Arrived(endpoint.to_owned())).await
    }

    /// The endpoint uses the lease no longer. One that was released meanwhile is none the worse for it.
    pub async fn leave(&self, endpoint: &str) -> Result<()> {
        self.unless_gone(self.ask(|answer| Command::Leave(endpoint.to_owned(), answer)).await)
    }

    /// Whether the container of the endpoint with this ID is gone; with `unjoined`, one that never came counts.
    pub async fn is_over(&self, endpoint: &str, unjoined: bool) -> Result<bool> {
        self.ask(|answer| Command::IsOver(endpoint.to_owned(), unjoined, answer)).await
    }

    /// What is remembered of it now.
    pub async fn record(&self) -> Result<LeaseRecord> {
        self.ask(Command::Record).await
    }

    /// The same; none if it is not kept any more.
    pub async fn kept(&self) -> Result<Option<LeaseRecord>> {
        self.unless_gone(self.record().await.map(Some))
    }

    /// Tells the server and forgets the lease; its keeper has ended then. One that ended in this moment had nothing left
    /// to give back.
    pub async fn release(&self) -> Result<()> {
        let released = self.unless_gone(self.ask(Command::Release).await);
        self.commands.closed().await;
        released
    }

    /// The same where nobody will use it again.
    pub async fn release_invented(&self) -> Result<()> {
        match self.kept().await?.map(|record| record.tenure) {
            Some(Tenure::Invented) => self.release().await,
            _ => Ok(()),
        }
    }

    /// What failed since the keeper has ended did not fail.
    fn unless_gone<T: Default>(&self, done: Result<T>) -> Result<T> {
        match done {
            Err(_) if self.commands.is_closed() => Ok(T::default()),
            other => other,
        }
    }
}

/// A lease that nobody got must not be sought for ever.
struct ForgetOnDrop<'a>(&'a mpsc::Sender<Command>);

impl Drop for ForgetOnDrop<'_> {
    fn drop(&mut self) {
        let _ = self.0.try_send(Command::Forget);
    }
}
