//! mmdebstrap: from packages to the tar of a root filesystem.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::oneshot;

use super::apart::{APART, is_installed};
use super::lock::{Lock, Made};
use super::repos::entries;
use super::told::explain;
use super::work::Work;
use crate::image::Build;
use crate::image::layer::{Layer, arriving};
use crate::image::stream::Tail;
use crate::report::{Fault, Kind};
use crate::site::{BaseDefinition, Placed};

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

/// Makes the root filesystem; with a lock, of the very versions it has. The engine takes it in while it is written, where
/// it can.
pub(super) async fn bootstrap(
    build: Build<'_>,
    definition: &BaseDefinition,
    (suite, keyring): (&str, &Placed),
    lock: Option<&Lock>,
    work: &Work,
) -> Result<(Made, Layer)> {
    let directory = work.repos(definition)?;
    keyrings(definition, keyring, &directory)?;
    let mut command = mmdebstrap();
    if let Some(lock) = lock {
        std::fs::write(work.path().join("preferences"), lock.preferences())
            .context("write the lock's versions")?;
        command.args(PINS);
    }
    let (root, stdout) = match build.engine.knows_layers().await? {
        true => (PathBuf::from("-"), Stdio::piped()),
        false => (work.root(), Stdio::null()),
    };
    command
        .args(HOOKS)
        .args(HASTE)
        .args(arguments(definition, suite, keyring, &directory, &root))
        .env("SOURCE_DATE_EPOCH", definition.epoch.to_string())
        .env("MOORAGE_WORK", work.path())
        .env("LC_ALL", "C.UTF-8")
        .env("TMPDIR", work.path());
    let mut child = start(command, stdout)?;
    let Some(tar) = child.stdout.take() else {
        ended(&mut child, build, definition).await?;
        return Ok((work.made()?, Layer::written(root).await?));
    };
    let (tell, whole) = oneshot::channel();
    let end = async {
        let ended = ended(&mut child, build, definition).await;
        // Nobody listens any more when the engine did not take what there was, which is why mmdebstrap could not go on.
        let is_cause = tell.send(ended.is_ok()).is_ok();
        (ended, is_cause)
    };
    let taker = work.path().display().to_string();
    let taken = build.engine.take_layer(arriving(tar, whole, build.report.clone()), &taker);
    match tokio::join!(end, taken) {
        ((Err(error), true), _) | ((Err(error), false), Ok(_)) => Err(error),
        (_, Err(error)) => Err(error.context(format!("make {}", definition.name))),
        (_, Ok(taken)) => Ok((work.made()?, Layer::Taken(taken))),
    }
}

/// mmdebstrap, with nothing to do yet. Run by somebody else than root it sees to mounts and processes of its own.
fn mmdebstrap() -> Command {
    let mut command = match rustix::process::geteuid().is_root() {
        true => {
            let mut command = Command::new("unshare");
            command.args(APART).arg("mmdebstrap");
            command
        }
        false => Command::new("mmdebstrap"),
    };
    // Where it cannot write its tar it sends a SIGHUP to all of its process group.
    command.process_group(0);
    command
}

fn start(mut command: Command, stdout: Stdio) -> Result<Child> {
    if !is_installed("mmdebstrap") {
        let what = "mmdebstrap is not installed; it makes base images from packages";
        return Err(Fault::new(Kind::Missing, what).next("apt-get install mmdebstrap").into());
    }
    let child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).kill_on_drop(true).spawn();
    child.context("run mmdebstrap")
}

/// Shows what mmdebstrap says, and waits for its end.
async fn ended(child: &mut Child, build: Build<'_>, definition: &BaseDefinition) -> Result<()> {
    let mut tail = Tail::default();
    let mut told = Vec::new();
    let said = child.stderr.take().context("read what mmdebstrap says")?;
    let mut lines = BufReader::new(said).lines();
    while let Some(line) = lines.next_line().await.context("read what mmdebstrap says")? {
        if ["E:", "W:", "Err", " "].iter().any(|begin| line.starts_with(begin)) {
            told.push(line.clone());
        }
        tail.line(build.report, line);
    }
    let status = child.wait().await.context("wait for mmdebstrap")?;
    if status.success() {
        return Ok(());
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
