//! A package manager at work on a root filesystem: in mounts and processes of its own, so that nothing is left mounted or
//! running, however it ends.

use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::image::Build;
use crate::image::base::apart::APART;
use crate::image::stream::Tail;

/// The first process inside. Words before `--`: `root PATH`, which gets /proc and a /dev with what packages' scripts need;
/// `bind FROM TO`, a directory or file. Then the command.
const SCRIPT: &str = r#"set -eu
while [ "$1" != -- ]; do
    case $1 in
    root)
        mkdir -p "$2/proc" "$2/dev"
        mount -t proc proc "$2/proc"
        mount -t tmpfs -o mode=755,size=1m dev "$2/dev"
        for device in null zero full random urandom tty; do
            : >"$2/dev/$device"
            mount --bind "/dev/$device" "$2/dev/$device"
        done
        ln -s /proc/self/fd "$2/dev/fd"
        ln -s /proc/self/fd/0 "$2/dev/stdin"
        ln -s /proc/self/fd/1 "$2/dev/stdout"
        ln -s /proc/self/fd/2 "$2/dev/stderr"
        shift 2
        ;;
    bind)
        if [ -d "$2" ]; then
            mkdir -p "$3"
        else
            mkdir -p "${3%/*}"
            [ -e "$3" ] || : >"$3"
        fi
        mount --bind "$2" "$3"
        shift 3
        ;;
    esac
done
shift
exec "$@" 2>&1"#;

/// What is run, and on what.
#[derive(Debug, Default)]
pub(super) struct Apart {
    pub roots: Vec<PathBuf>,
    /// From where to where.
    pub binds: Vec<(PathBuf, PathBuf)>,
    pub home: PathBuf,
}

/// How it ended: the last it said for an error, and all of it.
pub(super) struct Ended {
    pub status: ExitStatus,
    pub tail: Tail,
    pub said: Vec<String>,
}

impl Apart {
    /// Runs the command, shows what it says, and waits for its end. Dropping the future ends it.
    pub async fn run(&self, build: Build<'_>, epoch: u64, words: &[String]) -> Result<Ended> {
        let mut command = self.command(epoch, words);
        let mut child = command.spawn().context("run unshare, of util-linux")?;
        let (mut tail, mut said) = (Tail::default(), Vec::new());
        let mut lines = BufReader::new(child.stdout.take().context("read what dnf says")?).lines();
        while let Some(line) = lines.next_line().await.context("read what dnf says")? {
            said.push(line.clone());
            tail.line(build.report, line);
        }
        let status = child.wait().await.context("wait for dnf")?;
        Ok(Ended { status, tail, said })
    }

    /// Runs the command in silence; its status and all it said.
    pub async fn ask(&self, words: &[String]) -> Result<(ExitStatus, Vec<String>)> {
        let output = self.command(0, words).output().await.context("run unshare, of util-linux")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok((output.status, text.lines().map(str::to_owned).collect()))
    }

    fn command(&self, epoch: u64, words: &[String]) -> Command {
        let mut command = Command::new("unshare");
        command.args(APART).args(["sh", "-c", SCRIPT, "sh"]);
        for root in &self.roots {
            command.arg("root").arg(root);
        }
        for (from, to) in &self.binds {
            command.arg("bind").arg(from).arg(to);
        }
        command
            .arg("--")
            .args(words)
            .env("HOME", &self.home)
            .env("LC_ALL", "C.UTF-8")
            .env("SOURCE_DATE_EPOCH", epoch.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}
