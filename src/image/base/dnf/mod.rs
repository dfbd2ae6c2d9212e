//! The rpm family, in two stages. Stage 0: this host's dnf makes a root filesystem that has the distribution's own dnf and
//! rpm in it. Stage 1: these make the base, so that its database has the format that its own tools read. Only what stage 1
//! made is shipped.

mod apart;
mod database;
mod repos;
mod told;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use self::apart::{Apart, Ended, is_installed};
use self::repos::{KeyFile, Setting, repositories};
use super::Lock;
use super::bootstrap::Work;
use super::lock::Made;
use crate::image::{Build, STEP};
use crate::report::{Fault, Kind};
use crate::site::{BaseDefinition, RepoFile};
use crate::spec::Digest;

/// What stage 0 has to have, of the distribution itself.
const TOOLS: [&str; 3] = ["dnf", "rpm", "coreutils"];
/// Where stage 0 finds what the host hands in, and puts what the host wants to know.
const INSIDE: &str = "/moorage";
/// The base's root filesystem, seen from stage 0.
const OUT: &str = "/out";
/// Debian's rpm has its database in the person's home unless it is told otherwise.
const MACROS: &str = "%_dbpath /var/lib/rpm\n";

/// In stage 0, before its dnf runs (`"$@"`): keys and certificates to where the repositories name them.
const INSTALL: &str = r#"set -eu
number=0
while read -r named; do
    mkdir -p "${named%/*}"
    cp "/moorage/files/$number" "$named"
    number=$((number + 1))
done </moorage/names
exec "$@""#;

/// In stage 0, after it: what the base is to have of ours, and what it has.
const LOOK: &str = r#"set -eu
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
const SETTLE: &str = r#"set -eu
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

/// The files of signed metadata, with the place that names their repository. Of one that only names a list of mirrors the
/// list, which is never what a lock has: dnf is asked then.
pub(super) fn metadata(files: &BTreeMap<String, RepoFile>, release: &str) -> Vec<(String, String)> {
    let of = |repository: repos::Repository| {
        let (url, rest) = match repository.urls.first() {
            Some(url) => (url.clone(), "/repodata/repomd.xml"),
            None => (repository.lists.first()?.clone(), ""),
        };
        let address = substituted(&url.value, files, release);
        Some((format!("{}{rest}", address.trim_end_matches('/')), url.place))
    };
    repositories(files).into_iter().filter_map(of).collect()
}

/// dnf's variables (dnf.conf(5)): its own, and those of the files in `vars/`.
fn substituted(text: &str, files: &BTreeMap<String, RepoFile>, release: &str) -> String {
    let own = files.iter().filter_map(|(name, file)| {
        let value =
            String::from_utf8_lossy(&file.content).lines().next().unwrap_or_default().trim().to_owned();
        Some((name.strip_prefix("vars/")?.to_owned(), value))
    });
    let known =
        [("releasever", release), ("basearch", std::env::consts::ARCH), ("arch", std::env::consts::ARCH)];
    let known = known.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    // Longer names first: one may begin with another.
    let mut all: Vec<(String, String)> = own.chain(known).collect();
    all.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
    all.iter().fold(text.to_owned(), |text, (name, value)| {
        text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value)
    })
}

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

/// What the host prepares for both stages.
struct Prepared {
    /// The directory that stage 0 sees as [`INSIDE`].
    directory: PathBuf,
    stage0: PathBuf,
    home: PathBuf,
    keys: Vec<(String, Vec<KeyFile>)>,
}

impl Prepared {
    fn new(definition: &BaseDefinition, work: &Work) -> Result<Prepared> {
        let repos = work.repos(definition)?;
        let keys = repos::keys(definition, &repos)?;
        let at = |name: &str| work.path().join(name);
        for name in ["moorage/repos", "moorage/files", "stage0/out", "home"] {
            std::fs::create_dir_all(at(name)).with_context(|| format!("make {name}"))?;
        }
        std::fs::remove_dir(at("moorage/repos")).context("make room for the repos")?;
        std::fs::rename(&repos, at("moorage/repos")).context("hand the repos in")?;
        let write =
            |name: &str, text: &str| std::fs::write(at(name), text).with_context(|| format!("write {name}"));
        write("home/.rpmmacros", MACROS)?;
        write("moorage/dnf.conf", "[main]\n")?;
        let moved = |key: KeyFile| match key.here.strip_prefix(&repos) {
            Ok(beside) => KeyFile { here: at("moorage/repos").join(beside), ..key },
            Err(_) => key,
        };
        let keys = keys.into_iter().map(|(id, keys)| (id, keys.into_iter().map(moved).collect())).collect();
        Ok(Prepared { directory: at("moorage"), stage0: at("stage0"), home: at("home"), keys })
    }

    /// Where each repository's keys are on this host, where it names another place.
    fn overrides(&self, definition: &BaseDefinition) -> Vec<String> {
        let all = repositories(&definition.repos);
        let of = |(id, files): &(String, Vec<KeyFile>)| {
            let repository = all.iter().find(|repository| repository.id == *id)?;
            let key = |Setting { value, .. }: &Setting| {
                let file = files
                    .iter()
                    .find(|file| value.strip_prefix("file://").map(Path::new) == Some(&file.named));
                file.map_or_else(|| value.clone(), |file| format!("file://{}", file.here.display()))
            };
            let keys: Vec<String> = repository.keys.iter().map(key).collect();
            Some(format!("--setopt={id}.gpgkey={}", keys.join(",")))
        };
        self.keys.iter().filter_map(of).collect()
    }

