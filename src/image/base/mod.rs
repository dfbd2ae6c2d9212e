//! Base images straight from package repositories, without any image hub: mmdebstrap or dnf makes the root
//! filesystem, the engine takes it in, while it is written where it can.

mod apart;
mod bootstrap;
mod dnf;
pub mod lock;
pub(crate) mod repos;
mod told;
pub mod updates;
mod work;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};

pub use self::lock::Lock;
use self::work::Work;
use super::layer::Layer;
use super::load::{self, Configuration};
use super::{Build, Built, STEP, known, label};
use crate::report::{Fault, Kind};
use crate::site::{BaseDefinition, Family, Site};
use crate::spec::Digest;
use crate::spec::plan::Plan;

/// What rpm says of each package, a line (rpm(8), --queryformat): `name:architecture epoch:version-release`.
pub(super) const RPM_FORMAT: &str = r"%{NAME}:%{ARCH} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n";
/// The most differences to a lock that an error lists.
const LISTED: usize = 10;

/// A base that was asked for, and what it was made of where it was made now.
#[derive(Debug)]
pub struct MadeBase {
    pub built: Built,
    pub lock: Option<Lock>,
}

/// Makes the base image `name`, unless the one that is here was made from the same definition; with a lock, of exactly
/// the packages it has.
///
/// Unknown base: [`Kind::NotFound`]; no mmdebstrap, dnf or keyring: [`Kind::Missing`].
pub async fn make(build: Build<'_>, name: &str, lock: Option<&Lock>) -> Result<MadeBase> {
    let reference = build.site.image_reference(name)?;
    let definition = build.site.base(name)?;
    let digest = digest(&definition)?;
    if let Some(here) = known(build.docker().await?, &reference).await?
        && !build.refresh
        && label::is_of(&here.labels, digest)
        && lock.is_none_or(|lock| here.labels.get(label::ROOT) == Some(&lock.root.to_string()))
    {
        build.report.end(STEP, format!("{reference} is up to date"));
        return Ok(MadeBase { built: here.built(&reference, false), lock: None });
    }
    make_as(build, &definition, &reference, lock).await
}

/// Makes the base as `reference`, whatever is there.
pub(super) async fn make_as(
    build: Build<'_>,
    definition: &BaseDefinition,
    reference: &str,
    lock: Option<&Lock>,
) -> Result<MadeBase> {
    let from = repositories(definition);
    build.report.begin(STEP, format!("make {reference} from the packages of {from}"));
    build.engine.let_go_abandoned(|taker| Work::is_held(Path::new(taker))).await?;
    Work::clear_abandoned(build.report);
    let work = Work::new()?;
    let (made, layer) = match &definition.family {
        Family::Apt { suite, keyring } => {
            bootstrap::bootstrap(build, definition, (suite, keyring), lock, &work).await?
        }
        Family::Rpm { release } => {
            let made = dnf::bootstrap(build, definition, release, lock, &work).await?;
            (made, Layer::written(work.root()).await?)
        }
    };
    let base = of_layer(build, definition, reference, lock, (made, &layer)).await;
    // Whatever became of the base; what the engine keeps of it now is the next one's to clear up.
    if let Err(error) = layer.let_go(build.engine).await {
        build.report.warning(format!(
            "a layer of {} stays until the next make-base-image: {error:#}",
            definition.name
        ));
    }
    base
}

