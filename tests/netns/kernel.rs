//! What the kernel says about the network, so that a test waits for an event and not for a while.

use std::path::Path;

use futures_util::{Stream, StreamExt as _};
use nix::sched::{CloneFlags, setns};
use rtnetlink::MulticastGroup;

use crate::world::SOON;

pub struct Kernel {
    changes: Box<dyn Stream<Item = ()> + Unpin + Send>,
    _handle: rtnetlink::Handle,
}

impl Kernel {
    pub fn of_this_thread() -> Kernel {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Neigh,
        ];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups).unwrap();
        tokio::spawn(connection);
        Kernel { changes: Box::new(messages.map(drop)), _handle: handle }
    }

    pub fn within(namespace: &Path) -> Kernel {
        let runtime = tokio::runtime::Handle::current();
        let namespace = std::fs::File::open(namespace).unwrap();
        let inside = std::thread::spawn(move || {
            setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
            let _runtime = runtime.enter();
            Kernel::of_this_thread()
        });
        inside.join().unwrap()
    }

    /// Waits until something is so, looking again whenever the kernel says that something changed.
    pub async fn until(&mut self, so: impl Fn() -> bool) {
        let wait = async {
            while !so() {
                self.changes.next().await.expect("the kernel says no more");
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("it does not become so");
    }
}
