//! Three real DHCP servers behind one face, for what every server has to be good with.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::json;

use crate::world::{LAN, SERVER_ADDRESS, SOON, World};

/// What a server grants.
#[derive(Debug, Clone, Copy)]
pub struct Grants {
    /// The last bytes of the pool's first and last address.
    pub pool: (u8, u8),
    /// Seconds: option 51, 58, 59.
    pub lease: u32,
    pub t1: u32,
    pub t2: u32,
}

impl Grants {
    /// What nobody will have to renew while a test runs.
    pub const LONG: Grants = Grants { pool: (50, 99), lease: 3600, t1: 1800, t2: 3150 };
    /// Renewed after two seconds.
    pub const SHORT: Grants = Grants { pool: (50, 99), lease: 600, t1: 2, t2: 4 };
    /// Over in no time, where a server grants so little.
    pub const FLEETING: Grants = Grants { pool: (50, 99), lease: 8, t1: 2, t2: 4 };

    pub fn pool(self, first: u8, last: u8) -> Grants {
        Grants { pool: (first, last), ..self }
    }
}

/// A make of server: how it is configured and when it is ready.
pub trait Make {
    const NAME: &'static str;
    /// The shortest lease it grants, seconds.
    const LEAST: u32;
    /// What it says when it is ready.
    const READY: &'static str;

    /// Whether it says no to the renewal of a lease that it does not know; the others say nothing.
    const REFUSES_RENEWALS: bool;

    /// Its command, with its files written.
    fn command(world: &World, grants: &Grants) -> Vec<String>;

    /// Forgets all leases that it granted; it does not run.
    fn forget(world: &World) {
        for file in ["leases", "leases.2", "leases.completed"] {
            let _ = std::fs::remove_file(world.path(&format!("{}.{file}", Self::NAME)));
        }
    }
}

pub struct Dnsmasq;
pub struct Udhcpd;
pub struct Kea;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Make for Dnsmasq {
    const NAME: &'static str = "dnsmasq";
    const LEAST: u32 = 120;
    const READY: &'static str = "sockets bound";
    const REFUSES_RENEWALS: bool = true;

    fn command(world: &World, grants: &Grants) -> Vec<String> {
        let Grants { pool: (first, last), lease, t1, t2 } = grants;
        words(&format!(
            "dnsmasq --keep-in-foreground --log-facility=- --log-dhcp --user=root --conf-file=/dev/null --pid-file= \
             --port=0 --no-hosts --no-resolv --no-ping --bind-interfaces --except-interface=lo --interface={LAN} \
             --dhcp-leasefile={} --dhcp-range=10.77.0.{first},10.77.0.{last},{lease} --dhcp-authoritative \
             --dhcp-option=option:T1,{t1} --dhcp-option=option:T2,{t2}",
            world.path("dnsmasq.leases").display()
        ))
    }
}

impl Make for Udhcpd {
    const NAME: &'static str = "udhcpd";
    const LEAST: u32 = 1;
    const READY: &'static str = "started, v";
    const REFUSES_RENEWALS: bool = false;

    fn command(world: &World, grants: &Grants) -> Vec<String> {
        let Grants { pool: (first, last), lease, t1, t2 } = grants;
        let leases = world.path("udhcpd.leases");
        if !leases.exists() {
            std::fs::write(&leases, "").unwrap();
        }
        // 58 and 59 have no names here: hexadecimal, as is.
        let configuration = format!(
            "start 10.77.0.{first}\nend 10.77.0.{last}\ninterface {LAN}\nlease_file {}\npidfile {}\n\
             min_lease 1\nauto_time 0\noption subnet 255.255.255.0\noption router {SERVER_ADDRESS}\n\
             option lease {lease}\noption 0x3a {t1:08x}\noption 0x3b {t2:08x}\n",
            leases.display(),
            world.path("udhcpd.pid").display()
        );
        let path = world.path("udhcpd.conf");
        std::fs::write(&path, configuration).unwrap();
        words(&format!("udhcpd -f {}", path.display()))
    }
}

impl Make for Kea {
    const NAME: &'static str = "kea";
    const LEAST: u32 = 1;
    const READY: &'static str = "DHCP4_STARTED";
    const REFUSES_RENEWALS: bool = false;

    fn command(world: &World, grants: &Grants) -> Vec<String> {
        let Grants { pool: (first, last), lease, t1, t2 } = grants;
        let configuration = json!({"Dhcp4": {
            "interfaces-config": {"interfaces": [LAN]},
            "lease-database": {"type": "memfile", "persist": true, "name": world.path("kea.leases")},
            "authoritative": true,
            "valid-lifetime": lease, "min-valid-lifetime": lease, "max-valid-lifetime": lease,
            "renew-timer": t1, "rebind-timer": t2, "calculate-tee-times": false,
            "expired-leases-processing": {"hold-reclaimed-time": 0, "flush-reclaimed-timer-wait-time": 1},
            "subnet4": [{"subnet": "10.77.0.0/24", "pools": [{"pool": format!("10.77.0.{first} - 10.77.0.{last}")}],
                "option-data": [{"name": "routers", "data": SERVER_ADDRESS}]}],
            "loggers": [{"name": "kea-dhcp4", "severity": "INFO",
                "output_options": [{"output": "stderr", "flush": true}]}],
        }});
        // One that was killed leaves it, and the next one's process has the same number in its namespace.
        let _ = std::fs::remove_file(world.path("kea.kea-dhcp4.pid"));
        let path = world.path("kea.json");
        std::fs::write(&path, configuration.to_string()).unwrap();
        let directory = world.directory.path().display();
        words(&format!(
            "env KEA_LOCKFILE_DIR={directory} KEA_PIDFILE_DIR={directory} kea-dhcp4 -c {}",
            path.display()
        ))
    }
}

/// One that runs in the LAN, for as long as this is.
pub struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    /// It answers when this returns.
    pub fn start<M: Make>(world: &World, grants: Grants) -> Running {
        let grants = Grants { lease: grants.lease.max(M::LEAST), ..grants };
        // It must not outlive this test however that ends: it is in a PID namespace that ends with its parent.
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "nsenter"])
            .arg(format!("--net={}", world.path("lan").display()))
            .args(["unshare", "--pid", "--kill-child", "sh", "-c", "\"$@\" 2>&1; :", "sh"])
            .args(M::command(world, &grants))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                // For whoever reads a failure.
                let _ = writeln!(std::io::stderr(), "{}: {line}", M::NAME);
                let _ = sender.send(line);
            }
        });
        let server = Running { child, lines };
        let mut said = String::new();
        while !said.contains(M::READY) {
            let line = server.lines.recv_timeout(SOON);
            said += &line.unwrap_or_else(|_| panic!("{} does not start:\n{said}", M::NAME));
            said.push('\n');
        }
        server
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its pipe is closed when the last of its processes has ended: then another one can have its port.
        while self.lines.recv_timeout(SOON).is_ok() {}
    }
}
