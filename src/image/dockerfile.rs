//! Dev images: a Dockerfile template on a pinned base, built by the engine's own builder.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context as _, Result};
use bollard::errors::Error;
use bollard::query_parameters::BuildImageOptions;
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::stream::Tail;
use super::{Build, Built, Known, STEP, base, buildkit, context, known, label};
use crate::report::{Fault, Kind, Unit};
use crate::site::{ImageDefinition, Site};
use crate::spec::Digest;
use crate::spec::plan::Plan;

/// The build arguments that every Dockerfile knows without an `ARG` (Dockerfile reference, predefined ARGs).
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Builds the dev image `name`, what it is built on before it where that is missing, and nothing where definition
/// and base are the same as those of the image that is here.
///
/// Unknown image or base: [`Kind::NotFound`]; a mistake in a template: [`Kind::Usage`] with file and line.
pub async fn make(build: Build<'_>, name: &str) -> Result<Built> {
    let chain = lineage(build.site, name)?;
    let (asked, below) = chain.split_first().context("a lineage begins with the image itself")?;
    let lowest = below.last().unwrap_or(asked);
    let mut on = ground(build, &lowest.raw.base).await?;
    for definition in below.iter().rev() {
        on = present(build, definition, on).await?;
    }
    one(build, asked, &on).await
}

/// What an image is built on.
pub(super) struct On {
    pub reference: String,
    /// What `FROM` says for it.
    pub pinned: String,
    /// `sha256:…`, the same whether it was published or not.
    pub id: String,
}

/// A dev image further down the lineage: as it is here, else built.
async fn present(build: Build<'_>, definition: &ImageDefinition, on: On) -> Result<On> {
    let reference = build.site.image_reference(&definition.name)?;
    if let Some(here) = known(build.docker().await?, &reference).await? {
        return Ok(On { pinned: pin(&reference, &here), id: here.id, reference });
    }
    let built = one(Build { refresh: false, ..build }, definition, &on).await?;
    Ok(On { reference, pinned: built.id.clone(), id: built.id })
}

/// What [`make`] would do; it does not ask the engine.
pub fn plan(site: &Site, name: &str) -> Result<Plan> {
    let chain = lineage(site, name)?;
    let reference = site.image_reference(name)?;
    let on = chain.iter().map(|definition| definition.raw.base.as_str()).collect::<Vec<_>>().join(", on ");
    // Rendered with the base's name for its id, to find mistakes.
    for definition in &chain {
        context::render(definition, &definition.raw.base)?;
    }
    Ok(super::step(
        format!("build {reference} on {on}"),
        format!("docker build --network host -t {reference} ."),
    ))
}

/// The image and the dev images it is built on, itself first.
pub(super) fn lineage(site: &Site, name: &str) -> Result<Vec<ImageDefinition>, Fault> {
    let images = site.images()?;
    let mut chain = vec![site.image(name)?];
    loop {
        let Some(last) = chain.last() else { return Ok(chain) };
        let on = last.raw.base.clone();
        if !images.contains(&on) {
            return Ok(chain);
        }
        if chain.iter().any(|above| above.name == on) {
            let what = format!("the image {name:?} is built on itself: {} on {on}", last.name);
            return Err(
                Fault::new(Kind::Usage, what).next(format!("correct `base` in {}'s image.toml", last.name))
            );
        }
        chain.push(site.image(&on)?);
    }
}

/// What a whole lineage stands on, which is no dev image. A missing base of the site is made.
async fn ground(build: Build<'_>, name: &str) -> Result<On> {
    let Build { site, report, .. } = build;
    let docker = build.docker().await?;
    let reference = site.image_reference(name)?;
    let is_base = site.bases()?.iter().any(|base| base == name);
    if let Some(here) = known(docker, &reference).await? {
        if is_base && !label::is_of(&here.labels, base::digest(&site.base(name)?)?) {
            report.warning(format!(
                "{reference} was made from another definition; make it anew with: moorage make-base-image {name}"
            ));
        }
        return Ok(On { pinned: pin(&reference, &here), id: here.id, reference });
    }
    if !is_base {
        return Err(Fault::new(Kind::Missing, format!("the image {reference} is not here"))
            .next(format!("docker pull {reference}"))
            .into());
    }
    report.begin(STEP, format!("{reference} is not here: it is made first"));
    let made = base::make(Build { refresh: false, ..build }, name, None).await?;
    if let Some(lock) = &made.lock {
        super::memory::Memory::of_this_host()?.locks()?.put(name, lock)?;
    }
    Ok(On { reference, pinned: made.built.id.clone(), id: made.built.id })
}

