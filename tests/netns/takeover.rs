//! The daemon is killed while a connection goes through its container: nothing of that is noticed inside.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

use crate::dockerd::Container;
use crate::kernel::Kernel;
use crate::process::Process;
use crate::server::Server;
use crate::world::{self, MAC, NETWORK, PARENT, SOON, World};

/// Bytes that go from the LAN to a container and back, without a pause.
struct Talk {
    stop: Arc<AtomicBool>,
    trips: Arc<AtomicU64>,
    /// Segments that had to be sent again, on both sides.
    client: JoinHandle<u64>,
    server: JoinHandle<u64>,
}

fn within<T: Send + 'static>(namespace: &Path, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    let namespace = std::fs::File::open(namespace).unwrap();
    std::thread::spawn(move || {
        setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    })
}

/// `RetransSegs` of this thread's namespace.
fn sent_again() -> u64 {
    let snmp = std::fs::read_to_string("/proc/thread-self/net/snmp").unwrap();
    let mut lines = snmp.lines().filter(|line| line.starts_with("Tcp: "));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "RetransSegs").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

impl Talk {
    fn between(world: &World, container: &Container) -> Talk {
        let (stop, trips) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (ready, listening) = channel();
        let server = within(&container.sandbox, move || {
            let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 7)).unwrap();
            ready.send(()).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut byte = [0];
            while stream.read(&mut byte).unwrap() == 1 {
                stream.write_all(&byte).unwrap();
            }
            sent_again()
        });
        listening.recv_timeout(SOON).unwrap();
        let to = SocketAddr::new(container.ip().parse().unwrap(), 7);
        let (ended, count) = (stop.clone(), trips.clone());
        let client = within(&world.path("lan"), move || {
            let mut stream = TcpStream::connect_timeout(&to, SOON).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            while !ended.load(Ordering::Relaxed) {
                stream.write_all(b"x").unwrap();
                stream.read_exact(&mut [0]).unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
            sent_again()
        });
        Talk { stop, trips, client, server }
    }

    fn trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    fn end(self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        (self.client.join().unwrap(), self.server.join().unwrap())
    }
}

#[test]
fn a_daemon_is_back_within_a_second_and_an_open_connection_loses_no_packet() {
    world::run(|world| async move {
        let server = Server::start(&world);
        let process = Process::start(&world);
        let dockerd = process.dockerd();
        dockerd.create_network(NETWORK, PARENT).await.unwrap();
        let container = dockerd.run("e1", MAC).await;
        let mut kernel = Kernel::within(&container.sandbox);
        kernel.until(|| container.addresses().contains("10.77.0.")).await;

        let talk = Talk::between(&world, &container);
        process.kill();
        for _ in 0..3 {
            let (asked, before, begin) = (server.count("DHCPREQUEST("), talk.trips(), Instant::now());
            let process = Process::start(&world);
            // That it asks whether the address is still right means that it has the lease and the container again.
            tokio::task::block_in_place(|| server.wait_for("DHCPREQUEST(", asked + 1));
            assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
            assert!(talk.trips() > before);
            process.kill();
        }
        assert_eq!(talk.end(), (0, 0), "segments were sent again");
        assert_eq!(server.count("DHCPDISCOVER("), 1);
    });
}
