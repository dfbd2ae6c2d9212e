//! A home, an environment and a daemon's socket that belong to one test.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use axum::Router;
use axum::routing::get;
use moorage::api::{API_VERSION, Version};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::process::Command;

pub const MOORAGE: &str = env!("CARGO_BIN_EXE_moorage");

pub struct World {
    directory: TempDir,
}

impl World {
    pub fn new() -> World {
        World { directory: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Serves these routes where the daemon would; the version is there.
    pub fn serve(self, routes: Router) -> World {
        let version = || async { axum::Json(Version { version: "test".into(), api: API_VERSION }) };
        self.serve_only(routes.route("/v1/version", get(version)))
    }

    pub fn serve_only(self, routes: Router) -> World {
        let listener = UnixListener::bind(self.path("api.sock")).unwrap();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        self
    }

    /// `program args…` in a cleared environment that knows this world's socket and home.
    pub fn program(&self, program: &str, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.directory.path())
            .env("MOORAGE_SOCKET", self.path("api.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    pub async fn run(&self, args: &[&str]) -> Said {
        self.program(MOORAGE, args).output().await.unwrap().into()
    }
}

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Said {
        Said {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Said {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The fault on the last line of stderr.
    pub fn fault(&self) -> serde_json::Value {
        let last = self.err.lines().last().unwrap_or_default();
        serde_json::from_str::<serde_json::Value>(last).unwrap_or_else(|e| panic!("{e}: {self:?}"))["error"]
            .take()
    }
}

/// A container as the daemon shows it.
pub fn container(name: &str, state: &str) -> serde_json::Value {
    serde_json::json!({
        "name": name, "owner": "ann", "project": "siem", "branch": "9.2", "patches": [], "state": state,
        "network": "lan", "mac": "02:00:00:00:00:01", "address": "10.0.0.5", "ipv6": ["fd00::5"],
        "image": "moorage/siem:latest", "created": "2026-01-01T00:00:00Z", "operation": null,
    })
}

/// All about it.
pub fn detail(name: &str, state: &str) -> serde_json::Value {
    let spec = serde_json::json!({
        "name": name, "owner": "ann", "project": "siem", "branch": "9.2", "image": "moorage/siem:latest",
        "opt": [{ "url": "file:///srv/siem.tar.zst" }], "network": "lan",
        "sources": [{ "repo": "ssh://git@git/siem.git", "ref": "release/9.2", "to": "src/siem" }],
        "limits": { "memory": "32GiB", "pids": 4096 },
        "mounts": [{ "source": "/data", "target": "/opt/data", "read_only": true }],
    });
    serde_json::json!({
        "container": container(name, state), "spec": spec, "user": "ann", "host_key": "ssh-ed25519 AAAA",
        "opt_directory": format!("/opt/containers/{name}/opt"), "opt_bytes": 3_u64 << 30,
        "logs_directory": format!("/opt/containers/logs/{name}"), "engine_id": null, "lease": null,
    })
}
