//! The disk that the `/opt` store is on.

use std::path::Path;

use super::host::{judge_room, room};
use crate::container::Host;
use crate::opt::{Changed, Checked};
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

/// Whether every layer is what it was when it was finished. Looks at each of its files.
pub fn deep(host: &Host) -> Vec<Finding> {
    match host.opt.check_layers() {
        Ok(checked) => judge_layers(&checked, &host.config.storage),
        Err(e) => vec![Finding::of(AREA, &e)],
    }
}

fn judge_layers(checked: &Checked, storage: &Path) -> Vec<Finding> {
    let mut all: Vec<Finding> = checked.changed.iter().map(|changed| judge_layer(changed, storage)).collect();
    if all.is_empty() {
        all.push(Finding::ok(
            AREA,
            format!("{} layer(s) are what they were when they were finished", checked.whole),
        ));
    }
    if checked.unknown > 0 {
        all.push(
            Finding::warning(
                AREA,
                format!("of {} layer(s) it is not known yet what they were", checked.unknown),
            )
            .next("doctor --deep, a minute later"),
        );
    }
    all
}

fn judge_layer(changed: &Changed, storage: &Path) -> Finding {
    let (layer, of) = (&changed.layer, &changed.of);
    let mut finding =
        Finding::problem(AREA, format!("the layer {layer} of {of} was changed behind moorage's back"));
    finding.why.extend(changed.what.iter().cloned());
    if changed.count > changed.what.len() {
        finding.why.push(format!("and {} more", changed.count - changed.what.len()));
    }
    let place = storage.join(".store/layers").join(layer.as_str());
    finding.next(format!(
        "whoever has it sees that. Put {} back from a backup; or remove its containers, `prune-containers --store`, and make them again",
        place.display()
    ))
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
    fn a_changed_layer_is_named_with_its_files() {
        let storage = Path::new("/opt/containers");
        let mut checked = Checked { whole: 2, ..Checked::default() };
        assert!(judge_layers(&checked, storage)[0].what.starts_with("2 layer(s) are what they were"));
        let layer = "0123456789ab".to_owned().try_into().unwrap();
        let what = vec!["bin/tool: its size is 5 and was 4".to_owned()];
        checked.changed.push(Changed { layer, of: "file:///siem.tar".into(), what, count: 3 });
        let found = judge_layers(&checked, storage);
        assert_eq!((found.len(), found[0].why.len()), (1, 2));
        assert!(found[0].next.as_ref().unwrap().contains("/opt/containers/.store/layers/0123456789ab"));
    }

    #[test]
    fn what_a_first_write_costs_is_said() {
        assert!(judge(0xef53, false).what.contains("ext4"));
        assert!(judge(0xef53, false).next.is_some());
        assert!(judge(0x9123_683e, true).what.ends_with("copies nothing"));
        assert!(judge(0x1234, false).what.contains("type 1234"));
    }
}
