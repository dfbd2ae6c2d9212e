//! Where definitions are read from: the site's directory over the built-in `roles/`, file by file.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use include_dir::{Dir, include_dir};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::text::Source;
use crate::report::{Fault, Kind};

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/roles");

/// A definition or licence larger than this is a mistake (bytes). A request to the daemon holds several.
const LARGEST: u64 = 1 << 20;

/// The layered files of a site.
#[derive(Debug, Clone)]
pub struct Files {
    site: Option<PathBuf>,
}

/// One file and where it was found, as a person would name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub origin: String,
    pub bytes: Vec<u8>,
}

impl Files {
    /// Fails when `site` is not a directory with at least one of the directories of `roles/` in it.
    pub fn open(site: Option<&Path>) -> Result<Files, Fault> {
        if let Some(directory) = site {
            let roles: Vec<_> = BUILT_IN.dirs().filter_map(|d| d.path().to_str()).collect();
            if !directory.is_dir() {
                return Err(Fault::new(
                    Kind::NotFound,
                    format!("the site's directory {} does not exist", directory.display()),
                )
                .next("name an existing directory with --site, or none for the built-in site"));
            }
            if !roles.iter().any(|role| directory.join(role).is_dir()) {
                return Err(Fault::new(
                    Kind::Usage,
                    format!("{} is not a site: it holds none of {}", directory.display(), roles.join(", ")),
                )
                .next("lay it out like roles/, for example dockeruser/projects/siem.toml (docs/site.md)"));
            }
        }
        Ok(Files { site: site.map(Path::to_owned) })
    }

    /// The site's directory, where there is one.
    pub fn directory(&self) -> Option<&Path> {
        self.site.as_deref()
    }

    /// The file called `name` (relative to `roles/`), the site's before the built-in one; `None` where neither has it.
    ///
    /// A name that is absolute or holds `..`, and a symbolic link that leads out of the site's directory, are refused.
    pub fn read(&self, name: &str) -> Result<Option<Found>, Fault> {
        relative(name)?;
        if let Some(site) = &self.site
            && let Some(bytes) = read_beneath(site, name)?
        {
            return Ok(Some(Found { origin: site.join(name).display().to_string(), bytes }));
        }
        Ok(BUILT_IN
            .get_file(name)
            .map(|file| Found { origin: format!("built-in roles/{name}"), bytes: file.contents().to_vec() }))
    }

    /// The same, as text that remembers where it came from.
    pub(super) fn text(&self, name: &str) -> Result<Option<Source>, Fault> {
        let Some(found) = self.read(name)? else { return Ok(None) };
        match String::from_utf8(found.bytes) {
            Ok(text) => Ok(Some(Source { origin: found.origin, text })),
            Err(_) => Err(Fault::new(Kind::Usage, format!("{} is not UTF-8 text", found.origin))
                .next("save it as UTF-8, then run the same command again")),
        }
    }

    /// The names of files below `directory` (relative to it, however deep), of both layers, sorted.
    pub fn tree(&self, directory: &str) -> Result<BTreeSet<String>, Fault> {
        let mut names = BTreeSet::new();
        for (name, is_directory) in self.entries(directory)? {
            if is_directory {
                let below = self.tree(&format!("{directory}/{name}"))?;
                names.extend(below.into_iter().map(|inner| format!("{name}/{inner}")));
            } else {
                names.insert(name);
            }
        }
        Ok(names)
    }

    /// The names of the directories in `directory`, of both layers, sorted.
    pub fn directories(&self, directory: &str) -> Result<BTreeSet<String>, Fault> {
        Ok(self.entries(directory)?.into_iter().filter(|e| e.1).map(|e| e.0).collect())
    }

    /// The names of the files in `directory` that end in `suffix`, without it, of both layers, sorted.
    pub fn stems(&self, directory: &str, suffix: &str) -> Result<BTreeSet<String>, Fault> {
        let files = self.entries(directory)?.into_iter().filter(|e| !e.1);
        Ok(files.filter_map(|(name, _)| name.strip_suffix(suffix).map(str::to_owned)).collect())
    }

