//! What of a lease software in the container is told: DNS servers and search list by `/etc/resolv.conf`, time servers by a
//! file of systemd-timesyncd's.
//!
//! A container asks the engine's resolver, which asks the servers that the container was created with, for ever. When the
//! lease names others since, the container's file names them itself; the engine writes it anew at each start.
//! The clock is the host's, so nothing in a container sets it; but products tell their own clients which time servers the
//! LAN has, and look for them where every Debian and Red Hat keeps them.

use std::fs::File as HostFile;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use rustix::fs::OFlags;

use super::{Record, build::blocking};
use crate::engine::{File, Found, Names};
use crate::lan::LeaseView;
use crate::opt::Upper;

/// Begins what we wrote; anything else was written by somebody else.
const MARK: &str = "# moorage: of the LAN's DHCP server";
/// A drop-in of systemd-timesyncd (timesyncd.conf(5)), in the image's own place, so that it is there before init is.
const TIMES: &str = "/etc/systemd/timesyncd.conf.d/moorage.conf";
/// The engine's own resolver, inside every container of a network that somebody made.
const RESOLVER: &str = "127.0.0.11";
/// The longest of these files that is read, bytes.
const LONGEST: u64 = 64 << 10;

/// The files of a container that is made with this lease.
pub fn files(lease: &LeaseView) -> Vec<File> {
    let Some((directory, _)) = TIMES.rsplit_once('/').filter(|_| !lease.ntp.is_empty()) else {
        return Vec::new();
    };
    let directory = File { path: directory.into(), mode: 0o755, uid: 0, gid: 0, content: None };
    vec![directory, File::of_root(TIMES, 0o644, times(&lease.ntp))]
}

/// Makes what a running container knows of the LAN what its lease says now. What somebody has written there themselves
/// stays.
pub async fn bring_up_to_date(record: &Record, found: &Found, lease: &LeaseView) -> Result<()> {
    let name = record.spec.name.as_str();
    let (Some(pid), true) = (found.pid, found.running && lease.is_live()) else { return Ok(()) };
    let (names, lease, of) = (found.names.clone(), lease.clone(), name.to_owned());
    let done = blocking(move || {
        if let Some(said) = bring_names(&names, &lease)? {
            tracing::info!("{of}: {said}");
        }
        if let Some(said) = bring_times(pid, &lease.ntp)? {
            tracing::info!("{of}: {said}");
        }
        Ok(())
    });
    done.await.with_context(|| format!("tell {name} of the LAN's names and time servers"))
}

/// The file is the engine's, in a directory of its own that nobody but root enters; inside only its content can be
/// changed.
fn bring_names(names: &Names, lease: &LeaseView) -> Result<Option<String>> {
    let Some(path) = &names.file else { return Ok(None) };
    let flags = OFlags::NOFOLLOW.bits() as i32;
    let mut file = HostFile::options()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
        .with_context(|| format!("open {}", path.display()))?;
    let mut present = Vec::new();
    (&file).take(LONGEST).read_to_end(&mut present).with_context(|| format!("read {}", path.display()))?;
    Ok(match decide(names, lease, &String::from_utf8_lossy(&present)) {
        Resolv::AsItIs => None,
        Resolv::Foreign => Some("its /etc/resolv.conf was changed inside and stays as it is".to_owned()),
        Resolv::Becomes(text) => {
            // In place: it is mounted into the container.
            let mut write = || -> std::io::Result<()> {
                file.rewind()?;
                file.write_all(text.as_bytes())?;
                file.set_len(text.len() as u64)
            };
            write().with_context(|| format!("write {}", path.display()))?;
            let servers: Vec<String> = lease.dns.iter().map(Ipv4Addr::to_string).collect();
            Some(format!(
                "its DNS servers are {} now, its search list {:?}",
                servers.join(" "),
                lease.search.join(" ")
            ))
        }
    })
}

/// What becomes of a container's `/etc/resolv.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Resolv {
    AsItIs,
    /// Somebody inside has written it.
    Foreign,
    Becomes(String),
}

fn decide(names: &Names, lease: &LeaseView, present: &str) -> Resolv {
    let ours = present.starts_with(MARK);
    let created_so = names.dns == lease.dns && names.search == lease.search && names.routed;
    // Without a server to ask, those that were known before are better than none.
    if lease.dns.is_empty() || (created_so && !ours) {
        return Resolv::AsItIs;
    }
    let text = resolv_conf(lease);
    if present == text {
        return Resolv::AsItIs;
    }
    let mut servers = present.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
    let of_the_engine = servers.clone().count() == 1 && servers.all(|server| server.trim() == RESOLVER);
    match ours || of_the_engine {
        true => Resolv::Becomes(text),
        false => Resolv::Foreign,
    }
}

