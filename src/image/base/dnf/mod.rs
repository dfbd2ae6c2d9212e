//! The rpm family, in two stages. Stage 0: this host's dnf makes a root filesystem that has the distribution's own dnf and
//! rpm in it. Stage 1: these make the base, so that its database has the format that its own tools read. Only what stage 1
//! made is shipped.

mod address;
mod apart;
mod berkeley;
mod database;
mod prepared;
mod repos;
mod shipped;
mod told;

use std::path::Path;

use anyhow::Result;

pub(super) use self::address::metadata;
use self::apart::{Apart, Ended};
use self::prepared::{INSTALL, Prepared};
use self::shipped::{LOOK, SETTLE};
use super::Lock;
use super::apart::is_installed;
use super::lock::Made;
use super::work::Work;
use crate::image::{Build, STEP};
use crate::report::{Fault, Kind};
use crate::site::BaseDefinition;

/// What stage 0 has to have, of the distribution itself.
const TOOLS: [&str; 3] = ["dnf", "rpm", "coreutils"];
/// Where stage 0 finds what the host hands in, and puts what the host wants to know.
const INSIDE: &str = "/moorage";
/// The base's root filesystem, seen from stage 0.
const OUT: &str = "/out";

/// The words of every dnf: what is the definition's, and nothing of the host's.
fn words(definition: &BaseDefinition, release: &str, root: &str, at: &str) -> Vec<String> {
    let has = |begin: &str| definition.repos.keys().any(|name| name.starts_with(begin));
    let configuration =
        if has("dnf.conf") { format!("{at}/repos/dnf.conf") } else { format!("{at}/dnf.conf") };
    let mut words: Vec<String> = ["dnf", "--assumeyes", "--noplugins"].map(str::to_owned).into();
    words.push(format!("--config={configuration}"));
    words.push(format!("--installroot={root}"));
    words.push(format!("--releasever={release}"));
    words.push(format!("--setopt=reposdir={at}/repos"));
    // A directory that is not there has no variables.
    words.push(format!("--setopt=varsdir={at}/repos/vars"));
    // A repository that is not there, or says that nothing need be verified, is never passed over.
    for option in ["gpgcheck=1", "*.gpgcheck=1", "*.skip_if_unavailable=0"] {
        words.push(format!("--setopt={option}"));
    }
    words
}

/// dnf has to be here, and so have we root's rights: packages bring files of many owners, and set themselves up.
fn tools() -> Result<(), Fault> {
    if !is_installed("dnf") {
        let what = "dnf is not installed; it makes base images of the rpm family";
        return Err(Fault::new(Kind::Missing, what).next("apt-get install dnf rpm"));
    }
    match rustix::process::geteuid().is_root() {
        true => Ok(()),
        false => Err(Fault::new(Kind::Denied, "only root can make a base of the rpm family")
            .next("run the same command with sudo")),
    }
}

fn failed(definition: &BaseDefinition, stage: &str, ended: Ended) -> anyhow::Error {
    let what = format!("{stage} could not make {}", definition.name);
    match told::explain(definition, &ended.said) {
        Some(fault) => anyhow::Error::new(fault).context(what),
        None => ended
            .tail
            .fault(what, Some(ended.status.to_string()))
            .next("correct what it says, then run the same command again")
            .into(),
    }
}

