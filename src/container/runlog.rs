//! The log of one run: `<storage>/logs/<name>/<time>-<verb>.log`, root's, readable by the container's owner. What is said
//! inside goes into it, so its length is limited; so is the number of runs that are kept.

use std::fs::{DirBuilder, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use rustix::io::Errno;
use xattr::FileExt as _;

use crate::report::{Event, Reporter, escape};

/// The longest log, bytes; how the run ended comes on top.
const LONGEST: usize = 16 << 20;
/// The most logs that are kept of one container, or of those that had its name before.
const KEPT: usize = 50;

/// An open log.
#[derive(Debug)]
pub struct RunLog {
    pub path: PathBuf,
    lines: Arc<Mutex<Lines>>,
}

/// What is written, until it is too much.
#[derive(Debug)]
struct Lines {
    file: File,
    /// Bytes that may still be written.
    left: usize,
}

impl Lines {
    fn write(&mut self, line: &str) {
        // It is read with cat(1), by admins too.
        let line = format!("{} {}\n", jiff::Timestamp::now(), escape(line));
        let (text, left) = match self.left.checked_sub(line.len()) {
            Some(left) => (line.as_str(), left),
            None if self.left > 0 => ("cut here\n", 0),
            None => return,
        };
        self.left = left;
        // A full disk must not stop the operation: its own writes will say so.
        let _ = self.file.write_all(text.as_bytes());
    }
}

/// Where the logs of container `name` are.
pub fn directory(storage: &Path, name: &str) -> PathBuf {
    storage.join("logs").join(name)
}

/// Who reads a container's logs, beside root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// By uid, and not by a primary group, which may be that of everybody.
    Person(u32),
    /// By gid.
    Group(u32),
}

impl Reader {
    /// Lets the reader into a directory or a file of root's, and whoever was before out of it.
    fn let_in(self, file: &File, permissions: u32) -> std::io::Result<()> {
        let gid = match self {
            Reader::Person(_) => 0,
            Reader::Group(gid) => gid,
        };
        match file.remove_xattr(ACL) {
            Err(error) if error.raw_os_error().is_some_and(|code| code != NO_ACL && code != NO_ACLS) => {
                Err(error)
            }
            _ => Ok(()),
        }?;
        fchown(file, Some(0), Some(gid))?;
        file.set_permissions(Permissions::from_mode(permissions))?;
        match self {
            Reader::Group(_) => Ok(()),
            Reader::Person(uid) => file.set_xattr(ACL, &acl(permissions, uid)),
        }
    }
}

/// Where the kernel keeps who else may do what (acl(5)).
const ACL: &str = "system.posix_acl_access";
/// There is none, and there can be none.
const NO_ACL: i32 = Errno::NODATA.raw_os_error();
const NO_ACLS: i32 = Errno::OPNOTSUPP.raw_os_error();

