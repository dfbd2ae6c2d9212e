//! What a container would lose of its root filesystem if it were made anew.

use anyhow::Result;

use super::{Host, Record, build};
use crate::api::Losses;
use crate::engine::Change;
use crate::report::Reporter;

/// What moorage, the engine and the init write by themselves: nobody misses it.
const OF_ITSELF: [&str; 20] = [
    "/etc/machine-id",
    "/etc/passwd",
    "/etc/group",
    "/etc/shadow",
    "/etc/environment",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/etc/mtab",
    "/etc/sudoers.d/moorage",
    "/etc/systemd/system.conf.d",
    "/etc/security/limits.d/moorage.conf",
    "/etc/ssh/ssh_host_ed25519_key",
    "/etc/ssh/ssh_host_ed25519_key.pub",
    "/etc/.pwd.lock",
    "/.dockerenv",
    "/dev",
    "/run",
    "/sys",
    "/var/lib/systemd",
];

/// What making `record`'s container anew of `image` would lose.
pub async fn losses(host: &Host, record: &Record, image: String) -> Result<Losses> {
    let name = &record.spec.name;
    let (found, changes, bytes) = tokio::try_join!(
        host.engine.inspect(name.as_str()),
        host.engine.changes(name.as_str()),
        host.engine.written_bytes(name.as_str()),
    )?;
    let (new, _) = build::image(host, &image, &Reporter::silent()).await?;
    let own = match &record.root {
        Some(root) => Some(root.image_id.clone()),
        None => found.map(|found| found.image_id),
    };
    let newer = own.is_none_or(|own| own != new.id);
    let whole_root = record.root.is_some();
    Ok(Losses { name: name.clone(), image, newer, lost: lost(changes), bytes, whole_root })
}

/// The paths that a person may miss. What is below a new or removed directory is not named on its own, nor is a directory
/// that only has something changed in it.
fn lost(mut changes: Vec<Change>) -> Vec<String> {
    let below = |path: &str, top: &str| path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
    let is_own = |path: &str| OF_ITSELF.iter().any(|own| path == *own || below(path, own));
    changes.sort_by(|a, b| a.path.cmp(&b.path));
    let mut lost: Vec<String> = Vec::new();
    let mut whole: Option<String> = None;
    for (index, change) in changes.iter().enumerate() {
        if whole.as_ref().is_some_and(|top| below(&change.path, top)) {
            continue;
        }
        let mut next = changes[index + 1..].iter().take_while(|next| next.path.starts_with(&change.path));
        let has_more = next.any(|next| below(&next.path, &change.path));
        match (change.modified, has_more) {
            // A directory, named by what is changed in it.
            (true, true) => continue,
            (false, true) => whole = Some(change.path.clone()),
            (_, false) => {}
        }
        if !is_own(&change.path) {
            lost.push(change.path.clone());
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wrote_is_named_once() {
        let change = |path: &str, modified| Change { path: path.to_owned(), modified };
        let changes = vec![
            change("/etc", true),
            change("/etc/machine-id", false),
            change("/etc/motd", true),
            change("/usr", true),
            change("/usr/local", true),
            change("/usr/local/tool", false),
            change("/usr/local/tool/bin", false),
            change("/usr/local/tool/bin/run", false),
            change("/usr/local/tools", false),
            change("/run", true),
            change("/run/utmp", false),
            change("/var", true),
            change("/var/lib", true),
            change("/var/lib/systemd", true),
        ];
        assert_eq!(lost(changes), ["/etc/motd", "/usr/local/tool", "/usr/local/tools"]);
    }
}
