//! Time that goes on while the machine sleeps. A lease that runs out on a suspended laptop has run out.

use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An instant of CLOCK_BOOTTIME.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Boottime(pub Duration);

impl Boottime {
    pub fn now() -> Boottime {
        let now = clock_gettime(ClockId::Boottime);
        Boottime(Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32))
    }

    pub fn after(self, wait: Duration) -> Boottime {
        Boottime(self.0.saturating_add(wait))
    }

    /// How long ago `earlier` was; zero if it is still to come.
    pub fn since(self, earlier: Boottime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// An instant written so that it can be found again by another process of this boot, and after a reboot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// `/proc/sys/kernel/random/boot_id` of the boot it happened in.
    boot: String,
    /// CLOCK_BOOTTIME in milliseconds, of meaning within that boot.
    boottime: u64,
    /// The wall clock, for every other boot. It may have been set since.
    pub wall: Timestamp,
}

impl Stamp {
    /// The stamp of an instant of this boot.
    pub fn of(at: Boottime, boot: &str) -> Stamp {
        let ago = Boottime::now().since(at);
        let wall = Timestamp::now().checked_sub(ago).unwrap_or(Timestamp::UNIX_EPOCH);
        Stamp { boot: boot.to_owned(), boottime: at.0.as_millis() as u64, wall }
    }

    /// Where the instant lies for this boot. After a reboot what lies before it has no name on CLOCK_BOOTTIME, so
    /// the second value says how much of the time since then was spent before [`Boottime`] zero.
    pub fn locate(&self, boot: &str) -> (Boottime, Duration) {
        if self.boot == boot {
            return (Boottime(Duration::from_millis(self.boottime)), Duration::ZERO);
        }
        let ago = Duration::try_from(Timestamp::now().duration_since(self.wall)).unwrap_or(Duration::ZERO);
        let up = Boottime::now().0;
        (Boottime(up.saturating_sub(ago)), ago.saturating_sub(up))
    }
}

/// This boot's identity.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
}

/// One alarm on CLOCK_BOOTTIME.
#[derive(Debug)]
pub struct Timer(AsyncFd<std::os::fd::OwnedFd>);

impl Timer {
    /// Needs a tokio runtime around it.
    #[expect(
        deprecated,
        reason = "its successor is unsafe, for a promise that an owned descriptor keeps by itself"
    )]
    pub fn new() -> Result<Timer> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)
            .context("make a timer")?;
        Ok(Timer(AsyncFd::with_interest(timer, Interest::READABLE).context("watch a timer")?))
    }

    /// Goes off at `at` (at once if that is past), or never. Replaces what was set before.
    pub fn set(&self, at: Option<Boottime>) -> Result<()> {
        // All zeros would disarm it.
        let value = match at {
            None => Duration::ZERO,
            Some(at) => at.0.max(Duration::from_nanos(1)),
        };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let value = Timespec { tv_sec: value.as_secs() as _, tv_nsec: value.subsec_nanos() as _ };
        let spec = Itimerspec { it_interval: zero, it_value: value };
        timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::ABSTIME, &spec).context("set a timer")?;
        Ok(())
    }

    /// Returns when the alarm has gone off. Cancel-safe.
    pub async fn expired(&self) -> Result<()> {
        loop {
            let mut ready = self.0.readable().await.context("wait for a timer")?;
            let mut count = [0; 8];
            match ready.try_io(|timer| Ok(rustix::io::read(timer, &mut count)?)) {
                Ok(read) => return read.map(drop).context("read a timer"),
                Err(_would_block) => continue,
            }
        }
    }
}
