//! The disk that the `/opt` store is on.

use super::host::{judge_room, room};
use crate::container::Host;
use crate::report::Finding;

const AREA: &str = "opt";

/// `f_type` of the filesystems that a store is put on (statfs(2)).
const KNOWN: [(u64, &str); 4] =
    [(0xef53, "ext4"), (0x5846_5342, "XFS"), (0x9123_683e, "btrfs"), (0xf2f5_2010, "F2FS")];

pub fn findings(host: &Host) -> Vec<Finding> {
    let storage = &host.config.storage;
    let free = match room(storage) {
        Ok(room) => judge_room(AREA, "the /opt store", storage, room),
        Err(e) => Finding::problem(AREA, format!("{} cannot be looked at: {e}", storage.display())),
    };
    let kind = rustix::fs::statfs(storage).map(|fs| fs.f_type as u64 & 0xffff_ffff).unwrap_or_default();
    vec![free, judge(kind, host.opt.reflinks())]
}

/// What the filesystem means for a first write to a file that containers share.
fn judge(kind: u64, reflinks: bool) -> Finding {
    let name = KNOWN.iter().find(|(magic, _)| *magic == kind);
    let name = name.map_or_else(|| format!("a filesystem of type {kind:x}"), |(_, name)| (*name).to_owned());
    match reflinks {
        true => Finding::ok(
            AREA,
            format!("the store is on {name}: a first write to a shared file copies nothing"),
        ),
        false => Finding::ok(
            AREA,
            format!("the store is on {name}: a first write to a shared file copies it whole"),
        )
        .why("XFS and btrfs share blocks between files, this one does not")
        .next("put `storage` on XFS (mkfs.xfs makes it so) or btrfs where containers change large files"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_first_write_costs_is_said() {
        assert!(judge(0xef53, false).what.contains("ext4"));
        assert!(judge(0xef53, false).next.is_some());
        assert!(judge(0x9123_683e, true).what.ends_with("copies nothing"));
        assert!(judge(0x1234, false).what.contains("type 1234"));
    }
}
