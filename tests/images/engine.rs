//! A Docker Engine of one test.

use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A dockerd in a mount namespace of its own, without a network of its own, gone with the value.
pub struct Engine {
    dockerd: Child,
    pub directory: tempfile::TempDir,
    /// Where commands put what is for a moment. Not everybody's path is a word.
    pub temporary: PathBuf,
}

impl Engine {
    pub fn start() -> Engine {
        Engine::with(&[])
    }

    /// With further options of dockerd.
    pub fn with(options: &[&str]) -> Engine {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let ready = UnixDatagram::bind(at("notify")).unwrap();
        let log = std::fs::File::create(at("log")).unwrap();
        let mut dockerd = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "dockerd", "--bridge=none", "--iptables=false"])
            .arg("--ip6tables=false")
            .args(options)
            .args([format!("--data-root={}", at("data")), format!("--exec-root={}", at("exec"))])
            .args([format!("--pidfile={}", at("pid")), format!("--host=unix://{}", at("socket"))])
            .env("NOTIFY_SOCKET", at("notify"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("run dockerd");
        ready.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
        let mut said = [0; 4096];
        loop {
            let Ok(length) = ready.recv(&mut said) else {
                dockerd.kill().unwrap();
                dockerd.wait().unwrap();
                panic!("dockerd did not get ready:\n{}", std::fs::read_to_string(at("log")).unwrap());
            };
            if said[..length].windows(7).any(|word| word == b"READY=1") {
                let temporary = directory.path().join("for a moment");
                return Engine { dockerd, directory, temporary };
            }
        }
    }

    pub fn socket(&self) -> String {
        format!("unix://{}", self.directory.path().join("socket").display())
    }

    pub fn docker(&self, arguments: &[&str]) -> String {
        let output =
            Command::new("docker").args(["--host", &self.socket()]).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "docker {arguments:?}: {said}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.dockerd);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("stop dockerd");
        self.dockerd.wait().expect("wait for dockerd");
    }
}

impl Engine {
    /// `moorage` of this build with this engine; its exit code and what it said on stdout and stderr.
    pub fn moorage(&self, arguments: &[&str]) -> (i32, String, String) {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (said, told) = (text(&output.stdout), text(&output.stderr));
        eprintln!("moorage {arguments:?}: {}\n{said}{told}", output.status);
        (output.status.code().unwrap_or(-1), said, told)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        std::fs::create_dir_all(&self.temporary).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_moorage"));
        command.args(arguments).env("DOCKER_HOST", self.socket()).env("HOME", self.directory.path());
        command.env("TMPDIR", &self.temporary);
        command.stdin(Stdio::null());
        command
    }
}
