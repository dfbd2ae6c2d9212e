//! What hosts use, as their lists in the registry say.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};

use super::inventory::Inventory;
use super::links::Storage;
use crate::report::{Fault, Kind};
use crate::spec::{Digest, InUse};

pub use crate::spec::in_use::REPOSITORY;

/// How old the list of a host may be, seconds. A host's daemon tells every hour.
pub const FRESH: i64 = 24 * 60 * 60;

/// The digests in the lists of all hosts but those that are to be forgotten.
///
/// # Errors
/// [`Kind::Missing`]: a host that once told what it uses has not done so for [`FRESH`]. Nobody knows then what may go.
pub fn lists(there: &Inventory, storage: &Storage, forget: &[String], now: i64) -> Result<BTreeSet<Digest>> {
    let mut all = BTreeSet::new();
    let Some(home) = there.repositories.get(REPOSITORY) else { return Ok(all) };
    if let Some(host) = forget.iter().find(|host| !home.tags.contains_key(*host)) {
        return Err(Fault::new(Kind::NotFound, format!("no host {host} has told what it uses"))
            .why(format!("these have: {}", home.tags.keys().cloned().collect::<Vec<_>>().join(", ")))
            .next("leave --forget-host out")
            .into());
    }
    for (host, tag) in home.tags.iter().filter(|(host, _)| !forget.contains(host)) {
        if now.saturating_sub(tag.when) > FRESH {
            let hours = now.saturating_sub(tag.when) / 3600;
            return Err(Fault::new(Kind::Missing, format!("it is not known what the host {host} uses"))
                .why(format!("it told so {hours} hours ago, and every hour before"))
                .remains("nothing was removed")
                .next(format!(
                    "see to its daemon (moorage doctor, there); a host that is gone for good: --forget-host {host}"
                ))
                .into());
        }
        let list = there.manifests.get(&tag.digest).and_then(|manifest| manifest.blobs.get(1));
        let list = list.with_context(|| format!("the list of the host {host} is damaged"))?;
        let path = storage.blob(list);
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let list: InUse = serde_json::from_slice(&bytes)
            .with_context(|| format!("the list of the host {host} is damaged"))?;
        all.extend(list.digests.into_keys());
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::super::inventory::{Repository, Tag};
    use super::super::manifest::Manifest;
    use super::*;

    #[test]
    fn a_list_counts_while_it_is_fresh_and_none_is_no_licence_to_delete() {
        let directory = tempfile::tempdir().unwrap();
        let storage = Storage::at(directory.path());
        let now = 10_000_000;
        let mut there = Inventory::default();
        assert!(lists(&there, &storage, &[], now).unwrap().is_empty());
        let (manifest, list, used) = (Digest([1; 32]), Digest([2; 32]), Digest([3; 32]));
        let tag = |when| Tag { digest: manifest, when, past: Vec::new() };
        let home =
            Repository { tags: [("ann".to_owned(), tag(now - FRESH))].into(), ..Repository::default() };
        there.repositories.insert(REPOSITORY.into(), home);
        there
            .manifests
            .insert(manifest, Manifest { blobs: vec![Digest([9; 32]), list], ..Manifest::default() });
        assert!(lists(&there, &storage, &[], now).is_err(), "its bytes are lost");
        std::fs::create_dir_all(storage.blob(&list).parent().unwrap()).unwrap();
        let mut said = InUse::default();
        said.add(used, "container x".into());
        std::fs::write(storage.blob(&list), serde_json::to_vec(&said).unwrap()).unwrap();
        assert_eq!(lists(&there, &storage, &[], now).unwrap(), [used].into());

        let late = Fault::of(&lists(&there, &storage, &[], now + 1).unwrap_err());
        assert_eq!((late.kind, late.what.contains("ann")), (Kind::Missing, true));
        assert!(late.next.unwrap().contains("--forget-host ann"));
        assert!(lists(&there, &storage, &["ann".into()], now + 1).unwrap().is_empty());
        let unknown = Fault::of(&lists(&there, &storage, &["bob".into()], now).unwrap_err());
        assert_eq!(unknown.kind, Kind::NotFound);
    }
}
