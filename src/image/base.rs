//! Base images straight from package repositories, without any image hub: mmdebstrap makes the root filesystem, the
//! engine imports it.

use std::io::{Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result};
use bollard::query_parameters::CreateImageOptions;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::stream::Tail;
use super::{Build, Built, STEP, known, label};
use crate::report::{Fault, Kind, Unit};
use crate::site::{BaseDefinition, Site};
use crate::spec::Digest;
use crate::spec::plan::Plan;

/// Bytes of the root filesystem sent to the engine at a time.
const CHUNK: usize = 1 << 20;

/// Makes the base image `name`, unless the one that is here was made from the same definition.
///
/// Unknown base: [`Kind::NotFound`]; no mmdebstrap or keyring: [`Kind::Missing`].
pub async fn make(build: Build<'_>, name: &str) -> Result<Built> {
    let Build { site, docker, report, refresh } = build;
    let definition = site.base(name)?;
    let reference = site.image_reference(name)?;
    let digest = digest(&definition)?;
    let here = known(docker, &reference).await?;
    if let Some(here) = &here
        && !refresh
        && label::is_of(&here.labels, digest)
    {
        report.end(STEP, format!("{reference} is up to date"));
        return Ok(here.clone().built(&reference, false));
    }
    report.begin(STEP, format!("make {reference} from the packages of {}", definition.raw.suite));
    // Packages are verified as a user of their own, which has to get through.
    let work = tempfile::Builder::new()
        .prefix("moorage-base-")
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir()
        .context("make a directory to work in")?;
    let root = work.path().join("root.tar");
    bootstrap(build, &definition, work.path(), &root).await?;
    let content = digest_of(root.clone()).await?;
    if let Some(here) = here
        && label::is_of(&here.labels, digest)
        && here.labels.get(label::ROOT) == Some(&content.to_string())
    {
        report.end(STEP, format!("{reference} is up to date, no package has changed"));
        return Ok(here.built(&reference, false));
    }
    let changes = vec![
        format!("LABEL {}={digest} {}={content}", label::DEFINITION, label::ROOT),
        r#"CMD ["/bin/bash"]"#.to_owned(),
    ];
    import(build, &reference, changes, root).await?;
    let made = known(docker, &reference).await?;
    let made = made.with_context(|| format!("the engine took {reference} and does not have it"))?;
    report.end(STEP, format!("{reference} is made, {}", crate::spec::ByteSize(made.size)));
    Ok(made.built(&reference, true))
}

/// What [`make`] would do; it does not ask the engine.
pub fn plan(site: &Site, name: &str) -> Result<Plan> {
    let definition = site.base(name)?;
    let reference = site.image_reference(name)?;
    let arguments = arguments(&definition, Path::new("."), Path::new("-")).join(" ");
    Ok(super::step(
        format!("make {reference} from the packages of {}", definition.raw.suite),
        format!(
            "SOURCE_DATE_EPOCH={} mmdebstrap {arguments} | docker import - {reference}",
            definition.raw.epoch
        ),
    ))
}

pub(super) fn digest(definition: &BaseDefinition) -> Result<Digest> {
    let text = serde_json::to_vec(definition).context("write the definition")?;
    Ok(label::digest([text.as_slice()]))
}

/// The command line; `directory` holds the files of the definition's repos.
fn arguments(definition: &BaseDefinition, directory: &Path, root: &Path) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    let mut arguments = vec!["--variant=minbase".to_owned(), "--format=tar".to_owned()];
    arguments.push(format!("--keyring={}", keyring(definition, directory).display()));
    if definition.repos.contains_key("apt.conf") {
        arguments.push(format!("--aptopt={}", file("apt.conf")));
    }
    if definition.repos.contains_key("dpkg.cfg") {
        arguments.push(format!("--dpkgopt={}", file("dpkg.cfg")));
    }
    if !definition.raw.packages.is_empty() {
        arguments.push(format!("--include={}", definition.raw.packages.join(",")));
    }
    arguments.push(definition.raw.suite.clone());
    arguments.push(root.display().to_string());
    let is_source = |name: &&String| name.ends_with(".sources") || name.ends_with(".list");
    arguments.extend(definition.repos.keys().filter(is_source).map(|name| file(name)));
    arguments
}

