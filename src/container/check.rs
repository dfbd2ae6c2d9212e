//! The daemon's own look at a specification: it comes from a person, so nothing in it is believed. Pure.

use std::collections::BTreeSet;

use crate::report::{Fault, Kind};
use crate::site::host::HostConfig;
use crate::spec::{ContainerName, ContainerSpec, Owner};

/// The most sources, mounts, files, keys or set-up steps one specification may have.
const MOST: usize = 64;
/// Resource limits the Engine knows (setrlimit(2), lower case, without `RLIMIT_`).
const ULIMITS: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];
/// Where nothing may be mounted inside: the container's own machinery.
const TAKEN: [&str; 8] = ["/", "/opt", "/proc", "/sys", "/dev", "/run", "/etc", "/tmp"];

/// Refuses what no person may ask for on this host.
pub fn check(spec: &ContainerSpec, config: &HostConfig) -> Result<(), Fault> {
    name(&spec.name, &spec.owner)?;
    counts(spec)?;
    image(&spec.image, config)?;
    for archive in &spec.opt {
        archive.scheme().map_err(|e| wrong(e.to_string()))?;
    }
    sources(spec)?;
    mounts(spec)?;
    for file in &spec.files {
        path_inside(&file.to)?;
        if file.mode > 0o777 {
            return Err(wrong(format!("{}: mode {:o} is more than permission bits", file.to, file.mode)));
        }
    }
    environment(spec)?;
    limits(spec, config)?;
    let foreign = spec.capabilities.iter().find(|name| !config.capabilities.contains(name));
    if let Some(name) = foreign {
        return Err(denied(format!("capability {name} is not allowed on this host"), "capabilities"));
    }
    Ok(())
}

fn wrong(what: String) -> Fault {
    Fault::new(Kind::Usage, what)
}

fn denied(what: String, key: &str) -> Fault {
    Fault::new(Kind::Denied, what).next(format!("ask an admin to extend `{key}` in /etc/moorage/config.toml"))
}

/// A container's name ends with its owner's, so that nobody takes the names of another.
fn name(name: &ContainerName, owner: &Owner) -> Result<(), Fault> {
    let own = ContainerName::join(&[], owner).map_err(|e| wrong(e.to_string()))?;
    let text = name.as_str();
    let tail = text.rsplit('-').next().unwrap_or_default();
    let hashed = tail.len() == 6 && tail.bytes().all(|b| b.is_ascii_hexdigit());
    match text.ends_with(&format!("-{own}")) || hashed {
        true => Ok(()),
        false => Err(wrong(format!("the name {text} does not end with its owner's, -{own}"))),
    }
}

fn counts(spec: &ContainerSpec) -> Result<(), Fault> {
    let keys = spec.authorized_keys.values().map(Vec::len).sum();
    let all = [
        ("opt archives", spec.opt.len()),
        ("sources", spec.sources.len()),
        ("files", spec.files.len()),
        ("mounts", spec.mounts.len()),
        ("setup steps", spec.setup.len()),
        ("authorized keys", keys),
    ];
    match all.into_iter().find(|(_, count)| *count > MOST) {
        None => Ok(()),
        Some((what, count)) => Err(wrong(format!("{count} {what} are more than {MOST}"))),
    }
}

