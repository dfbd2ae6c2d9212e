//! How long to wait for an answer (RFC 2131, 4.1 and 4.4.5).

use std::time::Duration;

use crate::lan::clock::Boottime;

/// The wait after the transmission number `tries` (from 0): 4, 8, 16, 32, then 64 s, each ± up to 1 s by `dice`.
pub fn backoff(tries: u32, dice: u32) -> Duration {
    let base = 4000u64 << tries.min(4);
    Duration::from_millis(base - 1000 + u64::from(dice % 2001))
}

/// When to repeat a renewal that must be done by `end`: after half of what is left, at least 60 s, never past `end`.
pub fn halfway(now: Boottime, end: Option<Boottime>) -> Boottime {
    let minute = Duration::from_secs(60);
    match end {
        None => now.after(minute),
        Some(end) => now.after((end.since(now) / 2).max(minute)).min(end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute_with_a_second_of_jitter() {
        for (tries, seconds) in [(0, 4), (1, 8), (2, 16), (3, 32), (4, 64), (5, 64), (u32::MAX, 64)] {
            for dice in [0, 1, 1000, 2000, u32::MAX] {
                let wait = backoff(tries, dice);
                assert!(wait >= Duration::from_secs(seconds - 1), "{tries} {dice}");
                assert!(wait <= Duration::from_secs(seconds + 1), "{tries} {dice}");
            }
        }
    }

    #[test]
    fn renewals_are_repeated_at_half_of_what_is_left() {
        let at = |s| Boottime(Duration::from_secs(s));
        assert_eq!(halfway(at(0), Some(at(1000))), at(500));
        assert_eq!(halfway(at(900), Some(at(1000))), at(960));
        assert_eq!(halfway(at(990), Some(at(1000))), at(1000));
    }
}
