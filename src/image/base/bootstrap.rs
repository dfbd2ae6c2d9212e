//! mmdebstrap: from packages to the tar of a root filesystem.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::lock::{Lock, Made};
use super::repos::entries;
use super::told::explain;
use crate::image::Build;
use crate::image::stream::Tail;
use crate::report::{Fault, Kind};
use crate::site::{BaseDefinition, Placed};

/// The directory one bootstrap works in. mmdebstrap's hooks know it as `$MOORAGE_WORK`.
pub(super) struct Work(tempfile::TempDir);

impl Work {
    pub fn new() -> Result<Work> {
        // Packages are verified as a user of their own, which has to get through.
        tempfile::Builder::new()
            .prefix("moorage-base-")
            .permissions(std::fs::Permissions::from_mode(0o755))
            .tempdir()
            .context("make a directory to work in")
            .map(Work)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn root(&self) -> PathBuf {
        self.0.path().join("root.tar")
    }

    /// Writes the files of the definition's repos, verbatim; answers their directory.
    pub fn repos(&self, definition: &BaseDefinition) -> Result<PathBuf> {
        let directory = self.0.path().join("repos");
        for (name, file) in &definition.repos {
            let path = directory.join(name);
            if let Some(above) = path.parent() {
                std::fs::create_dir_all(above).with_context(|| format!("make {}", above.display()))?;
            }
            std::fs::write(&path, &file.content).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(directory)
    }

    pub fn made(&self) -> Result<Made> {
        let text = |name: &str| {
            let path = self.0.path().join(name);
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
        };
        Ok(Made::read(&text("metadata")?, &text("packages")?))
    }
}

/// The signed metadata that apt has when the packages are in, and the packages.
const HOOKS: [&str; 2] = [
    r#"--customize-hook=cd "$1/var/lib/apt/lists" && find . -maxdepth 1 -name '*Release' -printf '%P\n' | sort | xargs -r sha256sum >"$MOORAGE_WORK/metadata""#,
    r#"--customize-hook=dpkg-query --admindir="$1/var/lib/dpkg" -W -f='${Package}:${Architecture} ${Version}\n' | sort >"$MOORAGE_WORK/packages""#,
];
/// dpkg brings every file to disk before it goes on, for the sake of a machine that loses power. What is half made here is
/// thrown away, so it need not (dpkg(1), unsafe-io).
const HASTE: [&str; 2] = [
    r#"--setup-hook=mkdir -p "$1/etc/dpkg/dpkg.cfg.d" && echo force-unsafe-io >"$1/etc/dpkg/dpkg.cfg.d/moorage-haste""#,
    r#"--customize-hook=rm "$1/etc/dpkg/dpkg.cfg.d/moorage-haste""#,
];
/// The versions of a lock are for this one run.
const PINS: [&str; 2] = [
    r#"--setup-hook=cp "$MOORAGE_WORK/preferences" "$1/etc/apt/preferences.d/moorage-lock""#,
    r#"--customize-hook=rm "$1/etc/apt/preferences.d/moorage-lock""#,
];

/// What is the definition's own on the command line; `directory` holds the files of its repos.
pub(super) fn arguments(
    definition: &BaseDefinition,
    suite: &str,
    keyring: &Placed,
    directory: &Path,
    root: &Path,
) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut arguments = vec!["--variant=minbase".to_owned(), "--format=tar".to_owned()];
    arguments.push(format!("--keyring={}", file(&keyring.text)));
    if definition.repos.contains_key("apt.conf") {
        arguments.push(format!("--aptopt={}", file("apt.conf")));
    }
    if definition.repos.contains_key("dpkg.cfg") {
        arguments.push(format!("--dpkgopt={}", file("dpkg.cfg")));
    }
    // Ubuntu's apt has not the priority by which a minimal system gets it, and nothing could be built on one without.
    let packages = definition.packages.iter().map(|package| package.text.as_str());
    let packages: Vec<&str> = std::iter::once("apt").chain(packages.filter(|name| *name != "apt")).collect();
    arguments.push(format!("--include={}", packages.join(",")));
    arguments.push(suite.to_owned());
    arguments.push(root.display().to_string());
    let is_source = |name: &&String| name.ends_with(".sources") || name.ends_with(".list");
    arguments.extend(definition.repos.keys().filter(is_source).map(|name| file(name)));
    arguments
}

/// Every keyring that is named has to be there before anything is fetched: [`Kind::Missing`] with file and line.
pub(super) fn keyrings(definition: &BaseDefinition, keyring: &Placed, directory: &Path) -> Result<(), Fault> {
    let own = (directory.join(&keyring.text), keyring.place.clone());
    let named = entries(&definition.repos).into_iter();
    let named = named.filter_map(|entry| Some((PathBuf::from(entry.signed_by?), entry.signed_by_place)));
    for (path, place) in std::iter::once(own).chain(named) {
        if !path.is_file() {
            // One beside the repos is named as it stands there.
            let path = path.strip_prefix(directory).unwrap_or(&path).display().to_string();
            let what = format!("{place}: the keyring {path} is not there, so no package can be verified");
            let next = match path.contains("debian") {
                true => "apt-get install debian-archive-keyring".to_owned(),
                false => format!("install the package that has {path}, or put the keyring beside the repos"),
            };
            return Err(Fault::new(Kind::Missing, what).next(next));
        }
    }
    Ok(())
}

/// Makes the root filesystem in `work`; with a lock, of the very versions it has.
pub(super) async fn bootstrap(
    build: Build<'_>,
    definition: &BaseDefinition,
    (suite, keyring): (&str, &Placed),
    lock: Option<&Lock>,
    work: &Work,
) -> Result<Made> {
    let directory = work.repos(definition)?;
    keyrings(definition, keyring, &directory)?;
    let mut command = Command::new("mmdebstrap");
    if let Some(lock) = lock {
        std::fs::write(work.path().join("preferences"), lock.preferences())
            .context("write the lock's versions")?;
        command.args(PINS);
    }
    let child = command
        .args(HOOKS)
        .args(HASTE)
        .args(arguments(definition, suite, keyring, &directory, &work.root()))
        .env("SOURCE_DATE_EPOCH", definition.epoch.to_string())
        .env("MOORAGE_WORK", work.path())
        .env("LC_ALL", "C.UTF-8")
        .env("TMPDIR", work.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let what = "mmdebstrap is not installed; it makes base images from packages";
            return Err(Fault::new(Kind::Missing, what).next("apt-get install mmdebstrap").into());
        }
        Err(e) => return Err(e).context("run mmdebstrap"),
    };
    let mut tail = Tail::default();
    let mut told = Vec::new();
    let mut lines = BufReader::new(child.stderr.take().context("read what mmdebstrap says")?).lines();
    while let Some(line) = lines.next_line().await.context("read what mmdebstrap says")? {
        if line.starts_with("E:")
            || line.starts_with("W:")
            || line.starts_with("Err")
            || line.starts_with(' ')
        {
            told.push(line.clone());
        }
        tail.line(build.report, line);
    }
    let status = child.wait().await.context("wait for mmdebstrap")?;
    if status.success() {
        return work.made();
    }
    let what = format!("mmdebstrap could not make {}", definition.name);
    Err(match explain(definition, told.iter().map(String::as_str)) {
        Some(fault) => anyhow::Error::new(fault).context(what),
        None => tail
            .fault(what, Some(status.to_string()))
            .next("correct what it says, then run the same command again")
            .into(),
    })
}
