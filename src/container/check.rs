//! The daemon's own look at a specification: it comes from a person, so nothing in it is believed. Pure.

mod bounds;
mod images;

use std::collections::BTreeSet;

use crate::report::{Fault, Kind};
use crate::site::host::{HostConfig, HostLimits, plausible};
use crate::spec::archive::Scheme;
use crate::spec::container::ULIMITS;
use crate::spec::{ContainerName, ContainerSpec, Limits, Owner};
use bounds::{counts, texts};
use images::allowed;
pub use images::{image, registry, registry_of};

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
mod tests;
