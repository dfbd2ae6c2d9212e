//! What is kept because somebody may want it again: archives that nothing needs now, and what came of archives whose
//! transfer broke off. Those nobody has wanted for longest go first.

use std::sync::PoisonError;

use anyhow::Result;
use jiff::Timestamp;

use super::collect::Needs;
use super::layer_id::LayerId;
use super::spool;
use super::store::{Store, directory};
use crate::spec::ByteSize;

/// How long a transfer that broke off may be gone on with, hours; nobody waits for an archive longer than a week.
const UNFINISHED: i64 = 7 * 24;

/// One thing that could go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    what: What,
    bytes: u64,
    /// When somebody last wanted it.
    when: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum What {
    Layer(LayerId),
    /// The digest of its archive, hexadecimal.
    Spool(String),
}

/// What has to go for the rest to take at most `limit` bytes, and what is too old for any use.
fn leaving(mut kept: Vec<Kept>, limit: Option<ByteSize>, now: Timestamp) -> Vec<What> {
    kept.sort_by_key(|one| std::cmp::Reverse(one.when));
    let (mut total, mut gone) = (0u64, Vec::new());
    for one in kept {
        let old = now.duration_since(one.when).as_hours() >= UNFINISHED;
        let over = limit.is_some_and(|limit| total.saturating_add(one.bytes) > limit.0);
        match matches!(one.what, What::Spool(_)) && old || over {
            true => gone.push(one.what),
            false => total += one.bytes,
        }
    }
    gone
}

impl Store {
    /// Removes archives that nothing needs, those first that nobody has wanted for longest, until the others take at most
    /// `limit` bytes, counted by their files' sizes; and what is left of old transfers. Answers how many it removed.
    /// `needs` is asked as [`Store::collect`] asks it.
    pub fn evict(&self, needs: impl FnOnce() -> Result<Needs>, limit: Option<ByteSize>) -> Result<usize> {
        let mut gone = Vec::new();
        let mut count = 0;
        {
            // As in `collect`.
            let _layers = self.layers.changing();
            let held = self.layers.holds.all();
            let mut kept = Vec::new();
            for (layer, _, is_archive) in self.candidates(&needs()?, &held)? {
                if let Some(record) = self.layers.records.get(layer.as_str())?
                    && is_archive
                {
                    let when = self.layers.records.touched(layer.as_str())?.unwrap_or(record.when);
                    kept.push(Kept { what: What::Layer(layer), bytes: record.bytes, when });
                }
            }
            for one in self.unfinished()? {
                kept.push(Kept { what: What::Spool(one.digest), bytes: one.bytes, when: one.when });
            }
            for what in leaving(kept, limit, Timestamp::now()) {
                match what {
                    What::Layer(layer) => {
                        tracing::info!("{layer} makes room in the store: nothing needs it");
                        self.layers.records.remove(layer.as_str())?;
                        gone.push(self.layers.discard(directory(&self.inside("layers"))?, layer.as_str())?);
                    }
                    What::Spool(digest) => self.drop_spool(&digest)?,
                }
                count += 1;
            }
        }
        gone.into_iter().try_for_each(super::layer::Discarded::remove)?;
        Ok(count)
    }

    /// What came of archives that are not whole, and that nobody is fetching.
    pub(super) fn unfinished(&self) -> Result<Vec<spool::Spooled>> {
        let mut all = spool::all(&self.inside("spool"))?;
        let fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| fetching.get(&one.digest).is_none_or(|lock| lock.strong_count() == 0));
        Ok(all)
    }

    /// Removes what came of an archive, unless somebody is fetching it.
    pub(super) fn drop_spool(&self, digest: &str) -> Result<()> {
        // Whoever begins to fetch it takes this lock before the file is opened.
        let fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        match fetching.get(digest).is_some_and(|lock| lock.strong_count() > 0) {
            true => Ok(()),
            false => spool::remove(&self.inside("spool").join(digest)),
        }
    }

    /// Removes what is left of transfers whose archive is here. Returns what could not be removed.
    pub(super) fn clear_spools(&self) -> Result<Vec<anyhow::Error>> {
        let mut failed = Vec::new();
        for one in spool::all(&self.inside("spool"))? {
            let is_here = match one.digest.parse() {
                Ok(digest) => self.layers.get(&digest).is_ok_and(|layer| layer.is_some()),
                Err(_) => true,
            };
            if is_here {
                failed.extend(self.drop_spool(&one.digest).err());
            }
        }
        Ok(failed)
    }

    /// Notes that somebody wants the layer now. Only what is evicted first depends on it, so it is not brought to disk.
    pub(super) fn wanted(&self, layer: &LayerId) {
        if let Err(e) = self.layers.records.touch(layer.as_str()) {
            tracing::debug!("{layer}: {e:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_wanted_last_stays() {
        let now = Timestamp::now();
        let hours = |hours: i64| now - jiff::SignedDuration::from_hours(hours);
        let layer = |bytes, ago| Kept { what: What::Layer(LayerId::unused()), bytes, when: hours(ago) };
        let all = vec![layer(40, 3), layer(40, 1), layer(40, 2)];
        let names = |kept: &[usize]| kept.iter().map(|n| all[*n].what.clone()).collect::<Vec<_>>();
        assert_eq!(leaving(all.clone(), None, now), []);
        assert_eq!(leaving(all.clone(), Some(ByteSize(120)), now), []);
        assert_eq!(leaving(all.clone(), Some(ByteSize(100)), now), names(&[0]));
        assert_eq!(leaving(all.clone(), Some(ByteSize(40)), now), names(&[2, 0]));
        assert_eq!(leaving(all.clone(), Some(ByteSize(0)), now), names(&[1, 2, 0]));
    }

    #[test]
    fn an_old_transfer_goes_without_a_limit_too() {
        let now = Timestamp::now();
        let spool = |ago| Kept {
            what: What::Spool("00".into()),
            bytes: 1,
            when: now - jiff::SignedDuration::from_hours(ago),
        };
        assert_eq!(leaving(vec![spool(1), spool(24 * 8)], None, now).len(), 1);
    }
}
