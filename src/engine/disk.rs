//! Which disks a container's files are on: control groups limit what is done to a disk, by its number.

use std::os::linux::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A whole disk: control groups take no partition.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Disk {
    /// `252:0`
    pub number: String,
    /// `/dev/vda`
    pub node: PathBuf,
}

/// The disks that these paths are on, each once. A filesystem without a disk (NFS, tmpfs) has none.
pub fn disks_of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Vec<Disk>> {
    let mountinfo = std::fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mut disks = Vec::new();
    for path in paths {
        let device = std::fs::metadata(path).with_context(|| format!("look at {}", path.display()))?.st_dev();
        let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        disks.extend(whole(&number).or_else(|| whole(&source_number(&mountinfo, &number)?)));
    }
    disks.sort();
    disks.dedup();
    Ok(disks)
}

/// The disk that a block device is, or is a partition of.
fn whole(number: &str) -> Option<Disk> {
    let link = Path::new("/sys/dev/block").join(number);
    let own = std::fs::canonicalize(&link).ok()?;
    let disk = if own.join("partition").exists() { own.parent()?.to_owned() } else { own };
    let number = std::fs::read_to_string(disk.join("dev")).ok()?.trim().to_owned();
    Some(Disk { number, node: Path::new("/dev").join(disk.file_name()?) })
}

/// The number of the device that a filesystem is made on whose own number names none: btrfs has those.
fn source_number(mountinfo: &str, number: &str) -> Option<String> {
    let line = mountinfo.lines().find(|line| line.split(' ').nth(2) == Some(number))?;
    let source = line.split_once(" - ")?.1.split(' ').nth(1)?;
    let device = std::fs::metadata(source).ok()?.st_rdev();
    (device != 0).then(|| format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_without_a_disk_has_none() {
        assert_eq!(disks_of([Path::new("/proc")]).unwrap(), []);
        assert!(disks_of([Path::new("/nonexistent")]).is_err());
    }

    #[test]
    fn the_device_of_a_filesystem_is_found_by_its_mount() {
        let mountinfo = "31 23 0:28 / /proc rw - proc proc rw\n32 31 0:44 / /srv rw - btrfs /dev/null rw\n";
        assert_eq!(source_number(mountinfo, "0:44").as_deref(), Some("1:3"));
        assert_eq!(source_number(mountinfo, "0:28"), None);
        assert_eq!(source_number(mountinfo, "0:99"), None);
    }
}
