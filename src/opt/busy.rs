//! Which volumes are being changed: one change at a time of each, however long it takes, and nobody waits for another's.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The names that are taken. It guards no data: what a panic left is what a crash would have left.
#[derive(Debug, Default)]
pub struct Busy {
    names: Mutex<HashSet<String>>,
    freed: Condvar,
}

/// Keeps everybody else from changing the volume while it is there.
#[must_use]
#[derive(Debug)]
pub struct Changing<'a> {
    busy: &'a Busy,
    name: String,
}

impl Busy {
    /// Waits until nobody else changes `name`.
    pub fn begin(&self, name: &str) -> Changing<'_> {
        let taken = |names: &mut HashSet<String>| names.contains(name);
        let names = self.freed.wait_while(self.lock(), taken).unwrap_or_else(PoisonError::into_inner);
        self.enter(names, name)
    }

    /// The same for somebody who cannot wait longer than `most`; none when that was too short.
    pub fn begin_within(&self, name: &str, most: Duration) -> Option<Changing<'_>> {
        let taken = |names: &mut HashSet<String>| names.contains(name);
        let waited = self.freed.wait_timeout_while(self.lock(), most, taken);
        let (names, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        (!waited.timed_out()).then(|| self.enter(names, name))
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<String>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, mut names: MutexGuard<'_, HashSet<String>>, name: &str) -> Changing<'_> {
        names.insert(name.to_owned());
        Changing { busy: self, name: name.to_owned() }
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.busy.lock().remove(&self.name);
        self.busy.freed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn one_at_a_time_of_a_name_and_names_do_not_wait_for_each_other() {
        let busy = Busy::default();
        let first = busy.begin("siem");
        drop(busy.begin("other"));
        assert!(busy.begin_within("siem", Duration::ZERO).is_none());
        let (entered, events) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _second = busy.begin("siem");
                entered.send("second").unwrap();
            });
            entered.send("first").unwrap();
            drop(first);
        });
        assert_eq!(events.try_iter().collect::<Vec<_>>(), ["first", "second"]);
        assert!(busy.begin_within("siem", Duration::ZERO).is_some());
    }
}
