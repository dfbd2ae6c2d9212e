//! Whose turn it is to fetch: so many at a time for the store, fewer for one person, first come, first served.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::{Context as _, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::STEP;
use crate::report::Reporter;

/// One fast fetch fills the disk; more at a time are for servers that are slow. Each has four threads.
const IN_THE_STORE: usize = 8;

/// Slow servers of one person must leave room for the others.
const OF_ONE_PERSON: usize = 2;

pub struct Turns {
    all: Arc<Semaphore>,
    people: Mutex<HashMap<u32, Weak<Semaphore>>>,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { all: Arc::new(Semaphore::new(IN_THE_STORE)), people: Mutex::default() }
    }
}

impl Turns {
    /// Waits until fewer than [`OF_ONE_PERSON`] fetches of this person's go on.
    pub async fn of(&self, uid: u32, reporter: &Reporter) -> Result<OwnedSemaphorePermit> {
        let own = {
            let mut people = self.people.lock().unwrap_or_else(PoisonError::into_inner);
            people.retain(|_, own| own.strong_count() > 0);
            let held = people.get(&uid).and_then(Weak::upgrade);
            held.unwrap_or_else(|| {
                let own = Arc::new(Semaphore::new(OF_ONE_PERSON));
                people.insert(uid, Arc::downgrade(&own));
                own
            })
        };
        wait(own, "waiting for your other fetches", reporter).await
    }

    /// Waits until fewer than [`IN_THE_STORE`] fetches go on.
    pub async fn in_the_store(&self, reporter: &Reporter) -> Result<OwnedSemaphorePermit> {
        wait(self.all.clone(), "waiting for the fetches of others", reporter).await
    }
}

/// Dropping the future gives up the place in the queue.
async fn wait(places: Arc<Semaphore>, text: &str, reporter: &Reporter) -> Result<OwnedSemaphorePermit> {
    match places.clone().try_acquire_owned() {
        Ok(place) => Ok(place),
        Err(_) => {
            reporter.begin(STEP, text);
            places.acquire_owned().await.context("wait for a turn to fetch")
        }
    }
}