/// An absolute path is the host's; a relative one is among the repos' files.
fn keyring(definition: &BaseDefinition, directory: &Path) -> PathBuf {
    directory.join(&definition.raw.keyring)
}

async fn bootstrap(build: Build<'_>, definition: &BaseDefinition, work: &Path, root: &Path) -> Result<()> {
    let directory = work.join("repos");
    std::fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    for (name, content) in &definition.repos {
        let path = directory.join(name);
        if let Some(above) = path.parent() {
            std::fs::create_dir_all(above).with_context(|| format!("make {}", above.display()))?;
        }
        std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
    }
    let keyring = keyring(definition, &directory);
    if !keyring.is_file() {
        let what = format!("the keyring {} is not there, so no package can be verified", keyring.display());
        return Err(Fault::new(Kind::Missing, what).next("apt-get install debian-archive-keyring").into());
    }
    let child = Command::new("mmdebstrap")
        .args(arguments(definition, &directory, root))
        .env("SOURCE_DATE_EPOCH", definition.raw.epoch.to_string())
        .env("LC_ALL", "C.UTF-8")
        .env("TMPDIR", work)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
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
    let mut lines = BufReader::new(child.stderr.take().context("read what mmdebstrap says")?).lines();
    while let Some(line) = lines.next_line().await.context("read what mmdebstrap says")? {
        tail.line(build.report, line);
    }
    let status = child.wait().await.context("wait for mmdebstrap")?;
    match status.success() {
        true => Ok(()),
        false => Err(tail
            .fault(format!("mmdebstrap could not make {}", definition.name), Some(status.to_string()))
            .into()),
    }
}

async fn digest_of(path: PathBuf) -> Result<Digest> {
    let read = move || -> std::io::Result<Digest> {
        let mut hash = Sha256::new();
        let mut file = std::fs::File::open(path)?;
        let mut chunk = vec![0; CHUNK];
        loop {
            match file.read(&mut chunk)? {
                0 => return Ok(Digest(hash.finalize().into())),
                length => hash.update(&chunk[..length]),
            }
        }
    };
    tokio::task::spawn_blocking(read).await?.context("read the root filesystem")
}

/// `docker import`: one layer, with the changes to its configuration in the words of a Dockerfile.
async fn import(build: Build<'_>, reference: &str, changes: Vec<String>, root: PathBuf) -> Result<()> {
    let mut file = std::fs::File::open(&root).context("read the root filesystem")?;
    let total = file.seek(std::io::SeekFrom::End(0)).context("read the root filesystem")?;
    file.rewind().context("read the root filesystem")?;
    let report = build.report.clone();
    let body = futures_util::stream::try_unfold((file, 0), move |(mut file, sent)| {
        let report = report.clone();
        async move {
            let read = tokio::task::spawn_blocking(move || {
                let mut chunk = vec![0; CHUNK];
                let length = file.read(&mut chunk)?;
                chunk.truncate(length);
                Ok::<_, std::io::Error>((file, chunk))
            });
            let (file, chunk) = read.await.map_err(std::io::Error::other)??;
            let sent = sent + chunk.len() as u64;
            report.progress(STEP, sent, Some(total), Unit::Bytes);
            Ok((!chunk.is_empty()).then(|| (Bytes::from(chunk), (file, sent))))
        }
    });
    let (repo, tag) = reference.rsplit_once(':').context("a reference without a tag")?;
    let options = CreateImageOptions {
        from_src: Some("-".into()),
        repo: Some(repo.into()),
        tag: Some(tag.into()),
        changes,
        ..CreateImageOptions::default()
    };
    let body = bollard::body_try_stream(body.boxed());
    let said: Result<Vec<_>, _> =
        build.docker.create_image(Some(options), Some(body), None).try_collect().await;
    let said = said.with_context(|| format!("import {reference} into the engine"))?;
    match said.into_iter().find_map(|said| said.error_detail) {
        Some(error) => Err(Fault::new(Kind::Failed, format!("the engine does not take {reference}"))
            .why(error.message.unwrap_or_default())
            .next("docker info shows the engine's storage; then run the same command again")
            .into()),
        None => Ok(()),
    }
}