    /// Copies keys and certificates to where stage 0 finds them, the keys first; answers how many keys there are.
    fn hand_in(&self, definition: &BaseDefinition) -> Result<usize> {
        let keys: Vec<&KeyFile> = self.keys.iter().flat_map(|(_, keys)| keys).collect();
        let count = keys.len();
        let secrets = repositories(&definition.repos).into_iter().flat_map(|repository| repository.secrets);
        let secrets: Vec<Setting> = secrets.collect();
        let missing = secrets.iter().find(|secret| !Path::new(&secret.value).is_file());
        if let Some(Setting { value, place }) = missing {
            let what = format!("{place}: {value} is not there, which the repository is asked with");
            return Err(Fault::new(Kind::Missing, what)
                .next("subscription-manager register, or copy it there from a host that is registered")
                .into());
        }
        let keys = keys.into_iter().map(|key| (key.here.clone(), key.named.display().to_string()));
        let secrets = secrets.iter().map(|secret| (PathBuf::from(&secret.value), secret.value.clone()));
        let mut names = String::new();
        for (number, (from, named)) in keys.chain(secrets).enumerate() {
            let to = self.directory.join("files").join(number.to_string());
            std::fs::copy(&from, &to).with_context(|| format!("copy {}", from.display()))?;
            names.push_str(&named);
            names.push('\n');
        }
        std::fs::write(self.directory.join("names"), names).context("write the names of keys")?;
        Ok(count)
    }

    /// Stage 0 as what is run in it sees it: how names are resolved, and repositories that are directories.
    fn inside(&self, definition: &BaseDefinition, release: &str) -> Apart {
        let into = |path: &str| self.stage0.join(path.trim_start_matches('/'));
        let mut binds = vec![(self.directory.clone(), into(INSIDE))];
        if let Ok(resolver) = std::fs::canonicalize("/etc/resolv.conf") {
            binds.push((resolver, into("/etc/resolv.conf")));
        }
        for (url, _) in metadata(&definition.repos, release) {
            let directory =
                url.strip_prefix("file://").and_then(|path| path.strip_suffix("/repodata/repomd.xml"));
            binds.extend(directory.map(|path| (PathBuf::from(path), into(path))));
        }
        let roots = vec![self.stage0.clone(), self.stage0.join(OUT.trim_start_matches('/'))];
        Apart { roots, binds, home: "/root".into() }
    }

    fn chroot(&self, script: &str, words: Vec<String>) -> Vec<String> {
        let chroot =
            ["chroot", &self.stage0.display().to_string(), "/bin/sh", "-c", script, "sh"].map(str::to_owned);
        chroot.into_iter().chain(words).collect()
    }
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
    prepared.shadow(definition.epoch)?;
    pack(&prepared.stage0.join("out"), &work.root(), definition.epoch).await?;
    Ok(made)
}

/// `name:architecture` of one version, as dnf takes it: `name-epoch:version-release.architecture`.
fn exactly(package: &str, version: &str) -> String {
    let (name, architecture) = package.split_once(':').unwrap_or((package, "noarch"));
    format!("{name}-{version}.{architecture}")
}

impl Prepared {
    /// What went in, and the metadata it came from.
    fn made(&self) -> Result<Made> {
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
    fn settle(&self, epoch: u64) -> Result<()> {
        let path = self.directory.join("headers");
        let mut export = std::fs::read(&path).context("read rpm's database")?;
        database::settle(&mut export, u32::try_from(epoch).context("the epoch")?)?;
        std::fs::write(&path, export).context("write rpm's database")
    }

    /// A password's last change (shadow(5), days since 1970) is no later than the epoch.
    fn shadow(&self, epoch: u64) -> Result<()> {
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
async fn pack(root: &Path, to: &Path, epoch: u64) -> Result<()> {
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
    use super::super::repos::tests::files;
    use super::*;

    #[test]
    fn metadata_are_where_the_variables_lead() {
        let text = "[a]\nname=a\nbaseurl=https://m/$contentdir/${releasever}/$basearch/os/\n[b]\nmirrorlist=https://l/?r=$releasever\n";
        let found = metadata(&files(&[("a.repo", text), ("vars/contentdir", "pub\n")]), "9");
        let arch = std::env::consts::ARCH;
        let wanted = [
            (format!("https://m/pub/9/{arch}/os/repodata/repomd.xml"), "r/a.repo:3".to_owned()),
            ("https://l/?r=9".to_owned(), "r/a.repo:5".to_owned()),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_lock_names_exact_packages() {
        assert_eq!(exactly("bash:x86_64", "5.1-1.el9"), "bash-5.1-1.el9.x86_64");
        assert_eq!(exactly("shadow-utils:x86_64", "2:4.9-8.el9"), "shadow-utils-2:4.9-8.el9.x86_64");
    }

    #[test]
    fn passwords_have_no_later_day() {
        assert_eq!(
            no_later("root:*:19700:0:::::\nann:!!::\nx:*:100:0\n", 19000),
            "root:*:19000:0:::::\nann:!!::\nx:*:100:0\n"
        );
    }
}
