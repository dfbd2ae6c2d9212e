//! The log of one run: `<storage>/logs/<name>/<time>-<verb>.log`, root's, readable by the owner's group.

use std::fs::{DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

use crate::report::{Event, Reporter};

/// An open log.
#[derive(Debug)]
pub struct RunLog {
    pub path: PathBuf,
    file: Arc<Mutex<File>>,
}

/// Where the logs of container `name` are.
pub fn directory(storage: &Path, name: &str) -> PathBuf {
    storage.join("logs").join(name)
}

/// Lets the group `gid` read a log that was opened before it was known whose container it is about.
pub fn give(log: &Path, gid: u32) -> Result<()> {
    let directory = log.parent().context("a log needs a directory")?;
    std::os::unix::fs::chown(directory, Some(0), Some(gid))
        .and_then(|()| std::os::unix::fs::chown(log, Some(0), Some(gid)))
        .with_context(|| format!("give {} to group {gid}", log.display()))
}

impl RunLog {
    /// Opens the log of a run of `verb` on container `name`.
    pub fn open(storage: &Path, name: &str, verb: &str, gid: u32) -> Result<RunLog> {
        let directory = directory(storage, name);
        let path =
            directory.join(format!("{}-{verb}.log", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ")));
        let open = || -> std::io::Result<File> {
            DirBuilder::new().recursive(true).mode(0o755).create(storage.join("logs"))?;
            DirBuilder::new().recursive(true).mode(0o750).create(&directory)?;
            std::os::unix::fs::chown(&directory, Some(0), Some(gid))?;
            let file = File::options().append(true).create(true).mode(0o640).open(&path)?;
            fchown(&file, Some(0), Some(gid))?;
            Ok(file)
        };
        let file = open().with_context(|| format!("open the log {}", path.display()))?;
        Ok(RunLog { path, file: Arc::new(Mutex::new(file)) })
    }

    /// Writes how the run ended.
    pub fn close<T>(&self, result: &Result<T>) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = match result {
            Ok(_) => writeln!(file, "{} done", jiff::Timestamp::now()),
            Err(error) => writeln!(file, "{} failed: {error:#}", jiff::Timestamp::now()),
        };
    }

    /// `report`, with everything said written to the log too.
    pub fn tee(&self, report: &Reporter) -> Reporter {
        let (file, report) = (self.file.clone(), report.clone());
        Reporter::new(move |event| {
            if let Some(line) = line(&event) {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                // A full disk must not stop the operation: its own writes will say so.
                let _ = writeln!(file, "{} {line}", jiff::Timestamp::now());
            }
            report.send(event);
        })
    }
}

fn line(event: &Event) -> Option<String> {
    Some(match event {
        Event::Begin { step, text } => format!("{step}: {text}"),
        Event::End { step, text } => format!("{step}: done: {text}"),
        Event::Output { step, line } => format!("{step}| {line}"),
        Event::Warning { text } => format!("warning: {text}"),
        // How it ended is written by `close`, whoever listens.
        Event::Failed { .. } | Event::Done { .. } => return None,
        Event::Progress { .. } | Event::Staging { .. } => return None,
    })
}
