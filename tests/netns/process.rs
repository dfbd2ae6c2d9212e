//! The daemon as a process of its own, so that it can be killed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::dockerd::Dockerd;
use crate::world::World;

/// Ends, as by `kill -9`, when it goes out of scope.
pub struct Process {
    child: Child,
    directory: PathBuf,
}

impl Process {
    /// It serves its sockets when this returns.
    pub fn start(world: &World) -> Process {
        let directory = world.directory.path().to_owned();
        let config = world.path("config.toml");
        let storage = world.path("opt");
        std::fs::create_dir_all(&storage).unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        std::fs::write(&config, format!("storage = {storage:?}\ndhcp_timeout = 10\n")).unwrap();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_moorage"), "daemon"])
            .arg("--config")
            .arg(&config)
            .args(["--state".as_ref(), world.path("state").as_os_str()])
            .args(["--run".as_ref(), directory.as_os_str()])
            .env("MOORAGE_LOG", "info")
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = String::new();
        while !said.contains("moorage is up") {
            let line = lines.next().and_then(Result::ok);
            said += &line.unwrap_or_else(|| panic!("the daemon does not start:\n{said}"));
            said.push('\n');
        }
        // It must not end for want of a reader.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = writeln!(std::io::stderr(), "daemon: {line}");
            }
        });
        Process { child, directory }
    }

    /// What calls its network driver.
    pub fn dockerd(&self) -> Dockerd {
        Dockerd::of_process(self.directory.clone())
    }

    /// Between two instructions, without a word.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The one lease that is on disk.
pub fn record(world: &World) -> Value {
    let names = world.records();
    assert_eq!(names.len(), 1, "{names:?}");
    let text = std::fs::read_to_string(world.path("state/leases").join(&names[0])).unwrap();
    serde_json::from_str(&text).unwrap()
}