/// What cannot change: the digest its registry gave it, or its id where it never saw one.
pub(super) fn pin(reference: &str, image: &Known) -> String {
    let repository =
        reference.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).map_or(reference, |(r, _)| r);
    let digest = image.digests.iter().find(|digest| digest.split('@').next() == Some(repository));
    digest.cloned().unwrap_or_else(|| image.id.clone())
}

/// The digest of a definition: of all that is sent to the engine but for the pin, so that publishing a base changes
/// nothing. Mistakes in the templates: [`Kind::Usage`] with file and line.
pub fn digest(definition: &ImageDefinition) -> Result<Digest> {
    let archive = context::archive(&context::render(definition, &definition.raw.base)?)?;
    Ok(label::digest([archive.as_slice()]))
}

async fn one(build: Build<'_>, definition: &ImageDefinition, on: &On) -> Result<Built> {
    let reference = build.site.image_reference(&definition.name)?;
    if let Some(here) = known(build.docker().await?, &reference).await?
        && !build.refresh
        && label::is_of(&here.labels, digest(definition)?)
        && here.labels.get(label::BASE_ID) == Some(&on.id)
    {
        build.report.end(STEP, format!("{reference} is up to date"));
        return Ok(here.built(&reference, false));
    }
    let built = build_as(build, definition, on, &reference).await?;
    // Which metadata its packages are of is not known: the next look at the repositories asks for the packages themselves.
    let lock = lock(build, definition, &built.id, BTreeMap::new()).await?;
    super::memory::Memory::of_this_host()?.locks()?.put(&definition.name, &lock)?;
    Ok(built)
}

/// Remembers the packages of the image `name` as it is now: another id, and the same packages.
pub async fn squashed(build: Build<'_>, name: &str) -> Result<()> {
    let reference = build.site.image_reference(name)?;
    let here = known(build.docker().await?, &reference).await?;
    let id = here.with_context(|| format!("{reference} is not here"))?.id;
    let lock = lock(build, &build.site.image(name)?, &id, BTreeMap::new()).await?;
    super::memory::Memory::of_this_host()?.locks()?.put(name, &lock)
}

/// Builds it as `reference`, whatever is there.
pub(super) async fn build_as(
    build: Build<'_>,
    definition: &ImageDefinition,
    on: &On,
    reference: &str,
) -> Result<Built> {
    let (docker, report) = (build.docker().await?, build.report);
    let digest = digest(definition)?;
    let labels = labels(definition, digest, on);
    report.begin(STEP, format!("build {reference} on {}", on.reference));
    match definition.raw.secrets.is_empty() {
        true => classic(build, context(definition, &on.pinned)?, reference, labels).await?,
        false => with_secrets(build, definition, on, (reference, labels)).await?,
    }
    let built = known(docker, reference).await?;
    let built = built.with_context(|| format!("the engine built {reference} and does not have it"))?;
    report.end(STEP, format!("{reference} is built, {}", crate::spec::ByteSize(built.size)));
    Ok(built.built(reference, true))
}

fn context(definition: &ImageDefinition, base: &str) -> Result<Vec<u8>> {
    context::archive(&context::render(definition, base)?)
}

async fn with_secrets(
    build: Build<'_>,
    definition: &ImageDefinition,
    on: &On,
    (reference, labels): (&str, HashMap<String, String>),
) -> Result<()> {
    let secrets = buildkit::of(definition, build.secrets)?;
    let pinned = buildkit::Pinned::of(build, &on.pinned).await?;
    let wanted = buildkit::Wanted { reference, labels: &labels, arguments: &proxies() };
    let built = match context(definition, &pinned.name) {
        Ok(archive) => buildkit::build(build, archive, &secrets, wanted).await,
        Err(error) => Err(error),
    };
    pinned.forget(build).await?;
    built
}

