//! Whose turn it is to have trees walked. Anybody may ask what they take, and a walk goes on when nobody waits for it any
//! more: without turns one person's questions would have all disks busy for ever.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context as _, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::apart;

/// Walks at a time, of everybody.
const ALL: usize = 4;

pub struct Walks {
    all: Arc<Semaphore>,
    people: Mutex<HashMap<u32, Weak<Semaphore>>>,
}

impl Default for Walks {
    fn default() -> Walks {
        Walks { all: Arc::new(Semaphore::new(ALL)), people: Mutex::default() }
    }
}

impl Walks {
    /// Does `work` for the user `uid` when the walk they asked for before is over and there is room for another.
    pub async fn walk<T: Send + 'static>(
        &self,
        uid: u32,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = self.turn(uid).await.context("wait for a turn to look into the store")?;
        apart::blocking(move || {
            // The turn lasts as long as the walk, whether or not somebody still wants to know.
            let _turn = turn;
            work()
        })
        .await
    }

    async fn turn(&self, uid: u32) -> Result<[OwnedSemaphorePermit; 2]> {
        let own = {
            let mut people = self.people.lock().unwrap_or_else(PoisonError::into_inner);
            people.retain(|_, own| own.strong_count() > 0);
            let held = people.get(&uid).and_then(Weak::upgrade);
            held.unwrap_or_else(|| {
                let own = Arc::new(Semaphore::new(1));
                people.insert(uid, Arc::downgrade(&own));
                own
            })
        };
        Ok([own.acquire_owned().await?, self.all.clone().acquire_owned().await?])
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_person_has_one_walk_at_a_time_and_others_go_on() {
        let walks = Arc::new(Walks::default());
        let (gate, opened) = mpsc::channel::<()>();
        let (begun, began) = tokio::sync::oneshot::channel();
        let of_ann = walks.clone();
        let first = tokio::spawn(async move {
            let work = move || {
                let _ = begun.send(());
                Ok(opened.recv().is_err())
            };
            of_ann.walk(1, work).await
        });
        began.await.unwrap();
        // Whoever hangs up has not ended the walk.
        first.abort();
        assert!(first.await.unwrap_err().is_cancelled());
        let mut second = std::pin::pin!(walks.walk(1, || Ok("second")));
        assert!(futures_util::poll!(&mut second).is_pending());
        for uid in 2..20 {
            assert_eq!(walks.walk(uid, move || Ok(uid)).await.unwrap(), uid);
        }
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(gate);
        assert_eq!(second.await.unwrap(), "second");
    }

    #[tokio::test]
    async fn so_many_walks_and_no_more() {
        let walks = Walks::default();
        let mut turns = Vec::new();
        for uid in 0..ALL as u32 {
            turns.push(walks.turn(uid).await.unwrap());
        }
        let mut one_more = std::pin::pin!(walks.turn(100));
        assert!(futures_util::poll!(&mut one_more).is_pending());
        turns.pop();
        assert!(one_more.await.is_ok());
    }
}