/// Makes the root filesystem in `work`; with a lock, of the very versions it has.
pub(super) async fn bootstrap(
    build: Build<'_>,
    definition: &BaseDefinition,
    release: &str,
    lock: Option<&Lock>,
    work: &Work,
) -> Result<Made> {
    tools()?;
    let prepared = Prepared::new(definition, work)?;
    let keys = prepared.hand_in(definition)?;

    build.report.begin(STEP, "stage 0: the distribution's own dnf and rpm, by this host's dnf");
    let host = Apart { roots: vec![prepared.stage0.clone()], binds: Vec::new(), home: prepared.home.clone() };
    let (root, at) = (prepared.stage0.display().to_string(), prepared.directory.display().to_string());
    let mut command = words(definition, release, &root, &at);
    command.extend(prepared.overrides(definition));
    command.extend(["--setopt=install_weak_deps=0", "--setopt=tsflags=nodocs", "install"].map(str::to_owned));
    command.extend(TOOLS.map(str::to_owned));
    let ended = host.run(build, definition.epoch, &command).await?;
    if !ended.status.success() {
        return Err(failed(definition, "this host's dnf", ended));
    }

    build.report.begin(STEP, "stage 1: the base, by the distribution's own dnf");
    let inside = prepared.inside(definition, release);
    let mut command = words(definition, release, OUT, INSIDE);
    command.push("install".to_owned());
    command.extend(match lock {
        Some(lock) => {
            lock.packages.iter().map(|(package, version)| exactly(package, version)).collect::<Vec<_>>()
        }
        None => definition.packages.iter().map(|package| package.text.clone()).collect(),
    });
    for (script, words) in [(INSTALL, command), (LOOK, vec![keys.to_string(), super::RPM_FORMAT.to_owned()])]
    {
        let ended = inside.run(build, definition.epoch, &prepared.chroot(script, words)).await?;
        if !ended.status.success() {
            return Err(failed(definition, "the distribution's dnf", ended));
        }
    }
    let made = prepared.made()?;
    prepared.settle(definition.epoch)?;
    let ended = inside.run(build, definition.epoch, &prepared.chroot(SETTLE, Vec::new())).await?;
    if !ended.status.success() {
        return Err(failed(definition, "the distribution's rpm", ended));
    }
    prepared.settle_files()?;
    prepared.shadow(definition.epoch)?;
    shipped::pack(&prepared.stage0.join("out"), &work.root(), definition.epoch).await?;
    Ok(made)
}

/// `name:architecture` of one version, as dnf takes it: `name-epoch:version-release.architecture`.
fn exactly(package: &str, version: &str) -> String {
    let (name, architecture) = package.split_once(':').unwrap_or((package, "noarch"));
    format!("{name}-{version}.{architecture}")
}

/// For each lock, its packages that the repositories have in another version.
pub(super) async fn newer(
    definition: &BaseDefinition,
    release: &str,
    locks: &[&Lock],
) -> Result<Vec<Vec<String>>> {
    tools()?;
    let work = Work::new()?;
    let prepared = Prepared::new(definition, &work)?;
    let host = Apart { roots: Vec::new(), binds: Vec::new(), home: prepared.home.clone() };
    let (root, at) = (prepared.stage0.display().to_string(), prepared.directory.display().to_string());
    let mut command = words(definition, release, &root, &at);
    command.extend(prepared.overrides(definition));
    let query = ["--quiet", "repoquery", "--available", "--latest-limit=1", "--qf", "%{name}:%{arch} %{evr}"];
    command.extend(query.map(str::to_owned));
    let names = locks.iter().flat_map(|lock| lock.packages.keys());
    let names = names.map(|package| package.split(':').next().unwrap_or(package).to_owned());
    command.extend(names.collect::<std::collections::BTreeSet<String>>());
    let (status, said) = host.ask(&command).await?;
    if !status.success() {
        let what = format!("the packages of {} are not known", definition.name);
        return Err(match told::explain(definition, &said) {
            Some(fault) => anyhow::Error::new(fault).context(what),
            None => {
                let mut fault = Fault::new(Kind::Failed, what).next("correct what dnf says");
                fault.why = said;
                fault.into()
            }
        });
    }
    let candidates = Made::read("", &said.join("\n")).packages;
    let newer = |lock: &&Lock| {
        let newer = lock.packages.iter().filter_map(|(package, version)| {
            let candidate = candidates.get(package)?;
            (candidate != version).then(|| format!("{package} {version} → {candidate}"))
        });
        newer.collect()
    };
    Ok(locks.iter().map(newer).collect())
}

/// The commands a person could type instead.
pub(super) fn by_hand(definition: &BaseDefinition, release: &str) -> String {
    let packages: Vec<&str> = definition.packages.iter().map(|package| package.text.as_str()).collect();
    format!(
        "{} install {} && chroot stage0 dnf --installroot=/out … install {} && tar --directory stage0/out --create .",
        words(definition, release, "stage0", ".").join(" "),
        TOOLS.join(" "),
        packages.join(" ")
    )
}

/// That every repository of the base says how its packages are verified; keys that are files are looked for when it is made.
pub(super) fn check(definition: &BaseDefinition) -> Result<(), Fault> {
    match repos::keys(definition, Path::new("/")) {
        Err(fault) if fault.kind != Kind::Missing => Err(fault),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_names_exact_packages() {
        assert_eq!(exactly("bash:x86_64", "5.1-1.el9"), "bash-5.1-1.el9.x86_64");
        assert_eq!(exactly("shadow-utils:x86_64", "2:4.9-8.el9"), "shadow-utils-2:4.9-8.el9.x86_64");
    }
}
