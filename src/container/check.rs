//! The daemon's own look at a specification: it comes from a person, so nothing in it is believed. Pure.

use std::collections::BTreeSet;

use crate::report::{Fault, Kind};
use crate::site::host::{HostConfig, HostLimits, plausible};
use crate::spec::archive::Scheme;
use crate::spec::container::ULIMITS;
use crate::spec::{ContainerName, ContainerSpec, Limits, Owner};

/// The most sources, mounts, files, keys or set-up steps one specification may have.
const MOST: usize = 64;
/// The most environment variables.
const MOST_ENV: usize = 256;
/// Bytes of what is a name: a branch, a patch.
const NAME: usize = 256;
/// Bytes of what is a path or an address, as PATH_MAX.
const PATH: usize = 4096;
/// Bytes of a command, a key or a variable's value.
const TEXT: usize = 16 << 10;
/// Where nothing may be mounted inside: the container's own machinery.
const TAKEN: [&str; 8] = ["/", "/opt", "/proc", "/sys", "/dev", "/run", "/etc", "/tmp"];

/// Refuses what no person may ask for on this host.
pub fn check(spec: &ContainerSpec, config: &HostConfig) -> Result<(), Fault> {
    name(&spec.name, &spec.owner)?;
    counts(spec)?;
    texts(spec)?;
    network(&spec.network, config)?;
    image(&spec.image, config)?;
    for archive in &spec.opt {
        if archive.scheme().map_err(|e| wrong(e.to_string()))? == Scheme::Oci {
            let reference = archive.reference().map_err(|e| wrong(e.to_string()))?;
            allowed(&reference.registry, "archives", config)?;
        }
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
    let tail = format!("-{}", owner.label());
    match name.as_str().ends_with(&tail) {
        true => Ok(()),
        false => Err(wrong(format!("the name {name} does not end with its owner's, {tail}"))),
    }
}

fn counts(spec: &ContainerSpec) -> Result<(), Fault> {
    let keys = spec.authorized_keys.values().map(Vec::len).sum();
    let all = [
        ("patches", spec.patches.len()),
        ("opt archives", spec.opt.len()),
        ("sources", spec.sources.len()),
        ("files", spec.files.len()),
        ("mounts", spec.mounts.len()),
        ("setup steps", spec.setup.len()),
        ("authorized keys", keys),
        ("people with keys", spec.authorized_keys.len()),
    ];
    if let Some((what, count)) = all.into_iter().find(|(_, count)| *count > MOST) {
        return Err(wrong(format!("{count} {what} are more than {MOST}")));
    }
    match spec.env.len() > MOST_ENV {
        false => Ok(()),
        true => Err(wrong(format!("{} environment variables are more than {MOST_ENV}", spec.env.len()))),
    }
}

/// Everybody's lists carry some of these, and every look at the records reads them all.
fn texts(spec: &ContainerSpec) -> Result<(), Fault> {
    let mut all = vec![("the project", &spec.project, NAME), ("the branch", &spec.branch, NAME)];
    all.extend(spec.patches.iter().map(|patch| ("a patch", patch, NAME)));
    for source in &spec.sources {
        all.push(("a repo", &source.repo, PATH));
        all.extend(source.reference.iter().map(|reference| ("a ref", reference, NAME)));
    }
    all.extend(spec.opt.iter().map(|archive| ("an archive's address", &archive.url, PATH)));
    all.extend(spec.mounts.iter().map(|mount| ("a mounted path", &mount.source, PATH)));
    all.extend(spec.setup.iter().chain(&spec.ready).map(|step| ("a command", step, TEXT)));
    all.extend(spec.authorized_keys.values().flatten().map(|key| ("an authorized key", key, TEXT)));
    for (name, value) in &spec.env {
        all.extend([("a variable's name", name, NAME), ("a variable's value", value, TEXT)]);
    }
    for (what, text, most) in all {
        if text.len() > most {
            return Err(wrong(format!("{what} has {} bytes, more than {most}", text.len())));
        }
        // A command may be a script.
        if most != TEXT && text.contains(char::is_control) {
            return Err(wrong(format!("{what} has a control character in it: {text:?}")));
        }
    }
    Ok(())
}

/// The registry host of an image reference, where it names one.
pub fn registry(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

fn network(network: &str, config: &HostConfig) -> Result<(), Fault> {
    match network == config.network {
        true => Ok(()),
        false => Err(Fault::new(
            Kind::Denied,
            format!("containers of this host hang on the network {}, not on {network:?}", config.network),
        )
        .next(format!("leave the network out, or --network {}", config.network))),
    }
}

/// Refuses an image that no container of this host may be made of. What passes is safe in a path of the Engine's API.
pub fn image(image: &str, config: &HostConfig) -> Result<(), Fault> {
    if !is_reference(image) {
        let what = format!("{image:?} is not an image with its tag or digest");
        return Err(wrong(what).next("name it as in moorage/demo:latest"));
    }
    if image.starts_with(crate::engine::ROOTS) {
        let what = format!("{image} is the root filesystem of somebody's container");
        return Err(
            Fault::new(Kind::Denied, what).next("clone-container makes containers of it, for its owner")
        );
    }
    registry(image).map_or(Ok(()), |host| allowed(host, "images", config))
}

/// Whether snapshots may be kept in a registry, or come from it.
pub fn registry_of(reference: &crate::spec::Reference, config: &HostConfig) -> Result<(), Fault> {
    allowed(&reference.registry, "snapshots", config)
}

/// The daemon asks a registry with the host's own login, so an admin says which.
fn allowed(host: &str, what: &str, config: &HostConfig) -> Result<(), Fault> {
    let of_images = config.registry.as_deref().and_then(|prefix| prefix.split('/').next());
    match of_images == Some(host) || config.registries.iter().any(|allowed| allowed == host) {
        true => Ok(()),
        false => {
            Err(denied(format!("{what} of the registry {host} are not allowed on this host"), "registries"))
        }
    }
}

/// `[host[:port]/]name[/name…]` with `:tag`, `@sha256:digest` or both. Not an image's id, which would go round the
/// registries; not a bare name, which means all tags when it is pulled.
fn is_reference(image: &str) -> bool {
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let sha256 = |digest: &str| {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let host = registry(path);
    let port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let rest = host.map_or(path, |host| &path[host.len() + 1..]);
    image.len() <= 255
        && path != "sha256"
        && (tag.is_some() || digest.is_some())
        && tag.is_none_or(word)
        && digest.is_none_or(sha256)
        && host.is_none_or(|host| match host.split_once(':') {
            Some((host, number)) => word(host) && port(number),
            None => word(host),
        })
        && rest.split('/').all(word)
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
    plausible(&spec.limits).map_err(wrong)?;
    // The Engine takes signed numbers.
    let bytes = [("memory", spec.limits.memory), ("shm", spec.shm)];
    if let Some((what, Some(size))) =
        bytes.into_iter().find(|(_, size)| size.is_some_and(|size| i64::try_from(size.0).is_err()))
    {
        return Err(wrong(format!("{what} {size} is more than any host has")));
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
    for ((what, asked), (_, most)) in asked.io.numbers().into_iter().zip(most.io.numbers()) {
        if let (Some(asked), Some(most @ 1..)) = (asked, most)
            && (asked == 0 || asked > most)
        {
            let asked = if asked == 0 { "without a ceiling".to_owned() } else { asked.to_string() };
            return Err(over(what, asked, most.to_string()));
        }
    }
    Ok(())
}

/// What a container gets that asks for `asked`: field by field its wish, else the host's default, else its most.
pub fn effective(asked: &Limits, host: &HostLimits) -> Limits {
    asked.or(&host.default).or(&host.max)
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
        for other in ["siem-9-2-bob", "siem-9-2-bob-0a1b2c", "siem-9-2-joann", "ann"] {
            assert_eq!(refused(|s| s.name = other.parse().unwrap()), Kind::Usage, "{other}");
        }
    }

    #[test]
    fn foreign_registries_and_capabilities_are_denied() {
        assert_eq!(refused(|s| s.image = "evil.example:5000/x:latest".into()), Kind::Denied);
        assert_eq!(refused(|s| s.image = "localhost/x:1".into()), Kind::Denied);
        assert_eq!(refused(|s| s.capabilities = vec!["SYS_ADMIN".into()]), Kind::Denied);
        assert_eq!(refused(|s| s.network = "host".into()), Kind::Denied);
    }

    #[test]
    fn images_are_named_with_their_tag_or_digest() {
        let digest = "a".repeat(64);
        for junk in
            ["", "-x:1", "a b:1", "../x:1", "x\n:1", "x", "registry.corp:5000/x", "x:", "x/../y:1", "x/./y:1"]
        {
            assert_eq!(refused(|s| s.image = junk.into()), Kind::Usage, "{junk:?}");
        }
        for junk in [
            "x/../../networks/y:1",
            "x//y:1",
            "/x:1",
            "x:1?a=b",
            "x:1#",
            "%2e%2e/x:1",
            "x@sha256:1",
            "a/b:c/d:1",
        ] {
            assert_eq!(refused(|s| s.image = junk.into()), Kind::Usage, "{junk:?}");
        }
        assert_eq!(refused(|s| s.image = format!("sha256:{digest}")), Kind::Usage);
        assert_eq!(refused(|s| s.image = digest.clone()), Kind::Usage);
        for good in [
            "moorage/demo:latest".to_owned(),
            "x:1".into(),
            format!("a/b@sha256:{digest}"),
            format!("a_b/c-d:1@sha256:{digest}"),
        ] {
            image(&good, &HostConfig::default()).unwrap();
        }
    }

    #[test]
    fn the_registry_of_the_hosts_images_is_allowed() {
        for registry in ["registry.corp:5000", "registry.corp:5000/team/x"] {
            let config = HostConfig { registry: Some(registry.into()), ..HostConfig::default() };
            image("registry.corp:5000/siem:latest", &config).unwrap();
            assert_eq!(image("registry.corp/siem:latest", &config).unwrap_err().kind, Kind::Denied);
        }
    }

    #[test]
    fn archives_without_a_digest_come_from_files_and_registries_only() {
        assert_eq!(refused(|s| s.opt[0].url = "http://h/x.tar.gz".into()), Kind::Usage);
        assert_eq!(refused(|s| s.opt[0].url = "oci://other.corp/opt/x:1".into()), Kind::Denied);
        assert_eq!(refused(|s| s.opt[0].url = "oci://other.corp/opt/x".into()), Kind::Usage);
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
    fn no_text_is_longer_than_it_can_mean_something() {
        let long = || "x".repeat(TEXT + 1);
        assert_eq!(refused(|s| s.project = "x".repeat(NAME + 1)), Kind::Usage);
        assert_eq!(refused(|s| s.branch = "x".repeat(NAME + 1)), Kind::Usage);
        assert_eq!(refused(|s| s.patches = vec!["x".repeat(NAME + 1)]), Kind::Usage);
        assert_eq!(refused(|s| s.patches = vec!["p".into(); MOST + 1]), Kind::Usage);
        assert_eq!(refused(|s| s.sources[0].reference = Some("x".repeat(NAME + 1))), Kind::Usage);
        assert_eq!(refused(|s| s.sources[0].repo = long()), Kind::Usage);
        assert_eq!(refused(|s| s.opt[0].url = format!("file:///{}", long())), Kind::Usage);
        assert_eq!(refused(|s| s.mounts[0].source = format!("/{}", long())), Kind::Usage);
        assert_eq!(refused(|s| s.setup.push(long())), Kind::Usage);
        assert_eq!(refused(|s| s.ready = Some(long())), Kind::Usage);
        assert_eq!(refused(|s| drop(s.env.insert("A".into(), long()))), Kind::Usage);
        assert_eq!(refused(|s| drop(s.env.insert(long(), "x".into()))), Kind::Usage);
        assert_eq!(
            refused(|s| s.env = (0..=MOST_ENV).map(|i| (format!("A{i}"), "x".into())).collect()),
            Kind::Usage
        );
        assert_eq!(refused(|s| drop(s.authorized_keys.insert("ann".into(), vec![long()]))), Kind::Usage);
        assert_eq!(
            refused(|s| s.authorized_keys = (0..=MOST).map(|i| (i.to_string(), vec![])).collect()),
            Kind::Usage
        );
        for line in ["9.2\n", "\u{1b}[2J"] {
            assert_eq!(refused(|s| s.branch = line.into()), Kind::Usage, "{line:?}");
            assert_eq!(refused(|s| s.project = line.into()), Kind::Usage, "{line:?}");
            assert_eq!(refused(|s| s.patches = vec![line.into()]), Kind::Usage, "{line:?}");
            assert_eq!(refused(|s| s.sources[0].repo = line.into()), Kind::Usage, "{line:?}");
            assert_eq!(refused(|s| s.sources[0].reference = Some(line.into())), Kind::Usage, "{line:?}");
        }
    }

    #[test]
    fn limits_of_the_host_hold() {
        let mut config = HostConfig::default();
        config.limits.max.memory = Some(crate::spec::ByteSize(1 << 30));
        let mut spec = spec();
        spec.limits.memory = Some(crate::spec::ByteSize(2 << 30));
        assert_eq!(check(&spec, &config).unwrap_err().kind, Kind::Denied);
        let size = |bytes| Some(crate::spec::ByteSize(bytes));
        assert_eq!(refused(|s| s.limits.cpu_weight = Some(0)), Kind::Usage);
        assert_eq!(refused(|s| s.limits.cpu_weight = Some(10_001)), Kind::Usage);
        assert_eq!(refused(|s| s.limits.pids = Some(0)), Kind::Usage);
        for absurd in [0, (6 << 20) - 1, u64::MAX] {
            assert_eq!(refused(|s| s.limits.memory = size(absurd)), Kind::Usage, "{absurd}");
        }
        assert_eq!(refused(|s| s.shm = size(1 << 63)), Kind::Usage);
        assert_eq!(refused(|s| s.ulimits = ulimit("rtprio", 1, 1)), Kind::Usage);
        assert_eq!(refused(|s| s.ulimits = ulimit("nice", 1, 1)), Kind::Usage);
        assert_eq!(refused(|s| s.ulimits = ulimit("nofiles", 1, 1)), Kind::Usage);
        assert_eq!(refused(|s| s.ulimits = ulimit("nofile", 2, 1)), Kind::Usage);
    }

    #[test]
    fn what_is_done_to_disks_has_its_most_too() {
        let mut config = HostConfig::default();
        config.limits.max.io.write_ops = Some(100);
        let asked = |count| {
            let mut spec = spec();
            spec.limits.io.write_ops = count;
            check(&spec, &config).map_err(|fault| fault.kind)
        };
        assert_eq!(asked(Some(100)), Ok(()));
        assert_eq!(asked(None), Ok(()));
        assert_eq!(asked(Some(101)), Err(Kind::Denied));
        assert_eq!(asked(Some(0)), Err(Kind::Denied));
    }

    #[test]
    fn a_limit_is_asked_for_or_the_default_or_the_most() {
        let limits = |cpu_weight, pids, memory: Option<u64>| Limits {
            cpu_weight,
            pids,
            memory: memory.map(crate::spec::ByteSize),
            ..Limits::default()
        };
        let host =
            HostLimits { default: limits(Some(2), Some(2), None), max: limits(Some(3), None, Some(3)) };
        assert_eq!(effective(&limits(Some(1), None, None), &host), limits(Some(1), Some(2), Some(3)));
        assert_eq!(effective(&Limits::default(), &HostLimits::default()).memory, None);
    }
}