/// `permissions`, of which the group's are one person's instead; as in the kernel's `posix_acl_xattr.h`.
fn acl(permissions: u32, uid: u32) -> Vec<u8> {
    const VERSION: u32 = 2;
    const NOBODY: u32 = u32::MAX;
    let (own, theirs) = (permissions >> 6 & 7, permissions >> 3 & 7);
    // The file's owner, the person, the group, the most that the two may, everybody else.
    let entries = [
        (0x01, own, NOBODY),
        (0x02, theirs, uid),
        (0x04, 0, NOBODY),
        (0x10, theirs, NOBODY),
        (0x20, 0, NOBODY),
    ];
    let mut bytes = VERSION.to_le_bytes().to_vec();
    for (tag, may, id) in entries {
        bytes.extend([tag, 0]);
        bytes.extend(&may.to_le_bytes()[..2]);
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

/// Lets `reader` read a log that was opened before it was known whose container it is about.
pub fn give(log: &Path, reader: Reader) -> Result<()> {
    let directory = log.parent().context("a log needs a directory")?;
    File::open(directory)
        .and_then(|directory| reader.let_in(&directory, DIRECTORY))
        .and_then(|()| reader.let_in(&File::open(log)?, FILE))
        .with_context(|| format!("give {} to its owner", log.display()))
}

/// The permissions of a container's directory of logs, and of a log.
const DIRECTORY: u32 = 0o750;
const FILE: u32 = 0o640;

impl RunLog {
    /// Opens the log of a run of `verb` on container `name`.
    pub fn open(storage: &Path, name: &str, verb: &str, reader: Reader) -> Result<RunLog> {
        let directory = directory(storage, name);
        let path =
            directory.join(format!("{}-{verb}.log", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%.3fZ")));
        let open = || -> std::io::Result<File> {
            DirBuilder::new().recursive(true).mode(0o755).create(storage.join("logs"))?;
            DirBuilder::new().recursive(true).mode(DIRECTORY).create(&directory)?;
            reader.let_in(&File::open(&directory)?, DIRECTORY)?;
            let file = File::options().append(true).create(true).mode(0o600).open(&path)?;
            reader.let_in(&file, FILE)?;
            Ok(file)
        };
        let file = open().with_context(|| format!("open the log {}", path.display()))?;
        prune(&directory).with_context(|| format!("remove old logs in {}", directory.display()))?;
        Ok(RunLog { path, lines: Arc::new(Mutex::new(Lines { file, left: LONGEST })) })
    }

    /// Writes a line that a container said.
    pub fn line(&self, line: &str) {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).write(line);
    }

    /// Writes how the run ended.
    pub fn close<T>(&self, result: &Result<T>) {
        let mut file = &self.lines.lock().unwrap_or_else(PoisonError::into_inner).file;
        let _ = match result {
            Ok(_) => writeln!(file, "{} done", jiff::Timestamp::now()),
            Err(error) => {
                writeln!(file, "{} failed: {}", jiff::Timestamp::now(), escape(&format!("{error:#}")))
            }
        };
    }

    /// `report`, with everything said written to the log too.
    pub fn tee(&self, report: &Reporter) -> Reporter {
        let (lines, report) = (self.lines.clone(), report.clone());
        Reporter::new(move |event| {
            if let Some(line) = line(&event) {
                lines.lock().unwrap_or_else(PoisonError::into_inner).write(&line);
            }
            report.send(event);
        })
    }
}

/// Removes all but the newest logs; their names sort by time.
fn prune(directory: &Path) -> std::io::Result<()> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            logs.push(path);
        }
    }
    logs.sort();
    logs.iter().rev().skip(KEPT).try_for_each(std::fs::remove_file)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn open(storage: &Path) -> RunLog {
        RunLog::open(storage, "x-ann", "make", Reader::Group(rustix::process::getgid().as_raw())).unwrap()
    }

    #[test]
    fn a_log_ends_where_it_is_too_long_and_still_says_how_the_run_ended() {
        let storage = tempfile::tempdir().unwrap();
        let log = open(storage.path());
        let report = log.tee(&Reporter::new(|_| {}));
        let line = "x".repeat(1 << 20);
        for _ in 0..20 {
            report.output("setup", &line);
        }
        log.close(&anyhow::Ok(()));
        let text = std::fs::read_to_string(&log.path).unwrap();
        assert!(text.len() < LONGEST + 100 && text.len() > LONGEST - (2 << 20), "{}", text.len());
        let last: Vec<&str> = text.lines().rev().take(2).collect();
        assert!(last[0].ends_with(" done") && last[1] == "cut here", "{:?}", last[0]);
    }

    #[test]
    fn what_a_terminal_would_act_on_is_spelt_out() {
        let storage = tempfile::tempdir().unwrap();
        let log = open(storage.path());
        log.line("red \u{1b}[31m");
        log.close::<()>(&Err(anyhow::anyhow!("it said \u{9b}2J")));
        let text = std::fs::read_to_string(&log.path).unwrap();
        assert!(text.contains("red \\u{1b}[31m") && text.contains("it said \\u{9b}2J"), "{text}");
    }

    #[test]
    fn its_reader_reads_it_and_nobody_else_of_their_group() {
        let storage = tempfile::tempdir().unwrap();
        std::fs::set_permissions(storage.path(), Permissions::from_mode(0o755)).unwrap();
        let reads = |path: &Path, uid, gid| {
            use std::os::unix::process::CommandExt as _;
            let mut cat = std::process::Command::new("cat");
            cat.uid(uid).gid(gid).arg(path).output().unwrap().status.success()
        };
        let log = RunLog::open(storage.path(), "x-ann", "make", Reader::Group(5000)).unwrap();
        assert!(reads(&log.path, 5001, 5000) && !reads(&log.path, 5001, 5001));
        give(&log.path, Reader::Person(5001)).unwrap();
        assert!(reads(&log.path, 5001, 5000) && !reads(&log.path, 5002, 5000) && !reads(&log.path, 5002, 0));
        give(&log.path, Reader::Group(5000)).unwrap();
        assert!(reads(&log.path, 5002, 5000) && !reads(&log.path, 5001, 5001));
    }

    #[test]
    fn the_newest_logs_are_kept() {
        let storage = tempfile::tempdir().unwrap();
        let directory = directory(storage.path(), "x-ann");
        std::fs::create_dir_all(&directory).unwrap();
        for year in 1900..1900 + KEPT {
            std::fs::write(directory.join(format!("{year}0101T000000.000Z-stop.log")), "").unwrap();
        }
        std::fs::write(directory.join("note"), "").unwrap();
        let log = open(storage.path());
        assert!(log.path.exists() && directory.join("note").exists());
        assert!(!directory.join("19000101T000000.000Z-stop.log").exists());
        assert!(directory.join("19010101T000000.000Z-stop.log").exists());
    }
}
