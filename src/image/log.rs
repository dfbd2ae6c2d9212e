//! What was said while an image was made, kept in a file.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};

use crate::report::{Event, Reporter};

/// The most logs that are kept of one image.
const KEPT: usize = 20;

/// Opens `<directory>/<image>/<time>.log` and answers its path, with a reporter that writes there all that is said.
pub(super) fn tee(directory: &Path, image: &str, report: &Reporter) -> Result<(PathBuf, Reporter)> {
    let directory = directory.join(image);
    let now = jiff::Timestamp::now();
    let path = directory.join(format!("{}.log", now.strftime("%Y%m%dT%H%M%S%.3fZ")));
    let open = || -> std::io::Result<File> {
        std::fs::create_dir_all(&directory)?;
        prune(&directory)?;
        File::options().append(true).create(true).open(&path)
    };
    let file = Arc::new(Mutex::new(open().with_context(|| format!("open the log {}", path.display()))?));
    let report = report.clone();
    let tee = Reporter::new(move |event| {
        if let Some(line) = line(&event) {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            // A full disk must not stop a build: its own writes will say so.
            let _ = writeln!(file, "{} {line}", jiff::Timestamp::now());
        }
        report.send(event);
    });
    Ok((path, tee))
}

fn line(event: &Event) -> Option<String> {
    match event {
        Event::Begin { text, .. } | Event::End { text, .. } => Some(text.clone()),
        Event::Output { line, .. } => Some(format!("| {line}")),
        Event::Warning { text } => Some(format!("warning: {text}")),
        _ => None,
    }
}

/// Removes all but the newest; their names sort by time.
fn prune(directory: &Path) -> std::io::Result<()> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        logs.push(entry?.path());
    }
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    logs.iter().rev().skip(KEPT - 1).try_for_each(std::fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_kept_and_handed_on() {
        let directory = tempfile::tempdir().unwrap();
        let (path, report) = tee(directory.path(), "demo", &Reporter::silent()).unwrap();
        report.begin("build", "build demo");
        report.output("build", "Step 1/2");
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.contains(" build demo\n") && text.contains(" | Step 1/2\n"), "{text}");
    }
}