/// By the builder that every engine has.
async fn classic(
    build: Build<'_>,
    archive: Vec<u8>,
    reference: &str,
    labels: HashMap<String, String>,
) -> Result<()> {
    let (docker, report) = (build.docker().await?, build.report);
    let options = BuildImageOptions {
        t: Some(reference.to_owned()),
        nocache: build.refresh,
        rm: true,
        forcerm: true,
        // Package mirrors are reached as this host reaches them, whatever networks the engine has.
        networkmode: Some("host".into()),
        buildargs: Some(proxies()),
        labels: Some(labels),
        ..BuildImageOptions::default()
    };
    let body = bollard::body_full(Bytes::from(archive));
    let mut said = std::pin::pin!(docker.build_image(options, None, Some(body)));
    let mut tail = Tail::default();
    let failed = |tail: Tail, why: String| tail.fault(format!("{reference} could not be built"), Some(why));
    loop {
        match said.try_next().await {
            Ok(None) => return Ok(()),
            Ok(Some(info)) => {
                if let Some(text) = info.stream {
                    if let Some((done, total)) = step(&text) {
                        report.progress(STEP, done, Some(total), Unit::Items);
                    }
                    tail.piece(report, &text);
                }
                if let Some(error) = info.error_detail {
                    return Err(failed(tail, error.message.unwrap_or_default()).into());
                }
            }
            Err(Error::DockerStreamError { error }) => return Err(failed(tail, error).into()),
            Err(error) => return Err(failed(tail, error.to_string()).into()),
        }
    }
}

/// What an image has in it, to be compared with what the repositories have.
pub(super) async fn lock(
    build: Build<'_>,
    definition: &ImageDefinition,
    id: &str,
    metadata: BTreeMap<String, Digest>,
) -> Result<base::Lock> {
    let packages = super::smoke::packages(build.engine, id, &build.site.host().cgroup).await?;
    let made = base::lock::Made { metadata, packages };
    Ok(base::Lock::new(&definition.name, digest(definition)?, id.parse()?, made))
}

fn labels(definition: &ImageDefinition, digest: Digest, on: &On) -> HashMap<String, String> {
    let pinned = on.pinned.rsplit_once('@').map_or(on.pinned.as_str(), |(_, digest)| digest);
    HashMap::from([
        (label::DEFINITION.into(), digest.to_string()),
        (label::NAME.into(), definition.name.clone()),
        (label::BASE.into(), definition.raw.base.clone()),
        (label::BASE_ID.into(), on.id.clone()),
        (label::BASE_NAME.into(), on.reference.clone()),
        (label::BASE_DIGEST.into(), pinned.into()),
    ])
}

fn proxies() -> HashMap<String, String> {
    PROXIES.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect()
}

/// `Step 3/12 : RUN …`, as the classic builder counts.
fn step(text: &str) -> Option<(u64, u64)> {
    let (done, rest) = text.strip_prefix("Step ")?.split_once('/')?;
    let total = rest.split(' ').next()?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_s_digest_is_preferred_to_the_id() {
        let mut image = Known {
            id: "sha256:1".into(),
            size: 0,
            digests: vec!["other.corp/x@sha256:2".into(), "r.corp:5000/x@sha256:3".into()],
            labels: HashMap::new(),
        };
        assert_eq!(pin("r.corp:5000/x:latest", &image), "r.corp:5000/x@sha256:3");
        assert_eq!(pin("r.corp:5000/x", &image), "r.corp:5000/x@sha256:3");
        image.digests.clear();
        assert_eq!(pin("moorage/x:latest", &image), "sha256:1");
    }

    #[test]
    fn the_builder_s_steps_are_counted() {
        assert_eq!(step("Step 3/12 : RUN x"), Some((3, 12)));
        assert_eq!(step("Stepping"), None);
    }
}
