//! How many and how long: everybody's lists and every look at the records pay for it. Pure.

use super::wrong;
use crate::report::Fault;
use crate::spec::ContainerSpec;

/// The most sources, mounts, files, keys or set-up steps one specification may have.
pub(super) const MOST: usize = 64;
/// The most environment variables.
pub(super) const MOST_ENV: usize = 256;
/// Bytes of what is a name: a branch, a patch.
pub(super) const NAME: usize = 256;
/// Bytes of what is a path or an address, as PATH_MAX.
const PATH: usize = 4096;
/// Bytes of a command, a key or a variable's value.
pub(super) const TEXT: usize = 16 << 10;
pub(super) fn counts(spec: &ContainerSpec) -> Result<(), Fault> {
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
pub(super) fn texts(spec: &ContainerSpec) -> Result<(), Fault> {
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
