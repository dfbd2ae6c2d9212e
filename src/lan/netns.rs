//! Network namespaces: held by descriptor, entered only by threads that end right after.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use nix::libc;
use nix::sched::{CloneFlags, setns};
use rtnetlink::packet_core::NetlinkMessage;
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup, new_multicast_connection};
use tokio::sync::{Mutex, MutexGuard, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::link::{self, Link};

const OWN: &str = "/proc/thread-self/ns/net";
/// `f_type` of a namespace file (linux/magic.h).
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// A network namespace, alive as long as this is.
#[derive(Debug, Clone)]
pub struct Netns(Arc<File>);

impl Netns {
    /// The one this thread is in.
    pub fn current() -> Result<Netns> {
        let file = File::open(OWN).with_context(|| format!("open {OWN}"))?;
        Ok(Netns(Arc::new(file)))
    }

    /// The one bound at `path`; none while nothing is there or no namespace is mounted on it.
    pub fn open(path: &Path) -> Result<Option<Netns>> {
        // A FIFO must not make us wait for its other end.
        let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).with_context(|| format!("open {}", path.display())),
        };
        let kind = rustix::fs::fstatfs(&file).with_context(|| format!("look at {}", path.display()))?.f_type;
        #[allow(clippy::unnecessary_cast)] // its type differs between architectures
        Ok((kind as i64 == NSFS_MAGIC).then(|| Netns(Arc::new(file))))
    }

    /// Runs `work` inside. It must be quick: it has a thread of its own, and the files it sees are the host's.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let file = self.0.clone();
        on_a_thread(move || {
            setns(file.as_fd(), CloneFlags::CLONE_NEWNET).context("enter a network namespace")?;
            Ok(work())
        })
        .await?
    }

    /// A netlink connection into it that also hears of `groups`. A socket keeps the namespace it was made in.
    pub async fn netlink(&self, groups: &'static [MulticastGroup]) -> Result<(Netlink, Messages)> {
        let runtime = tokio::runtime::Handle::current();
        let (connection, handle, messages) = self
            .run(move || {
                let _inside = runtime.enter();
                new_multicast_connection(groups)
            })
            .await?
            .context("open a netlink socket")?;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        Ok((
            Netlink { handle, lists: Mutex::default(), links: Shared::default(), _connection: connection },
            messages.map(|(message, _)| message).boxed(),
        ))
    }

    /// Writes one setting below `/proc/sys/net` inside.
    pub async fn sysctl(&self, setting: String, value: &'static str) -> Result<()> {
        self.run(move || {
            let path = Path::new("/proc/sys/net").join(setting);
            std::fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
        })
        .await?
    }
}

/// What a netlink socket says unasked.
pub type Messages = BoxStream<'static, NetlinkMessage<RouteNetlinkMessage>>;

/// A netlink connection, open as long as this is.
pub struct Netlink {
    handle: Handle,
    /// The kernel answers EBUSY to a second list that is asked for on a socket before the first has ended.
    lists: Mutex<()>,
    links: Shared<Vec<Link>>,
    _connection: AbortOnDropHandle<()>,
}

impl Netlink {
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Every interface of the namespace. Twenty containers that start at once need one list, not twenty.
    pub async fn links(&self) -> Result<Arc<Vec<Link>>> {
        self.links.get(link::list(self)).await
    }

    /// The right to ask for a list, until it is dropped.
    pub async fn list(&self) -> MutexGuard<'_, ()> {
        self.lists.lock().await
    }
}

/// What many ask for at once and one fetches for all of them.
struct Shared<T> {
    /// How many have asked so far.
    asked: AtomicU64,
    /// What was fetched last, and how many had asked before it was.
    last: Mutex<(u64, Arc<T>)>,
}

impl<T: Default> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared { asked: AtomicU64::new(0), last: Mutex::new((0, Arc::default())) }
    }
}

impl<T> Shared<T> {
    /// What `fetch` brings, or brought for somebody else since this was asked for.
    async fn get(&self, fetch: impl Future<Output = Result<T>>) -> Result<Arc<T>> {
        let turn = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut last = self.last.lock().await;
        if last.0 < turn {
            let asked = self.asked.load(Ordering::SeqCst);
            *last = (asked, Arc::new(fetch.await?));
        }
        Ok(last.1.clone())
    }
}

/// A thread that changed its namespace must never serve anything else, so it cannot be one of the runtime's.
async fn on_a_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("netns".into())
        .spawn(move || drop(done.send(work())))
        .context("start a thread")?;
    result.await.context("a thread ended early")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_asked_for_at_once_is_fetched_for_all_and_never_older_than_the_question() {
        let (shared, fetched) = (Shared::<u64>::default(), AtomicU64::new(0));
        let fetch = || async {
            let number = fetched.fetch_add(1, Ordering::SeqCst) + 1;
            tokio::task::yield_now().await;
            Ok(number)
        };
        let all = futures_util::future::join_all((0..20).map(|_| shared.get(fetch()))).await;
        // Those who ask while it is being fetched wait for the next one.
        assert_eq!(*all[0].as_ref().unwrap().as_ref(), 1);
        assert!(all.iter().all(|one| one.is_ok()) && fetched.load(Ordering::SeqCst) <= 2, "{fetched:?}");
        let before = fetched.load(Ordering::SeqCst);
        assert_eq!(*shared.get(fetch()).await.unwrap(), before + 1);
        assert!(shared.get(async { anyhow::bail!("no") }).await.is_err());
        assert_eq!(*shared.get(fetch()).await.unwrap(), before + 2);
    }
}