/// The registry host of an image reference, where it names one.
pub fn registry(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

fn image(image: &str, config: &HostConfig) -> Result<(), Fault> {
    let good = |c: char| c.is_ascii_alphanumeric() || "./:_-@".contains(c);
    if image.is_empty() || image.len() > 255 || !image.chars().all(good) || image.starts_with(['-', '/', '.'])
    {
        return Err(wrong(format!("{image:?} is not an image reference")));
    }
    match registry(image) {
        Some(host) if !config.registries.iter().any(|allowed| allowed == host) => {
            Err(denied(format!("images of the registry {host} are not allowed on this host"), "registries"))
        }
        _ => Ok(()),
    }
}

/// Absolute, and without a component that means something else than its name.
fn path_inside(path: &str) -> Result<(), Fault> {
    let rest = path.strip_prefix('/').ok_or_else(|| wrong(format!("{path:?} is not an absolute path")))?;
    let good =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    match path.len() < 4096 && rest.split('/').all(good) {
        true => Ok(()),
        false => Err(wrong(format!("{path:?} is not a plain absolute path"))),
    }
}

fn sources(spec: &ContainerSpec) -> Result<(), Fault> {
    let mut taken = BTreeSet::new();
    for source in &spec.sources {
        path_inside(&source.to)?;
        if !source.to.starts_with("/opt/") || source.to == "/opt/home" || source.to.starts_with("/opt/home/")
        {
            return Err(wrong(format!("{}: a source goes below /opt (and not into /opt/home)", source.to)));
        }
        let inside = |other: &&String| {
            source.to.starts_with(&format!("{other}/")) || other.starts_with(&format!("{}/", source.to))
        };
        if let Some(other) = taken.iter().find(inside) {
            return Err(wrong(format!("the sources in {} and {other} lie in each other", source.to)));
        }
        if !taken.insert(source.to.clone()) {
            return Err(wrong(format!("two sources go to {}", source.to)));
        }
    }
    Ok(())
}

fn mounts(spec: &ContainerSpec) -> Result<(), Fault> {
    let mut taken = BTreeSet::new();
    for mount in &spec.mounts {
        path_inside(&mount.target)?;
        let below = ["/proc/", "/sys/", "/dev/", "/run/"].iter().any(|root| mount.target.starts_with(root));
        if below || TAKEN.iter().any(|taken| mount.target == *taken) {
            return Err(wrong(format!("nothing can be mounted on {} inside", mount.target)));
        }
        if !taken.insert(&mount.target) {
            return Err(wrong(format!("two mounts go to {}", mount.target)));
        }
    }
    Ok(())
}

fn environment(spec: &ContainerSpec) -> Result<(), Fault> {
    for (name, value) in &spec.env {
        let first = name.chars().next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
        if !first || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            return Err(wrong(format!("{name:?} is not the name of an environment variable")));
        }
        if value.contains(|c: char| c.is_control() || c == '"') {
            return Err(wrong(format!("the value of {name} has a control character or a quote in it")));
        }
    }
    for key in spec.authorized_keys.values().flatten() {
        if key.contains(char::is_control) {
            return Err(wrong("an authorized key is one line".to_owned()));
        }
    }
    match spec.setup.iter().chain(&spec.ready).find(|step| step.contains('\0')) {
        None => Ok(()),
        Some(step) => Err(wrong(format!("{step:?} cannot be a command"))),
    }
}