/// The base of a root filesystem.
async fn of_layer(
    build: Build<'_>,
    definition: &BaseDefinition,
    reference: &str,
    lock: Option<&Lock>,
    (made, layer): (lock::Made, &Layer),
) -> Result<MadeBase> {
    let (docker, report, name) = (build.docker().await?, build.report, &definition.name);
    let root = layer.digest();
    if let Some(lock) = lock {
        as_locked(lock, &made, root)?;
    }
    let digest = digest(definition)?;
    let labels = BTreeMap::from([
        (label::DEFINITION.to_owned(), digest.to_string()),
        (label::ROOT.to_owned(), root.to_string()),
        (label::NAME.to_owned(), name.clone()),
    ]);
    let made_by = format!("moorage make-base-image {name}");
    let configuration = Configuration::new(definition.epoch, made_by, labels, root)?;
    let id = configuration.id()?.to_string();
    let lock = Some(Lock::new(name, digest, root, made));
    let before = known(docker, reference).await?;
    if let Some(here) = before.filter(|here| here.id == id) {
        report.end(STEP, format!("{reference} is up to date, no package has changed"));
        return Ok(MadeBase { built: here.built(reference, false), lock });
    }
    load::load(docker, report, reference, &configuration, layer).await?;
    let made = known(docker, reference).await?;
    let made = made.with_context(|| format!("the engine took {reference} and does not have it"))?;
    report.end(STEP, format!("{reference} is made, {}", crate::spec::ByteSize(made.size)));
    Ok(MadeBase { built: made.built(reference, true), lock })
}

/// The lock is a promise: the same packages, and of these the same bytes.
fn as_locked(lock: &Lock, made: &lock::Made, root: Digest) -> Result<(), Fault> {
    let differences = lock.differences(made);
    let anew = format!("moorage make-base-image {} --refresh", lock.base);
    if !differences.is_empty() {
        let what = format!("the repositories do not have what the lock of {} names", lock.base);
        let mut fault = Fault::new(Kind::Failed, what);
        fault.why = differences.iter().take(LISTED).cloned().collect();
        if differences.len() > LISTED {
            fault.why.push(format!("and {} more", differences.len() - LISTED));
        }
        return Err(fault.next(format!("name a mirror that keeps them, or take what there is: {anew}")));
    }
    match root == lock.root {
        true => Ok(()),
        false => Err(Fault::new(
            Kind::Failed,
            format!("the packages are those of the lock of {}, the bytes are not", lock.base),
        )
        .why(format!("the lock has {}, this host made {root}", lock.root))
        .why("another version of mmdebstrap, or a package whose set-up depends on the host")
        .next(anew)),
    }
}

/// What [`make`] would do; it does not ask the engine.
pub fn plan(site: &Site, name: &str) -> Result<Plan> {
    let definition = site.base(name)?;
    let reference = site.image_reference(name)?;
    let shell = match &definition.family {
        Family::Apt { suite, keyring } => {
            let arguments = bootstrap::arguments(&definition, suite, keyring, Path::new("."), Path::new("-"));
            format!("mmdebstrap {}", arguments.join(" "))
        }
        Family::Rpm { release } => dnf::by_hand(&definition, release),
    };
    Ok(super::step(
        format!("make {reference} from the packages of {}", repositories(&definition)),
        format!("SOURCE_DATE_EPOCH={} {shell} | docker import - {reference}", definition.epoch),
    ))
}

/// That some repository of an apt base has the suite it is made of, and that every one of an rpm base can be verified.
pub fn check(definition: &BaseDefinition) -> Result<(), Fault> {
    let suite = match &definition.family {
        Family::Apt { suite, .. } => suite,
        Family::Rpm { .. } => return dnf::check(definition),
    };
    let entries = repos::entries(&definition.repos);
    if entries.iter().any(|entry| entry.suites.iter().any(|has| has == suite || has.ends_with('/'))) {
        return Ok(());
    }
    let all: Vec<&str> = entries.iter().flat_map(|entry| &entry.suites).map(String::as_str).collect();
    let what = format!("{}: no repository has the suite {suite:?}", definition.origin);
    Err(Fault::new(Kind::Usage, what)
        .why(format!("there are: {}", all.join(", ")))
        .next("correct the suite there, or in the *.sources beside the base's repos"))
}

fn repositories(definition: &BaseDefinition) -> &str {
    match &definition.family {
        Family::Apt { suite, .. } => suite,
        Family::Rpm { .. } => &definition.name,
    }
}

/// The digest of a definition: what a base is made from, but for the packages' versions.
pub fn digest(definition: &BaseDefinition) -> Result<Digest> {
    let text = serde_json::to_vec(definition).context("write the definition")?;
    Ok(label::digest([text.as_slice()]))
}
