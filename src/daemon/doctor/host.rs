//! The daemon itself, the clock, the disk that records are on.

use std::path::Path;

use jiff::Timestamp;

use super::clock;
use crate::container::Host;
use crate::report::Finding;

const AREA: &str = "daemon";
/// Less than this is soon nothing.
const LITTLE: u64 = 1 << 30;
/// One in so many inodes free is soon none.
const FEW: u64 = 50;
/// Records are small, but there must be room for a new one before an old one goes.
const NOTHING: u64 = 16 << 20;

/// A file system as statvfs(3) sees it, for those who are not root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    /// Free and all; none at all where the file system does not count them (btrfs).
    pub inodes: (u64, u64),
}

pub fn room(path: &Path) -> rustix::io::Result<Room> {
    let seen = rustix::fs::statvfs(path)?;
    Ok(Room { bytes: seen.f_bavail.saturating_mul(seen.f_frsize), inodes: (seen.f_favail, seen.f_files) })
}

/// How full the file system of `path` is. `what` is what is kept there.
pub fn judge_room(area: &str, what: &str, path: &Path, room: Room) -> Finding {
    let (place, free) = (path.display(), humansize::format_size(room.bytes, humansize::BINARY));
    let next = format!("df -h {place}; df -i {place}");
    let (inodes, all) = room.inodes;
    match (room.bytes, all) {
        (0..NOTHING, _) => {
            Finding::problem(area, format!("the disk of {what} ({place}) is full: {free} left")).next(next)
        }
        (_, 1..) if inodes < 64 => {
            Finding::problem(area, format!("the disk of {what} ({place}) can take {inodes} more files"))
                .next(next)
        }
        (0..LITTLE, _) => Finding::warning(area, format!("{free} are left for {what} ({place})")).next(next),
        (_, 1..) if inodes < all / FEW => {
            let what = format!("the disk of {what} ({place}) can take {inodes} more files only, of {all}");
            Finding::warning(area, what)
                .next(format!("{next}; a disk of many small files wants more inodes (mkfs.ext4 -i), or XFS"))
        }
        (_, 0) => Finding::ok(area, format!("{free} are free for {what} ({place})")),
        _ => Finding::ok(area, format!("{free} and {inodes} inodes are free for {what} ({place})")),
    }
}

pub fn findings(host: &Host) -> Vec<Finding> {
    let made = host.records.all();
    let youngest = made.iter().flatten().map(|(_, record)| record.created).max();
    let mut all = vec![judge_clock(clock::synchronized(), Timestamp::now(), youngest)];
    let records = host.records.directory();
    // One that cannot be read is damaged, and says which.
    all.extend(made.err().map(|error| Finding::of(AREA, &error)));
    all.push(match room(records) {
        Ok(room) => judge_room(AREA, "records", records, room),
        Err(e) => Finding::problem(AREA, format!("{} cannot be looked at: {e}", records.display())),
    });
    all
}

/// Leases end by the clock, certificates are valid by it, and logs are read by it.
fn judge_clock(synchronized: Option<bool>, now: Timestamp, youngest: Option<Timestamp>) -> Finding {
    let shown = now.strftime("%F %T UTC");
    if let Some(later) = youngest.filter(|youngest| *youngest > now) {
        return Finding::problem(AREA, format!("the clock is wrong: it says {shown}"))
            .why(format!("a container was made at {}", later.strftime("%F %T UTC")))
            .next("timedatectl set-ntp true");
    }
    match synchronized {
        Some(true) => Finding::ok(AREA, format!("the clock is kept by a time service: {shown}")),
        Some(false) => Finding::warning(AREA, format!("no time service keeps the clock: it says {shown}"))
            .why("leases, certificates and logs go by it")
            .next("timedatectl set-ntp true   # or start chronyd or ntpd"),
        None => Finding::ok(AREA, format!("the clock says {shown}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Level;

    #[test]
    fn a_clock_before_our_own_records_is_wrong() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let later: Timestamp = "2026-01-01T00:00:01Z".parse().unwrap();
        let level = |sync, youngest| judge_clock(sync, now, youngest).level;
        assert_eq!(level(Some(true), Some(later)), Level::Problem);
        assert_eq!(level(Some(true), Some(now)), Level::Ok);
        assert_eq!(level(Some(false), None), Level::Warning);
        assert_eq!(level(None, None), Level::Ok);
        // Whatever this machine's answer is, it has one.
        assert!(clock::synchronized().is_some());
    }

    #[test]
    fn disks_fill_by_bytes_and_by_files() {
        let judge = |bytes, inodes| {
            judge_room("x", "records", Path::new("/var/lib/moorage"), Room { bytes, inodes }).level
        };
        assert_eq!(judge(1 << 40, (1000, 1000)), Level::Ok);
        assert_eq!(judge(1 << 40, (0, 0)), Level::Ok, "btrfs counts no inodes");
        assert_eq!(judge(1 << 40, (3, 1000)), Level::Problem);
        assert_eq!(judge(1 << 40, (100, 10_000)), Level::Warning);
        assert_eq!(judge(1 << 29, (1000, 1000)), Level::Warning);
        assert_eq!(judge(0, (1000, 1000)), Level::Problem);
        assert!(room(Path::new("/")).unwrap().bytes > 0);
    }
}