    /// What is in `directory`, hidden files left out: a name, and whether it is a directory.
    fn entries(&self, directory: &str) -> Result<BTreeSet<(String, bool)>, Fault> {
        relative(directory)?;
        let mut entries = BTreeSet::new();
        for entry in BUILT_IN.get_dir(directory).map(Dir::entries).unwrap_or_default() {
            if let Some(name) = entry.path().file_name().and_then(|n| n.to_str()) {
                entries.insert((name.to_owned(), entry.as_dir().is_some()));
            }
        }
        if let Some(site) = &self.site
            && let Some(directory) = open_beneath(site, directory, OFlags::RDONLY | OFlags::DIRECTORY)?
        {
            let list = rustix::fs::Dir::new(directory).map_err(|e| unreadable(site, e))?;
            for entry in list {
                let entry = entry.map_err(|e| unreadable(site, e))?;
                if let Ok(name) = entry.file_name().to_str() {
                    entries.insert((name.to_owned(), entry.file_type() == FileType::Directory));
                }
            }
        }
        entries.retain(|(name, _)| !name.starts_with('.'));
        Ok(entries)
    }
}

/// Only names that stay below where they are looked up.
fn relative(name: &str) -> Result<(), Fault> {
    let inside =
        !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match inside {
        true => Ok(()),
        false => Err(Fault::new(
            Kind::Usage,
            format!("{name:?} is not a file of the site: names are relative, without `..`"),
        )
        .next("put the file into the site's directory and name it from there")),
    }
}

fn unreadable(path: &Path, error: Errno) -> Fault {
    let what = format!("{} cannot be read", path.display());
    match error {
        Errno::XDEV => Fault::new(Kind::Usage, what)
            .why("it leads out of the site's directory")
            .next("put the file itself there, no link to it"),
        Errno::ACCESS | Errno::PERM => Fault::new(Kind::Denied, what)
            .why(error.to_string())
            .next("ask whoever looks after the site to let you read it"),
        _ => Fault::new(Kind::Failed, what).why(error.to_string()).next(format!("ls -la {}", path.display())),
    }
}

/// Opens `name` below `site`; the kernel refuses whatever would leave it.
fn open_beneath(site: &Path, name: &str, flags: OFlags) -> Result<Option<OwnedFd>, Fault> {
    let root = rustix::fs::open(site, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| unreadable(site, e))?;
    // NONBLOCK: a fifo must not hang us.
    let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve) {
        Ok(opened) => Ok(Some(opened)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(unreadable(&site.join(name), e)),
    }
}

fn read_beneath(site: &Path, name: &str) -> Result<Option<Vec<u8>>, Fault> {
    let Some(opened) = open_beneath(site, name, OFlags::RDONLY)? else { return Ok(None) };
    let path = site.join(name);
    let bad = |why: String| {
        Fault::new(Kind::Usage, format!("{} cannot be read", path.display()))
            .why(why)
            .next(format!("ls -la {}", path.display()))
    };
    let file = std::fs::File::from(opened);
    let metadata = file.metadata().map_err(|e| bad(e.to_string()))?;
    if !metadata.is_file() {
        return Err(bad("it is not a regular file".into()));
    }
    let mut bytes = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(|e| bad(e.to_string()))?;
    match bytes.len() as u64 > LARGEST {
        true => Err(bad("it is larger than 1 MiB".into())),
        false => Ok(Some(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("dockeruser/projects")).unwrap();
        let files = Files::open(Some(directory.path())).unwrap();
        (directory, files)
    }

    #[test]
    fn the_site_overrides_file_by_file() {
        let (directory, files) = site();
        let name = "dockeruser/projects/demo.toml";
        assert!(files.read(name).unwrap().unwrap().origin.starts_with("built-in"));
        std::fs::write(directory.path().join(name), "x").unwrap();
        std::fs::write(directory.path().join("dockeruser/projects/siem.toml"), "").unwrap();
        assert_eq!(files.read(name).unwrap().unwrap().bytes, b"x");
        let stems = files.stems("dockeruser/projects", ".toml").unwrap();
        assert_eq!(stems.into_iter().collect::<Vec<_>>(), ["demo", "siem"]);
    }

    #[test]
    fn nothing_outside_the_site_is_read() {
        let (directory, files) = site();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("dockeruser/out")).unwrap();
        std::os::unix::fs::symlink("../../x", directory.path().join("dockeruser/up")).unwrap();
        for name in ["/etc/passwd", "../x", "dockeruser/../../x", "", "dockeruser/out", "dockeruser/up"] {
            assert!(files.read(name).is_err(), "{name}");
        }
        rustix::fs::mknodat(
            rustix::fs::CWD,
            directory.path().join("dockeruser/fifo"),
            FileType::Fifo,
            Mode::RWXU,
            0,
        )
        .unwrap();
        assert!(files.read("dockeruser/fifo").is_err());
    }

    #[test]
    fn what_is_not_a_site_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Files::open(Some(directory.path())).unwrap_err().kind, Kind::Usage);
        assert_eq!(Files::open(Some(&directory.path().join("x"))).unwrap_err().kind, Kind::NotFound);
    }
}
