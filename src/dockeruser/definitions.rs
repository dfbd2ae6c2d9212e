//! The site as the person at the keyboard sees it, and who that person is.

use std::path::Path;

use anyhow::{Context as _, Result};
use nix::unistd::{Group, User, geteuid, getgroups};

use crate::invocation::Invocation;
use crate::report::{Fault, Kind};
use crate::site::{HostConfig, Site, host};
use crate::spec::Owner;

/// The definitions in force here: built-in, the site's, this host's.
pub fn site(invocation: &Invocation) -> Result<Site> {
    let host = HostConfig::load(Path::new(host::CONFIG))?;
    Ok(Site::load(invocation.site.as_deref(), host)?)
}

/// Who is at the keyboard.
#[derive(Debug, Clone)]
pub struct Person {
    pub name: String,
}

impl Person {
    pub fn at_the_keyboard() -> Result<Person> {
        let uid = geteuid();
        let user = User::from_uid(uid).context("look up who you are")?;
        match user {
            Some(user) => Ok(Person { name: user.name }),
            None => {
                let fault = Fault::new(Kind::Missing, format!("user {uid} has no name on this host"));
                Err(fault.next(format!("getent passwd {uid}")).into())
            }
        }
    }

    pub fn owner(&self) -> Result<Owner> {
        Ok(self.name.parse()?)
    }

    /// The owners that stand for this person: themselves and their groups.
    pub fn owners(&self) -> Result<Vec<Owner>> {
        let mut owners = vec![self.owner()?];
        for gid in getgroups().context("look up your groups")? {
            owners.extend(Group::from_gid(gid)?.map(|group| Owner::Group(group.name)));
        }
        Ok(owners)
    }
}

/// The people in a group that is an owner; nobody for a person.
///
/// # Errors
/// [`Kind::NotFound`] when there is no such group.
pub fn members(owner: &Owner) -> Result<Vec<String>> {
    let Owner::Group(name) = owner else {
        return Ok(vec![]);
    };
    match Group::from_name(name).with_context(|| format!("look up the group {name}"))? {
        Some(group) => Ok(group.mem),
        None => {
            let fault = Fault::new(Kind::NotFound, format!("there is no group {name:?} on this host"));
            Err(fault.next(format!("getent group {name}")).into())
        }
    }
}

/// The lines of the public keys in `~/.ssh`: what `ssh` offers, so what has to let the person in. The site leaves
/// out what is no key (a certificate, a comment).
pub fn public_keys(home: &Path) -> Result<Vec<String>> {
    let directory = home.join(".ssh");
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(e) => return Err(e).with_context(|| format!("list {}", directory.display())),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "pub") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut keys = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        keys.extend(text.lines().map(str::to_owned));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_keys_are_read() {
        let home = tempfile::tempdir().unwrap();
        assert!(public_keys(home.path()).unwrap().is_empty());
        let ssh = home.path().join(".ssh");
        std::fs::create_dir(&ssh).unwrap();
        std::fs::write(ssh.join("id_rsa.pub"), "ssh-rsa AAAA\n").unwrap();
        std::fs::write(ssh.join("id_ed25519.pub"), "ssh-ed25519 AAAA ann@host\n").unwrap();
        std::fs::write(ssh.join("id_ed25519"), "-----BEGIN OPENSSH PRIVATE KEY-----").unwrap();
        assert_eq!(public_keys(home.path()).unwrap(), ["ssh-ed25519 AAAA ann@host", "ssh-rsa AAAA"]);
    }

    #[test]
    fn a_group_that_is_not_there_is_named() {
        let group = "@no-such-group-here".parse().unwrap();
        assert_eq!(Fault::of(&members(&group).unwrap_err()).kind, Kind::NotFound);
        assert!(members(&"ann".parse().unwrap()).unwrap().is_empty());
    }
}
