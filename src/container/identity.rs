//! What makes a container a machine of its own: users, SSH host keys, machine-id. Pure: the files as data.

use anyhow::{Context as _, Result};
use ssh_key::rand_core::OsRng;
use ssh_key::{Algorithm, LineEnding, PrivateKey};

use super::record::{HostKey, Record};
use super::{Account, people};
use crate::engine::{File, ImageFacts};
use crate::spec::Ulimit;

/// A fresh SSH host key.
pub fn host_key(name: &str) -> Result<HostKey> {
    let mut key = PrivateKey::random(&mut OsRng, Algorithm::Ed25519).context("make an SSH host key")?;
    key.set_comment(name);
    let private = key.to_openssh(LineEnding::LF).context("write an SSH host key")?.to_string();
    key.set_comment("");
    let public = key.public_key().to_openssh().context("write an SSH host key")?;
    Ok(HostKey { private, public: public.trim().to_owned() })
}

/// What no two machines have alike.
pub fn own_files(record: &Record, facts: &ImageFacts) -> Vec<File> {
    let mut files = vec![File::of_root("/etc/machine-id", 0o444, format!("{}\n", record.machine_id))];
    if facts.sshd {
        let key = &record.host_key;
        files.push(File::of_root("/etc/ssh/ssh_host_ed25519_key", 0o600, key.private.clone()));
        files.push(File::of_root("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, format!("{}\n", key.public)));
    }
    files
}

/// Whether these people have users of that name and number in a passwd(5).
pub fn knows(passwd: &str, people: &[Account]) -> bool {
    people.iter().filter(|account| !account.is_root()).all(|account| {
        passwd.lines().any(|line| {
            let mut fields = line.split(':');
            fields.next() == Some(&account.name) && fields.nth(1) == Some(&account.uid.to_string())
        })
    })
}

/// The files of the root filesystem that are put in before the first start. What goes below `/opt` is not among
/// them: that is placed in the volume (see [`below_opt`]).
pub fn root_files(record: &Record, facts: &ImageFacts) -> Vec<File> {
    let people: Vec<&Account> = record.people.iter().filter(|account| !account.is_root()).collect();
    let shell = if facts.bash { "/bin/bash" } else { "/bin/sh" };
    let mut files = own_files(record, facts);
    files.extend([
        File::of_root("/etc/passwd", 0o644, passwd(&facts.passwd, &people, shell)),
        File::of_root("/etc/group", 0o644, group(&facts.group, &people)),
        File::of_root("/etc/environment", 0o644, environment(&facts.environment, &record.spec.env)),
    ]);
    if !facts.shadow.is_empty() {
        files.push(File {
            mode: 0o640,
            ..File::of_root("/etc/shadow", 0o640, shadow(&facts.shadow, &people))
        });
    }
    if facts.sudoers && !people.is_empty() {
        let rules: String =
            people.iter().map(|p| format!("{} ALL=(ALL:ALL) NOPASSWD: ALL\n", p.name)).collect();
        files.push(File::of_root("/etc/sudoers.d/moorage", 0o440, rules));
    }
    if facts.init.is_some() && !record.spec.ulimits.is_empty() {
        let ulimits = &record.spec.ulimits;
        for (directory, text) in [
            ("/etc/systemd/system.conf.d", service_limits(ulimits)),
            ("/etc/security/limits.d", login_limits(ulimits)),
        ] {
            files.push(File { path: directory.into(), mode: 0o755, uid: 0, gid: 0, content: None });
            files.push(File::of_root(&format!("{directory}/moorage.conf"), 0o644, text));
        }
    }
    if let Some(root) = record.people.iter().find(|account| account.is_root())
        && let Some(keys) = authorized_keys(record, root)
    {
        files.push(File { path: "/root/.ssh".into(), mode: 0o700, uid: 0, gid: 0, content: None });
        files.push(File::of_root("/root/.ssh/authorized_keys", 0o600, keys));
    }
    let own = record.spec.files.iter().filter(|file| !below_opt(&file.to));
    files.extend(own.map(|file| File::of_root(&file.to, file.mode, file.content.clone())));
    files
}

/// Whether an absolute path inside lies in the `/opt` volume.
pub fn below_opt(path: &str) -> bool {
    path.starts_with("/opt/")
}

/// The lines that let a person log in; `None` without any.
pub fn authorized_keys(record: &Record, account: &people::Account) -> Option<String> {
    let keys = record.spec.authorized_keys.get(&account.name).filter(|keys| !keys.is_empty())?;
    Some(keys.iter().map(|key| format!("{key}\n")).collect())
}

/// Lines of a colon-separated file whose first field is none of `names`.
fn without(text: &str, names: &[&str]) -> Vec<String> {
    let first = |line: &str| line.split(':').next().unwrap_or_default().to_owned();
    text.lines()
        .filter(|line| !line.is_empty() && !names.contains(&first(line).as_str()))
        .map(str::to_owned)
        .collect()
}

/// Puts `line` before the first of `lines` with the same number in field 2, so that look-ups by number find ours.
fn insert(lines: &mut Vec<String>, line: String) {
    let number = |line: &String| line.split(':').nth(2).map(str::to_owned);
    let at = lines.iter().position(|other| number(other) == number(&line)).unwrap_or(lines.len());
    lines.insert(at, line);
}

fn passwd(of_image: &str, people: &[&Account], shell: &str) -> String {
    let names: Vec<&str> = people.iter().map(|p| p.name.as_str()).collect();
    let mut lines = without(of_image, &names);
    for p in people {
        insert(&mut lines, format!("{}:x:{}:{}:{}:{}:{shell}", p.name, p.uid, p.gid, p.name, p.home()));
    }
    lines.join("\n") + "\n"
}

fn group(of_image: &str, people: &[&Account]) -> String {
    let mut lines: Vec<String> =
        of_image.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    for p in people {
        let known = lines.iter().any(|line| {
            let mut fields = line.split(':');
            fields.next() == Some(&p.group) && fields.nth(1) == Some(&p.gid.to_string())
        });
        if !known {
            lines.retain(|line| line.split(':').next() != Some(&p.group));
            insert(&mut lines, format!("{}:x:{}:", p.group, p.gid));
        }
    }
    lines.join("\n") + "\n"
}

fn shadow(of_image: &str, people: &[&Account]) -> String {
    let names: Vec<&str> = people.iter().map(|p| p.name.as_str()).collect();
    let mut lines = without(of_image, &names);
    // `*` and not `!`: sshd refuses keys for an account that looks locked.
    lines.extend(people.iter().map(|p| format!("{}:*:19000:0:99999:7:::", p.name)));
    lines.join("\n") + "\n"
}

/// `/etc/environment` (pam_env(8)), so that `ssh NAME COMMAND` sees the project's variables too.
fn environment(of_image: &str, env: &std::collections::BTreeMap<String, String>) -> String {
    let mut text = of_image.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for (name, value) in env {
        text.push_str(&format!("{name}=\"{value}\"\n"));
    }
    text
}

/// systemd-system.conf(5): systemd gives services, sshd among them, soft limits of its own where it is not told others.
fn service_limits(ulimits: &std::collections::BTreeMap<String, Ulimit>) -> String {
    let lines = ulimits.iter().map(|(name, limit)| {
        format!("DefaultLimit{}={}:{}\n", name.to_ascii_uppercase(), limit.soft, limit.hard)
    });
    std::iter::once("[Manager]\n".to_owned()).chain(lines).collect()
}

/// limits.conf(5): pam_limits gives logins soft limits of its own where it is not told others. Hard ones are the
/// engine's. It counts memory in KiB, and cannot say times as the engine does.
fn login_limits(ulimits: &std::collections::BTreeMap<String, Ulimit>) -> String {
    let line = |(name, limit): (&String, &Ulimit)| {
        let value = match name.as_str() {
            "as" | "core" | "data" | "fsize" | "memlock" | "rss" | "stack" => limit.soft >> 10,
            "cpu" | "nice" | "rttime" => return None,
            _ => limit.soft,
        };
        // `*` does not mean root.
        Some(format!("* soft {name} {value}\nroot soft {name} {value}\n"))
    };
    ulimits.iter().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_logins_get_the_projects_limits() {
        let limits = [
            ("core".to_owned(), Ulimit { soft: 2048, hard: 2048 }),
            ("cpu".to_owned(), Ulimit { soft: 60, hard: 90 }),
            ("nofile".to_owned(), Ulimit { soft: 1024, hard: 4096 }),
        ];
        let limits = limits.into();
        assert_eq!(
            service_limits(&limits),
            "[Manager]\nDefaultLimitCORE=2048:2048\nDefaultLimitCPU=60:90\nDefaultLimitNOFILE=1024:4096\n"
        );
        assert_eq!(
            login_limits(&limits),
            "* soft core 2\nroot soft core 2\n* soft nofile 1024\nroot soft nofile 1024\n"
        );
    }

    fn ann() -> Account {
        Account { name: "ann".into(), uid: 1000, gid: 100, group: "users".into() }
    }

    #[test]
    fn a_person_is_added_ahead_of_the_images_user_with_that_uid() {
        let text = passwd(
            "root:x:0:0::/root:/bin/sh\ndebian:x:1000:1000::/home/debian:/bin/sh\n",
            &[&ann()],
            "/bin/bash",
        );
        insta::assert_snapshot!(text, @r"
        root:x:0:0::/root:/bin/sh
        ann:x:1000:100:ann:/opt/home/ann:/bin/bash
        debian:x:1000:1000::/home/debian:/bin/sh
        ");
    }

    #[test]
    fn a_group_that_is_there_stays_and_one_that_differs_is_replaced() {
        assert_eq!(group("users:x:100:\n", &[&ann()]), "users:x:100:\n");
        assert_eq!(group("users:x:999:\nstaff:x:50:\n", &[&ann()]), "staff:x:50:\nusers:x:100:\n");
    }

    #[test]
    fn people_have_no_password_but_are_not_locked() {
        assert_eq!(
            shadow("root:*:1::::::\nann:$6$x:1::::::\n", &[&ann()]),
            "root:*:1::::::\nann:*:19000:0:99999:7:::\n"
        );
    }

    #[test]
    fn host_keys_are_what_openssh_reads() {
        let key = host_key("siem-9-2-ann").unwrap();
        assert!(key.public.starts_with("ssh-ed25519 "), "{}", key.public);
        assert!(PrivateKey::from_openssh(&key.private).is_ok());
    }
}
