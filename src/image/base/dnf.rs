//! The rpm family. Its bases cannot be made yet: [`bootstrap`] says so.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Lock;
use super::bootstrap::Work;
use super::lock::Made;
use crate::image::Build;
use crate::report::{Fault, Kind};
use crate::site::{BaseDefinition, RepoFile};

/// The files of signed metadata, with the place that names their repository.
pub(super) fn metadata(_repos: &BTreeMap<String, RepoFile>, _release: &str) -> Vec<(String, String)> {
    Vec::new()
}

/// For each lock, its packages that the repositories have in another version.
pub(super) async fn newer(_definition: &BaseDefinition, locks: &[&Lock]) -> Result<Vec<Vec<String>>> {
    Ok(locks.iter().map(|_| Vec::new()).collect())
}

/// Makes the root filesystem in `work`.
pub(super) async fn bootstrap(
    _build: Build<'_>,
    definition: &BaseDefinition,
    _lock: Option<&Lock>,
    _work: &Work,
) -> Result<Made> {
    let what = format!("{}: bases of the rpm family cannot be made yet", definition.origin);
    Err(Fault::new(Kind::Missing, what).next("define it with `suite`, from an apt repository").into())
}