fn limits(spec: &ContainerSpec, config: &HostConfig) -> Result<(), Fault> {
    for (name, limit) in &spec.ulimits {
        if !ULIMITS.contains(&name.as_str()) {
            return Err(wrong(format!("{name:?} is not a ulimit; there are {}", ULIMITS.join(", "))));
        }
        if limit.soft > limit.hard || i64::try_from(limit.hard).is_err() {
            return Err(wrong(format!("ulimit {name}: {} above {}", limit.soft, limit.hard)));
        }
    }
    let over = |what: &str, asked: String, most: String| {
        denied(format!("{what} {asked} is over this host's {most}"), "limits")
    };
    let (asked, most) = (&spec.limits, &config.limits.max);
    if let (Some(asked), Some(most)) = (asked.memory, most.memory)
        && asked > most
    {
        return Err(over("memory", asked.to_string(), most.to_string()));
    }
    if let (Some(asked), Some(most)) = (asked.pids, most.pids)
        && asked > most
    {
        return Err(over("pids", asked.to_string(), most.to_string()));
    }
    if let (Some(asked), Some(most)) = (asked.cpu_weight, most.cpu_weight)
        && asked > most
    {
        return Err(over("cpu_weight", asked.to_string(), most.to_string()));
    }
    match asked.cpu_weight {
        Some(weight) if !(1..=10_000).contains(&weight) => {
            Err(wrong(format!("cpu_weight {weight} is not between 1 and 10000")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::sample::spec;

    fn ulimit(name: &str, soft: u64, hard: u64) -> std::collections::BTreeMap<String, crate::spec::Ulimit> {
        [(name.to_owned(), crate::spec::Ulimit { soft, hard })].into()
    }

    fn refused(change: impl FnOnce(&mut ContainerSpec)) -> Kind {
        let mut spec = spec();
        change(&mut spec);
        check(&spec, &HostConfig::default()).expect_err("it must be refused").kind
    }

    #[test]
    fn what_the_site_resolves_to_passes() {
        check(&spec(), &HostConfig::default()).unwrap();
    }

    #[test]
    fn the_names_of_others_are_refused() {
        assert_eq!(refused(|s| s.name = "siem-9-2-bob".parse().unwrap()), Kind::Usage);
    }

    #[test]
    fn foreign_registries_and_capabilities_are_denied() {
        assert_eq!(refused(|s| s.image = "evil.example:5000/x:latest".into()), Kind::Denied);
        assert_eq!(refused(|s| s.image = "localhost/x".into()), Kind::Denied);
        assert_eq!(refused(|s| s.capabilities = vec!["SYS_ADMIN".into()]), Kind::Denied);
        for junk in ["", "-x", "a b", "../x", "x\n"] {
            assert_eq!(refused(|s| s.image = junk.into()), Kind::Usage, "{junk:?}");
        }
    }

    #[test]
    fn archives_without_a_digest_come_from_files_only() {
        assert_eq!(refused(|s| s.opt[0].url = "http://h/x.tar.gz".into()), Kind::Usage);
    }

    #[test]
    fn paths_inside_are_plain_and_sources_stay_in_opt() {
        for junk in [
            "relative",
            "/opt/../etc/x",
            "/opt//x",
            "/opt/./x",
            "/etc/x",
            "/opt",
            "/opt/home/ann",
            "/opt/a\nb",
        ] {
            assert_eq!(refused(|s| s.sources[0].to = junk.into()), Kind::Usage, "{junk:?}");
        }
        assert_eq!(refused(|s| s.files[0].to = "/a/../b".into()), Kind::Usage);
        assert_eq!(refused(|s| s.files[0].mode = 0o4755), Kind::Usage);
        for junk in ["/", "/opt", "/proc/x", "/sys", "/dev/sda", "/run/x", "data"] {
            assert_eq!(refused(|s| s.mounts[0].target = junk.into()), Kind::Usage, "{junk:?}");
        }
        assert_eq!(
            refused(|s| {
                let mut inner = s.sources[0].clone();
                inner.to.push_str("/inner");
                s.sources.push(inner);
            }),
            Kind::Usage
        );
    }

    #[test]
    fn text_that_would_mean_more_than_itself_is_refused() {
        assert_eq!(refused(|s| drop(s.env.insert("A".into(), "x\nLD_PRELOAD=y".into()))), Kind::Usage);
        assert_eq!(refused(|s| drop(s.env.insert("A=B".into(), "x".into()))), Kind::Usage);
        assert_eq!(
            refused(|s| drop(s.authorized_keys.insert("ann".into(), vec!["a\nb".into()]))),
            Kind::Usage
        );
        assert_eq!(refused(|s| s.setup.push("a\0b".into())), Kind::Usage);
    }

    #[test]
    fn limits_of_the_host_hold() {
        let mut config = HostConfig::default();
        config.limits.max.memory = Some(crate::spec::ByteSize(1 << 30));
        let mut spec = spec();
        spec.limits.memory = Some(crate::spec::ByteSize(2 << 30));
        assert_eq!(check(&spec, &config).unwrap_err().kind, Kind::Denied);
        assert_eq!(refused(|s| s.limits.cpu_weight = Some(0)), Kind::Usage);
        assert_eq!(refused(|s| s.ulimits = ulimit("nofiles", 1, 1)), Kind::Usage);
        assert_eq!(refused(|s| s.ulimits = ulimit("nofile", 2, 1)), Kind::Usage);
    }
}