fn resolv_conf(lease: &LeaseView) -> String {
    let mut text = format!("{MARK}, since it named these after this container was made\n");
    if !lease.search.is_empty() {
        text.push_str(&format!("search {}\n", lease.search.join(" ")));
    }
    // More than three are not asked (resolv.conf(5)).
    text.extend(lease.dns.iter().take(3).map(|server| format!("nameserver {server}\n")));
    text
}

fn times(servers: &[Ipv4Addr]) -> String {
    let servers: Vec<String> = servers.iter().map(Ipv4Addr::to_string).collect();
    format!("{MARK} (option 42). The clock here is the host's.\n[Time]\nNTP={}\n", servers.join(" "))
}

/// Below the container's root by descriptors, through no link.
fn bring_times(pid: i32, servers: &[Ipv4Addr]) -> Result<Option<String>> {
    let path = PathBuf::from(format!("/proc/{pid}/root"));
    let [there, here] = [path.as_path(), Path::new("/")].map(|root| {
        let seen = std::fs::metadata(root).with_context(|| format!("look at {}", root.display()));
        seen.map(|seen| (seen.dev(), seen.ino()))
    });
    // Its init has ended, and its number is another process's by now.
    ensure!(there? != here?, "its init has ended");
    let root = Upper::of_root(&path, &[])?;
    let inside = TIMES.trim_start_matches('/');
    let present = root.content(inside, LONGEST)?;
    let text = times(servers);
    match present {
        None if servers.is_empty() => Ok(None),
        Some(present) if present == text.as_bytes() => Ok(None),
        Some(present) if !present.starts_with(MARK.as_bytes()) => Ok(None),
        _ => {
            root.write_file(inside, text.as_bytes(), 0o644, (0, 0))?;
            Ok(Some(format!("{TIMES}: {}", text.lines().last().unwrap_or_default())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::sample;

    fn lease(dns: &[u8], search: &str) -> LeaseView {
        LeaseView {
            dns: dns.iter().map(|last| Ipv4Addr::new(10, 0, 0, *last)).collect(),
            search: search.split_whitespace().map(str::to_owned).collect(),
            ..sample::lease()
        }
    }

    fn created(dns: &[u8], search: &str) -> Names {
        let LeaseView { dns, search, .. } = lease(dns, search);
        Names { dns, search, file: None, routed: true }
    }

    const ENGINES: &str = "search corp.example\nnameserver 127.0.0.11\noptions ndots:0\n";

    #[test]
    fn a_container_asks_the_servers_that_its_lease_names_since() {
        let names = created(&[1], "corp.example");
        assert_eq!(decide(&names, &lease(&[1], "corp.example"), ENGINES), Resolv::AsItIs);
        let Resolv::Becomes(text) = decide(&names, &lease(&[1, 2], "lab.example"), ENGINES) else { panic!() };
        insta::assert_snapshot!(text, @r"
        # moorage: of the LAN's DHCP server, since it named these after this container was made
        search lab.example
        nameserver 10.0.0.1
        nameserver 10.0.0.2
        ");
        assert_eq!(decide(&names, &lease(&[1, 2], "lab.example"), &text), Resolv::AsItIs);
        // And back, and on.
        assert!(matches!(decide(&names, &lease(&[1], "corp.example"), &text), Resolv::Becomes(_)));
        assert!(matches!(decide(&names, &lease(&[3], "corp.example"), &text), Resolv::Becomes(_)));
        // A server that names none takes none away.
        assert_eq!(decide(&names, &lease(&[], "corp.example"), ENGINES), Resolv::AsItIs);
    }

    #[test]
    fn a_container_that_was_started_without_a_router_asks_itself() {
        let names = Names { routed: false, ..created(&[1], "corp.example") };
        assert!(matches!(decide(&names, &lease(&[1], "corp.example"), ENGINES), Resolv::Becomes(_)));
    }

    #[test]
    fn what_somebody_has_written_inside_stays() {
        let names = created(&[1], "corp.example");
        for theirs in ["nameserver 9.9.9.9\n", "nameserver 127.0.0.11\nnameserver 9.9.9.9\n", ""] {
            assert_eq!(decide(&names, &lease(&[2], ""), theirs), Resolv::Foreign, "{theirs}");
        }
    }

    #[test]
    fn time_servers_are_named_where_timesyncd_looks() {
        let lease = LeaseView { ntp: vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()], ..sample::lease() };
        let files = files(&lease);
        assert_eq!(files[1].path, TIMES);
        assert!(
            String::from_utf8_lossy(files[1].content.as_ref().unwrap())
                .ends_with("[Time]\nNTP=10.0.0.1 10.0.0.2\n")
        );
        assert!(super::files(&sample::lease()).is_empty());
    }
}
