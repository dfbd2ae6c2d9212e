//! What the members of a group of clones know of each other: names, addresses, host keys, and one key that lets each into
//! the others. Pure: the files as data.

use std::net::Ipv4Addr;

use crate::container::Account;
use crate::container::record::{Cloned, Peer, Record};
use crate::engine::{File, ImageFacts};
use crate::spec::ContainerName;

/// The group's key in a person's home.
pub const KEY: &str = ".ssh/moorage_clones";
/// The host keys of the group's members.
const KNOWN_HOSTS: &str = "/etc/ssh/moorage_known_hosts";

/// The lines of `/etc/hosts` for the others; the engine writes a container's own.
pub fn hosts(cloned: &Cloned, own: &ContainerName) -> Vec<(String, Ipv4Addr)> {
    let others = cloned.group.iter().filter(|peer| peer.name != *own);
    others.map(|peer| (peer.name.to_string(), peer.address)).collect()
}

/// The files of a member's root filesystem beside its own identity. `root_keys` is what its root's `authorized_keys` says.
pub fn root_files(
    record: &Record,
    cloned: &Cloned,
    facts: &ImageFacts,
    root_keys: Option<&[u8]>,
) -> Vec<File> {
    if !facts.sshd {
        return Vec::new();
    }
    let mut files = vec![
        directory("/etc/ssh/ssh_config.d", 0o755),
        File::of_root("/etc/ssh/ssh_config.d/moorage-clones.conf", 0o644, ssh_config(&cloned.group)),
        File::of_root(KNOWN_HOSTS, 0o644, known_hosts(&cloned.group)),
    ];
    if record.people.iter().any(Account::is_root) {
        files.push(directory("/root/.ssh", 0o700));
        files.push(File::of_root(&format!("/root/{KEY}"), 0o600, cloned.key.private.clone()));
        let keys = with_key(root_keys.unwrap_or_default(), cloned);
        files.push(File::of_root("/root/.ssh/authorized_keys", 0o600, keys));
    }
    files
}

fn directory(path: &str, mode: u32) -> File {
    File { path: path.to_owned(), mode, uid: 0, gid: 0, content: None }
}

/// An `authorized_keys` with the group's key, once.
pub fn with_key(authorized: &[u8], cloned: &Cloned) -> Vec<u8> {
    let line = format!("{} clones-of-{}", cloned.key.public, cloned.from);
    let mut text = authorized.to_vec();
    if text.split(|byte| *byte == b'\n').any(|have| have == line.as_bytes()) {
        return text;
    }
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
    text.extend_from_slice(line.as_bytes());
    text.push(b'\n');
    text
}

/// ssh_config(5): the group's key for the group, and whoever else's keys for the rest.
fn ssh_config(group: &[Peer]) -> String {
    let names: Vec<String> =
        group.iter().flat_map(|peer| [peer.name.to_string(), peer.address.to_string()]).collect();
    format!(
        "Host {}\n    IdentityFile ~/{KEY}\n    IdentityFile ~/.ssh/id_ed25519\n    IdentityFile ~/.ssh/id_rsa\n    \
         GlobalKnownHostsFile /etc/ssh/ssh_known_hosts {KNOWN_HOSTS}\n",
        names.join(" ")
    )
}

/// sshd(8), ssh_known_hosts.
fn known_hosts(group: &[Peer]) -> String {
    group.iter().map(|peer| format!("{},{} {}\n", peer.name, peer.address, peer.host_key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::record::HostKey;

    fn cloned() -> Cloned {
        let peer = |name: &str, last: u8| Peer {
            name: name.parse().unwrap(),
            address: [10, 0, 0, last].into(),
            host_key: format!("ssh-ed25519 KEY{last}"),
        };
        Cloned {
            from: "siem-ann".parse().unwrap(),
            group: vec![peer("siem-ann", 5), peer("siem-1-ann", 6)],
            key: HostKey { private: "private".into(), public: "ssh-ed25519 GROUP".into() },
        }
    }

    #[test]
    fn members_find_and_know_each_other() {
        insta::assert_snapshot!(ssh_config(&cloned().group), @r"
        Host siem-ann 10.0.0.5 siem-1-ann 10.0.0.6
            IdentityFile ~/.ssh/moorage_clones
            IdentityFile ~/.ssh/id_ed25519
            IdentityFile ~/.ssh/id_rsa
            GlobalKnownHostsFile /etc/ssh/ssh_known_hosts /etc/ssh/moorage_known_hosts
        ");
        insta::assert_snapshot!(known_hosts(&cloned().group), @r"
        siem-ann,10.0.0.5 ssh-ed25519 KEY5
        siem-1-ann,10.0.0.6 ssh-ed25519 KEY6
        ");
        let others = hosts(&cloned(), &"siem-ann".parse().unwrap());
        assert_eq!(others, [("siem-1-ann".to_owned(), [10, 0, 0, 6].into())]);
    }

    #[test]
    fn the_groups_key_is_added_once_and_nothing_is_taken_away() {
        let added = with_key(b"ssh-rsa MINE ann", &cloned());
        assert_eq!(added, b"ssh-rsa MINE ann\nssh-ed25519 GROUP clones-of-siem-ann\n");
        assert_eq!(with_key(&added, &cloned()), added);
    }
}
