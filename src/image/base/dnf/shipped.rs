//! What stage 1 made, made ready to be shipped: what of it there is, no time of day in it, one tar.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::prepared::Prepared;
use super::{berkeley, database};
use crate::image::base::lock::Made;
use crate::spec::Digest;

/// In stage 0, after it: what the base is to have of ours, and what it has.
pub(super) const LOOK: &str = r#"set -eu
mkdir -p /out/etc/yum.repos.d
rm -f /out/etc/yum.repos.d/*.repo
cp /moorage/repos/*.repo /out/etc/yum.repos.d/
if [ -e /moorage/repos/dnf.conf ]; then
    mkdir -p /out/etc/dnf
    cp /moorage/repos/dnf.conf /out/etc/dnf/dnf.conf
fi
if [ -d /moorage/repos/vars ]; then
    mkdir -p /out/etc/dnf/vars
    cp /moorage/repos/vars/* /out/etc/dnf/vars/
fi
number=0
while read -r named; do
    if [ "$number" -lt "$1" ]; then
        mkdir -p "/out${named%/*}"
        cp "/moorage/files/$number" "/out$named"
    fi
    number=$((number + 1))
done </moorage/names
rpm --root /out -qa --qf "$2" >/moorage/all
rpmdb --root /out --exportdb >/moorage/headers
rpm --root /out --eval '%{_dbpath}' >/moorage/dbpath"#;

/// In stage 0, at last: the database anew, and nothing that has the time of day.
pub(super) const SETTLE: &str = r#"set -eu
path=/out$(cat /moorage/dbpath)
rm -rf "$path"
mkdir -p "$path"
rpmdb --root /out --initdb
rpmdb --root /out --importdb </moorage/headers
# SQLite's index of a log with nothing in it.
[ -s "$path/rpmdb.sqlite-wal" ] || rm -f "$path/rpmdb.sqlite-wal" "$path/rpmdb.sqlite-shm"
rm -rf "$path"/__db.* "$path"/.rpm.lock /out/var/cache/dnf/* /out/var/cache/yum/* /out/var/cache/ldconfig/aux-cache
rm -rf /out/var/lib/dnf/* /out/var/log/dnf* /out/var/log/hawkey.log /out/var/log/yum.log
if [ -e /out/etc/machine-id ]; then : >/out/etc/machine-id; fi"#;

impl Prepared {
    /// What went in, and the metadata it came from.
    pub fn made(&self) -> Result<Made> {
        let all = std::fs::read_to_string(self.directory.join("all")).context("read the list of packages")?;
        // The keys of the repositories are in the database as packages, without an architecture.
        let packages = all
            .lines()
            .filter(|line| !line.starts_with("gpg-pubkey:"))
            .fold(String::new(), |all, line| all + line + "\n");
        let cache = self.stage0.join("out/var/cache/dnf");
        let mut metadata = BTreeMap::new();
        for entry in std::fs::read_dir(&cache).context("look at dnf's cache")? {
            let path = entry.context("look at dnf's cache")?.path();
            let Ok(bytes) = std::fs::read(path.join("repodata/repomd.xml")) else { continue };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            metadata.insert(name, Digest(Sha256::digest(bytes).into()));
        }
        Ok(Made { metadata, ..Made::read("", &packages) })
    }

    /// See [`database::settle`].
    pub fn settle(&self, epoch: u64) -> Result<()> {
        let path = self.directory.join("headers");
        let export = std::fs::read(&path).context("read rpm's database")?;
        let settled = database::settle(export, u32::try_from(epoch).context("the epoch")?)?;
        std::fs::write(&path, settled).context("write rpm's database")
    }

    /// The files of the new database, see [`berkeley::settle`].
    pub fn settle_files(&self) -> Result<()> {
        let out = self.stage0.join("out").canonicalize().context("look at the base")?;
        let named =
            std::fs::read_to_string(self.directory.join("dbpath")).context("where rpm's database is")?;
        let path = out.join(named.trim().trim_start_matches('/'));
        let path = path.canonicalize().with_context(|| format!("look at {}", path.display()))?;
        // A link of a package's leads anywhere on this host.
        anyhow::ensure!(path.starts_with(&out), "rpm's database is outside of the base: {}", path.display());
        for entry in std::fs::read_dir(&path).context("look at rpm's database")? {
            let file = entry.context("look at rpm's database")?;
            if !file.file_type().context("look at rpm's database")?.is_file() {
                continue;
            }
            let mut bytes = std::fs::read(file.path()).context("read rpm's database")?;
            if berkeley::settle(&mut bytes, &file.file_name().to_string_lossy()) {
                std::fs::write(file.path(), bytes).context("write rpm's database")?;
            }
        }
        Ok(())
    }

    /// A password's last change (shadow(5), days since 1970) is no later than the epoch.
    pub fn shadow(&self, epoch: u64) -> Result<()> {
        for name in ["shadow", "shadow-"] {
            let path = self.stage0.join("out/etc").join(name);
            // A base without it has no passwords.
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let mode = std::fs::metadata(&path).context("look at the shadow file")?.permissions();
            std::fs::write(&path, no_later(&text, epoch / 86400)).context("write the shadow file")?;
            std::fs::set_permissions(&path, mode).context("write the shadow file")?;
        }
        Ok(())
    }
}

fn no_later(shadow: &str, day: u64) -> String {
    let line = |line: &str| {
        let mut fields: Vec<String> = line.split(':').map(str::to_owned).collect();
        if let Some(changed) = fields.get_mut(2)
            && changed.parse::<u64>().is_ok_and(|changed| changed > day)
        {
            *changed = day.to_string();
        }
        fields.join(":") + "\n"
    };
    shadow.lines().map(line).collect()
}

/// The same files make the same bytes: sorted, no time later than the epoch, no names of owners.
pub(super) async fn pack(root: &Path, to: &Path, epoch: u64) -> Result<()> {
    let status = Command::new("tar")
        .args(["--create", "--sort=name", "--clamp-mtime", "--numeric-owner", "--format=pax", "--xattrs"])
        .args(["--xattrs-include=security.capability", &format!("--mtime=@{epoch}")])
        .arg("--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime")
        .arg("--file")
        .arg(to)
        .arg("--directory")
        .arg(root)
        .arg(".")
        .kill_on_drop(true)
        .status()
        .await
        .context("run tar")?;
    anyhow::ensure!(status.success(), "tar could not pack the root filesystem: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_have_no_later_day() {
        assert_eq!(
            no_later("root:*:19700:0:::::\nann:!!::\nx:*:100:0\n", 19000),
            "root:*:19000:0:::::\nann:!!::\nx:*:100:0\n"
        );
    }
}
