//! Files of a container's root filesystem that have to be out of the way while it is committed, and are put back after.
//!
//! They go into a directory beside the upper directory, which the engine removes with the container. What is there is put
//! back from there: nothing else has to be remembered.

use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags, mkdirat, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use super::Upper;
use crate::opt::beneath::{self, Inner};
use crate::opt::store::directory;

/// The directory beside the upper one.
const ASIDE: &str = "moorage-aside";
/// Stands for the slash in a name there; none of the names that are put away has it.
const SLASH: &str = "!";

/// Records of logins, which are as long as the largest user number asks for and almost all hole: the engine writes the
/// holes out. And what no other machine may have.
const AWAY: [&str; 5] = [
    "var/log/lastlog",
    "var/log/faillog",
    "var/log/tallylog",
    "var/lib/systemd/random-seed",
    "var/lib/dbus/machine-id",
];
/// SSH's host keys, of whatever sort.
const HOST_KEYS: (&str, &str) = ("etc/ssh", "ssh_host_");

impl Upper {
    /// Moves regular files that no copy of the machine may have out of the root filesystem of a stopped container, whose upper
    /// directory is `upper`.
    pub fn put_away(upper: &Path) -> Result<()> {
        let root = Upper::of_root(upper, &[])?;
        let beside = directory(upper.parent().context("an upper directory has a parent")?)?;
        let mut paths: Vec<String> = AWAY.map(str::to_owned).into();
        paths.extend(root.host_keys()?);
        let put = || -> Result<()> {
            for path in paths {
                let inner = Inner::parse(path.as_bytes())?;
                match beneath::look(&root.handle, &inner) {
                    Ok(Some(stat)) if beneath::sort(&stat).is_file() => {}
                    Ok(_) | Err(Errno::LOOP | Errno::NOTDIR) => continue,
                    Err(e) => return Err(e.into()),
                }
                match mkdirat(&beside, ASIDE, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
                let Some((parent, name)) = inner.split() else { continue };
                let parent = beneath::handle(&root.handle, &parent)?;
                let away = format!("{ASIDE}/{}", path.replace('/', SLASH));
                renameat_with(&parent, name, &beside, away, RenameFlags::empty())?;
            }
            Ok(())
        };
        put().with_context(|| format!("put the records of logins in {} away", upper.display()))
    }

    /// Puts back what was put away. A file that was made anew meanwhile stays. Nothing put away is no error.
    pub fn put_back(upper: &Path) -> Result<()> {
        let root = Upper::of_root(upper, &[])?;
        let beside = directory(upper.parent().context("an upper directory has a parent")?)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let put = || -> Result<()> {
            let away = match openat(&beside, ASIDE, flags, Mode::empty()) {
                Ok(away) => away,
                Err(Errno::NOENT) => return Ok(()),
                Err(e) => return Err(e.into()),
            };
            for entry in Dir::read_from(&away)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().to_str() else { continue };
                if name == "." || name == ".." {
                    continue;
                }
                let inner = Inner::parse(name.replace(SLASH, "/").as_bytes())?;
                let Some((parent, last)) = inner.split() else { continue };
                let back = beneath::handle(&root.handle, &parent)
                    .and_then(|parent| renameat_with(&away, name, parent, last, RenameFlags::NOREPLACE));
                match back {
                    Ok(()) => {}
                    Err(Errno::EXIST | Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {
                        unlinkat(&away, name, AtFlags::empty())?;
                    }
                    Err(e) => return Err(e.into()),
                }
            }
            Ok(unlinkat(&beside, ASIDE, AtFlags::REMOVEDIR)?)
        };
        put().with_context(|| format!("put the records of logins in {} back", upper.display()))
    }

    fn host_keys(&self) -> Result<Vec<String>> {
        let (place, first) = HOST_KEYS;
        let inner = Inner::parse(place.as_bytes())?;
        let list = match beneath::open(&self.handle, &inner, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(list) => list,
            Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => return Ok(Vec::new()),
            Err(e) => return Err(e).with_context(|| format!("list {place}")),
        };
        let mut keys = Vec::new();
        for entry in Dir::read_from(&list)? {
            let entry = entry?;
            if let Ok(name) = entry.file_name().to_str()
                && name.starts_with(first)
                && !name.contains(SLASH)
            {
                keys.push(format!("{place}/{name}"));
            }
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_away_comes_back_and_what_is_new_stays() {
        let place = tempfile::tempdir().unwrap();
        let upper = place.path().join("diff");
        for directory in ["var/log", "etc/ssh", "var/lib"] {
            std::fs::create_dir_all(upper.join(directory)).unwrap();
        }
        // A link where a directory is expected leads nowhere.
        std::os::unix::fs::symlink("/etc", upper.join("var/lib/dbus")).unwrap();
        let files = ["var/log/lastlog", "var/log/faillog", "etc/ssh/ssh_host_rsa_key", "etc/ssh/sshd_config"];
        for file in files {
            std::fs::write(upper.join(file), file).unwrap();
        }
        Upper::put_back(&upper).unwrap();
        Upper::put_away(&upper).unwrap();
        Upper::put_away(&upper).unwrap();
        let here = |file: &str| upper.join(file).exists();
        assert!(!here("var/log/lastlog") && !here("etc/ssh/ssh_host_rsa_key") && here("etc/ssh/sshd_config"));
        std::fs::write(upper.join("var/log/faillog"), "new").unwrap();
        Upper::put_back(&upper).unwrap();
        let said = |file: &str| std::fs::read_to_string(upper.join(file)).unwrap();
        assert_eq!(said("var/log/lastlog"), "var/log/lastlog");
        assert_eq!(said("etc/ssh/ssh_host_rsa_key"), "etc/ssh/ssh_host_rsa_key");
        assert_eq!(said("var/log/faillog"), "new");
        assert!(!place.path().join(ASIDE).exists());
    }
}
