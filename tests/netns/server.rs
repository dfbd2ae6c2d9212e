//! dnsmasq in the LAN: DHCPv4 and router advertisements, and what it says of them.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::world::{LAN, SOON, World};

pub struct Server {
    child: Child,
    listener: Option<JoinHandle<()>>,
    log: Arc<(Mutex<Vec<String>>, Condvar)>,
    leases: PathBuf,
}

impl Server {
    /// The LAN's usual one.
    pub fn start(world: &World) -> Server {
        Server::with(world, "10.77.0.50,10.77.0.99,1h", &[])
    }

    /// One with another range and further options. Answers when this returns.
    pub fn with(world: &World, range: &str, options: &[&str]) -> Server {
        Server::at(world, ("lan", LAN), range, options)
    }

    /// One on an interface of another namespace of the world.
    pub fn at(world: &World, (namespace, interface): (&str, &str), range: &str, options: &[&str]) -> Server {
        // The usual one's file is known by this name to tests that take it away.
        let leases = world.path(match interface {
            LAN => "dnsmasq.leases",
            _ => "dnsmasq-other.leases",
        });
        // It must not outlive this test however that ends. It drops the signal of its parent's death together with
        // its capabilities, so that its parent is a shell, the first of a PID namespace that ends with it.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", world.path(namespace).display()))
            .args(["unshare", "--pid", "--kill-child", "sh", "-c", "\"$@\"; :", "sh"])
            .args(["dnsmasq", "--keep-in-foreground", "--log-facility=-", "--log-dhcp", "--user=root"])
            .args(["--conf-file=/dev/null", "--pid-file=", "--port=0", "--no-hosts", "--no-resolv"])
            .args(["--no-ping", "--bind-interfaces", "--except-interface=lo"])
            .args([&format!("--interface={interface}"), &format!("--dhcp-leasefile={}", leases.display())])
            .args([&format!("--dhcp-range={range}"), "--dhcp-range=fd77::,ra-only,1h", "--enable-ra"])
            .args(["--dhcp-option=option:dns-server,10.77.0.1", "--domain=corp.example"])
            .args(options)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log: Arc<(Mutex<Vec<String>>, Condvar)> = Arc::default();
        let (lines, sink) = (BufReader::new(child.stderr.take().unwrap()), log.clone());
        let listener = std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                sink.0.lock().unwrap().push(line);
                sink.1.notify_all();
            }
        });
        let server = Server { child, listener: Some(listener), log, leases };
        server.wait_for("sockets bound", 1);
        server
    }

    /// Waits until `text` was said `times` times since the start.
    pub fn wait_for(&self, text: &str, times: usize) {
        let deadline = Instant::now() + SOON;
        let mut lines = self.log.0.lock().unwrap();
        while lines.iter().filter(|line| line.contains(text)).count() < times {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "dnsmasq does not say {text:?}:\n{}", lines.join("\n"));
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// How often `text` was said.
    pub fn count(&self, text: &str) -> usize {
        self.log.0.lock().unwrap().iter().filter(|line| line.contains(text)).count()
    }

    /// Messages of clients that arrived so far.
    pub fn requests(&self) -> usize {
        ["DHCPDISCOVER(", "DHCPREQUEST(", "DHCPRELEASE("].iter().map(|kind| self.count(kind)).sum()
    }

    /// Its own file of leases.
    pub fn leases(&self) -> String {
        std::fs::read_to_string(&self.leases).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its last line is its end: then another one can bind its port.
        let _ = self.listener.take().map(JoinHandle::join);
    }
}
