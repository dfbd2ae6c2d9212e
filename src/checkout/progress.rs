//! How far git is, read from what it says.

use std::sync::{Mutex, PoisonError};

/// How much of a clone each phase of it is, in percent: the transfer takes longest.
const PHASES: [(&str, u64, u64); 3] =
    [("Receiving objects:", 0, 80), ("Resolving deltas:", 80, 15), ("Updating files:", 95, 5)];

/// The percentage of the whole clone that a progress line of git means (`Receiving objects:  45% (9/20), 1 MiB`),
/// or `None` for any other line.
pub fn percent(line: &str) -> Option<u64> {
    let line = line.trim_start_matches("remote: ").trim_start();
    let number = |rest: &str| rest.trim_start().split_once('%')?.0.parse::<u64>().ok();
    for (phase, start, share) in PHASES {
        if let Some(rest) = line.strip_prefix(phase) {
            return number(rest).map(|percent| start + percent.min(100) * share / 100);
        }
    }
    // The other side's counting and compressing: nothing has come yet.
    let other = ["Enumerating objects:", "Counting objects:", "Compressing objects:"];
    other.iter().any(|phase| line.starts_with(phase)).then_some(0)
}

/// Percentages of several clones as one sum that never goes back.
#[derive(Debug)]
pub struct Sum {
    percents: Mutex<Vec<u64>>,
}

impl Sum {
    pub fn new(count: usize) -> Self {
        Sum { percents: Mutex::new(vec![0; count]) }
    }

    /// Notes how far clone `index` is and returns the sum.
    pub fn set(&self, index: usize, percent: u64) -> u64 {
        let mut percents = self.percents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = percents.get_mut(index) {
            *known = percent.max(*known);
        }
        percents.iter().sum()
    }

    /// What the sum will be at the end.
    pub fn total(&self) -> u64 {
        self.percents.lock().unwrap_or_else(PoisonError::into_inner).len() as u64 * 100
    }
}

/// Cuts what git says at `\r` and `\n`.
#[derive(Debug, Default)]
pub struct Pieces {
    rest: Vec<u8>,
}

impl Pieces {
    /// Takes a chunk, returns the pieces that are complete.
    pub fn take(&mut self, chunk: &[u8]) -> Vec<String> {
        let mut complete = Vec::new();
        for byte in chunk {
            match byte {
                b'\r' | b'\n' => complete.extend(self.finish()),
                _ => self.rest.push(*byte),
            }
        }
        complete
    }

    /// What is left when git ended.
    pub fn finish(&mut self) -> Vec<String> {
        match std::mem::take(&mut self.rest) {
            rest if rest.is_empty() => vec![],
            rest => vec![String::from_utf8_lossy(&rest).into_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_percentages_are_read() {
        assert_eq!(percent("Receiving objects:  50% (5/10), 1.20 MiB | 3.00 MiB/s"), Some(40));
        assert_eq!(percent("Resolving deltas: 100% (3/3), done."), Some(95));
        assert_eq!(percent("Updating files: 100% (9/9), done."), Some(100));
        assert_eq!(percent("remote: Counting objects:  10% (1/10)"), Some(0));
        assert_eq!(percent("fatal: repository 'x' does not exist"), None);
        assert_eq!(percent("Receiving objects: lots"), None);
    }

    #[test]
    fn a_second_clone_does_not_set_the_first_back() {
        let sum = Sum::new(2);
        sum.set(0, 80);
        sum.set(0, 10);
        assert_eq!(sum.set(1, 5), 85);
        assert_eq!(sum.total(), 200);
    }

    #[test]
    fn pieces_survive_any_cut() {
        let text = b"Receiving objects:  1%\rReceiving objects:  2%\nfatal: no";
        for cut in 0..text.len() {
            let mut pieces = Pieces::default();
            let mut all = pieces.take(&text[..cut]);
            all.extend(pieces.take(&text[cut..]));
            all.extend(pieces.finish());
            assert_eq!(all, ["Receiving objects:  1%", "Receiving objects:  2%", "fatal: no"]);
        }
    }
}
