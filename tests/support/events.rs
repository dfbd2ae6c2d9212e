//! Programs that go on while a test does something else, and waiting for what they say.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Outcome, Person, root};

/// The longest that a test waits for one event.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of a stream as they come.
#[derive(Debug)]
struct Lines {
    incoming: Receiver<String>,
    seen: Vec<String>,
}

impl Lines {
    fn of(stream: impl Read + Send + 'static) -> Lines {
        let (sender, incoming) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines() {
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Lines { incoming, seen: Vec::new() }
    }

    /// The next line that `wanted` takes; `None` when the stream ended without it.
    fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.incoming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if wanted(&line) {
                        return Some(line);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{what} did not come in {PATIENCE:?}; what came:\n{}", self.seen.join("\n"))
                }
            }
        }
    }
}

/// Waits until something holds that is a matter of what is in `directory`: looks again whenever that changes
/// (inotify(7)).
#[track_caller]
pub fn until_directory(directory: &Path, holds: impl Fn() -> bool) {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK).unwrap();
    let flags = inotify::WatchFlags::CREATE | inotify::WatchFlags::DELETE | inotify::WatchFlags::MOVE;
    inotify::add_watch(&watch, directory, flags).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).unwrap();
        let happened = poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout)).unwrap();
        let list =
            || fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
        assert!(
            happened > 0,
            "{} did not become as expected in {PATIENCE:?}: {:?}",
            directory.display(),
            list()
        );
        // What happened is looked at, not read.
        while rustix::io::read(&watch, &mut [0; 4096]).is_ok_and(|length| length > 0) {}
    }
}

/// A `moorage` command that runs, its progress read as events.
#[derive(Debug)]
pub struct Running {
    child: Child,
    line: String,
    events: Lines,
}

impl Running {
    pub fn start(person: &Person, arguments: &[&str]) -> Running {
        // Not through setpriv, which would be killed in its place: setpriv becomes the program.
        let mut command = person.command("moorage");
        command.args(arguments).args(["--progress", "json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("{command:?}");
        let mut child = command.spawn().unwrap();
        let events = Lines::of(child.stderr.take().unwrap());
        Running { child, line, events }
    }

    /// Waits until the step begins. `false` when the command ended without it.
    pub fn reaches(&mut self, step: &str) -> bool {
        self.event(&format!("the step {step}"), |event| event["event"] == "begin" && event["step"] == step)
    }

    /// Waits for any event. `false` when the command ended without it.
    pub fn event(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> bool {
        let is = |line: &str| serde_json::from_str(line).is_ok_and(|event| wanted(&event));
        self.events.until(what, is).is_some()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end.
    pub fn end(mut self) -> Outcome {
        while self.events.until("the end", |_| false).is_some() {}
        let output = self.child.wait_with_output().unwrap();
        let mut outcome = Outcome::from_output(self.line, &output);
        outcome.stderr = self.events.seen.join("\n");
        outcome
    }
}

/// A stream that is followed while something happens: `docker events`, `ip monitor`, a log.
#[derive(Debug)]
pub struct Following {
    child: Child,
    lines: Lines,
}

impl Following {
    pub fn command(command: &mut Command) -> Following {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let lines = Lines::of(child.stdout.take().unwrap());
        Following { child, lines }
    }

    /// What dockerd says about one container from `since` on (so that nothing is missed in between): `die`, `start`, ….
    pub fn container(name: &str, since: jiff::Timestamp) -> Following {
        let mut command = root().command("docker");
        let since = format!("{}.{:09}", since.as_second(), since.subsec_nanosecond());
        command.args([
            "events",
            "--since",
            &since,
            "--filter",
            &format!("container={name}"),
            "--format",
            "{{.Action}}",
        ]);
        Following::command(&mut command)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for a line; fails when the stream ends without it.
    #[track_caller]
    pub fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let line = self.lines.until(what, wanted);
        line.unwrap_or_else(|| panic!("{what} never came; what came:\n{}", self.lines.seen.join("\n")))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
