//! Mounting and what is mounted. Everything goes by descriptor or by a path that only root can change.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{AtFlags, CWD, Dev, StatVfsMountFlags, StatxAttributes, StatxFlags, fstatvfs, statx};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind, mount_remount, move_mount,
    open_tree, unmount,
};

/// What mount(2) takes as options: one page with the NUL at its end.
pub const LONGEST_OPTIONS: usize = 4095;

/// An overlay's options. `lowers` has the topmost first.
pub fn overlay_options(lowers: &[String], upper: &str, work: &str, options: &str) -> String {
    format!("{options},lowerdir={},upperdir={upper},workdir={work}", lowers.join(":"))
}

/// Mounts an overlay on the directory `target`. Devices in it mean nothing to anybody.
pub fn overlay(options: &str, target: &Path) -> Result<()> {
    ensure!(options.len() <= LONGEST_OPTIONS, "the overlay's options do not fit into a page");
    let data = std::ffi::CString::new(options)?;
    mount("moorage", target, "overlay", MountFlags::NODEV, data.as_c_str())
        .with_context(|| format!("mount an overlay at {} ({options})", target.display()))
}

/// Mounts directories as one tree that nobody can write, topmost first.
pub fn read_only_stack(lowers: &[String], target: &Path) -> Result<()> {
    let options =
        format!("redirect_dir=follow,index=off,metacopy=off,xino=off,lowerdir={}", lowers.join(":"));
    ensure!(options.len() <= LONGEST_OPTIONS, "the overlay's options do not fit into a page");
    let data = std::ffi::CString::new(options)?;
    let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::RDONLY;
    mount("moorage", target, "overlay", flags, data.as_c_str())
        .with_context(|| format!("mount a stack of layers at {}", target.display()))
}

/// Makes the filesystem mounted at `path` read-only, by whatever mount it is reached. `EBUSY` while a file of it is open
/// for writing.
pub fn make_read_only(path: &Path) -> rustix::io::Result<()> {
    mount_remount(path, MountFlags::RDONLY | MountFlags::NODEV, c"")
}

/// Whether a filesystem that was made read-only is still mounted at `path`.
pub fn is_read_only(path: &Path) -> Result<bool> {
    let is = || rustix::fs::statvfs(path).map(|fs| fs.f_flag.contains(StatVfsMountFlags::RDONLY));
    Ok(is_mounted(path)? && is().with_context(|| format!("look at {}", path.display()))?)
}

/// Whether `path` itself, not followed, is the root of a mount.
pub fn is_mounted(path: &Path) -> Result<bool> {
    // What the kernel has in memory is enough: a dead network disk that is mounted there must not hold us.
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT | AtFlags::STATX_DONT_SYNC;
    match statx(CWD, path, flags, StatxFlags::empty()) {
        Ok(found) => {
            let told = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
            ensure!(told, "this kernel does not say what is mounted (Linux 5.8 does)");
            Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
        Err(Errno::NOENT) => Ok(false),
        Err(e) => Err(e).with_context(|| format!("look at {}", path.display())),
    }
}

/// Mounts the directory `source` a second time on the directory `target`, nosuid and nodev from its first moment: made
/// at `private`, where only root comes, and cloned from there.
pub fn view(source: &Path, private: &Path, target: BorrowedFd<'_>) -> Result<()> {
    mount_bind(source, private).context("mount the view")?;
    let finish = || -> rustix::io::Result<()> {
        mount_remount(private, MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV, c"")?;
        let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, private, clone)?;
        attach(&tree, target)
    };
    let finished = finish().context("attach the view");
    unmount(private, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).context("unmount the private view")?;
    finished
}

/// Mounts the file or directory behind `source` on `target`, which is private to root: nosuid, nodev, and read-only on
/// request. What is mounted below `source` does not come along.
pub fn bind(source: &OwnedFd, target: &Path, read_only: bool) -> Result<()> {
    let clone =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(source, "", clone).context("clone the mount of the source")?;
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::CLOEXEC;
    let place = rustix::fs::open(target, flags, rustix::fs::Mode::empty())?;
    // A remount sets all flags anew: those that the source has must stay.
    let mut flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV;
    let has = fstatvfs(source)?.f_flag;
    let kept = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    for (of_source, ours) in kept {
        flags.set(ours, flags.contains(ours) || has.contains(of_source));
    }
    flags.set(MountFlags::RDONLY, flags.contains(MountFlags::RDONLY) || read_only);
    attach(&tree, place.as_fd()).context("attach the mount")?;
    if let Err(e) = mount_remount(target, flags, c"") {
        unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)?;
        return Err(e).context("set the flags of the mount");
    }
    Ok(())
}

fn attach(tree: &OwnedFd, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let by_descriptor = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(tree, "", target, "", by_descriptor)
}

/// Unmounts `path` if it is mounted. A mount in use is `EBUSY`, unless it may go `lazily` when its last user does.
pub fn unmount_from(path: &Path, lazily: bool) -> Result<()> {
    let flags = if lazily { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    while is_mounted(path)? {
        unmount(path, flags | UnmountFlags::NOFOLLOW)
            .with_context(|| format!("unmount {}", path.display()))?;
    }
    Ok(())
}

/// One line of `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
pub struct MountLine {
    pub device: Dev,
    pub point: Vec<u8>,
}

pub fn parse_mountinfo(text: &[u8]) -> Vec<MountLine> {
    let line = |line: &[u8]| -> Option<MountLine> {
        let mut fields = line.split(|b| *b == b' ');
        let device = std::str::from_utf8(fields.nth(2)?).ok()?;
        let (major, minor) = device.split_once(':')?;
        let point = fields.nth(1)?;
        let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
        Some(MountLine { device, point: unescape(point) })
    };
    text.split(|b| *b == b'\n').filter_map(line).collect()
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, octal.and_then(|digits| u8::from_str_radix(digits, 8).ok())) {
            (b'\\', Some(byte)) => {
                plain.push(byte);
                rest = &after[3..];
            }
            _ => {
                plain.push(*first);
                rest = after;
            }
        }
    }
    plain
}

/// Whether the process `pid` has something mounted at `path`.
pub fn is_seen_by(pid: i32, path: &Path) -> Result<bool> {
    let file = format!("/proc/{pid}/mountinfo");
    let text = std::fs::read(&file).with_context(|| format!("read {file}"))?;
    Ok(parse_mountinfo(&text).iter().any(|line| line.point == path.as_os_str().as_bytes()))
}

/// Processes that have the filesystem `device` mounted anywhere but at `own`, one per mount namespace.
pub fn users_of(device: Dev, own: &[&Path]) -> Result<Vec<i32>> {
    let mut namespaces = std::collections::HashSet::new();
    let mut users = Vec::new();
    for entry in std::fs::read_dir("/proc").context("list the processes")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        // A process that has ended since it was listed uses nothing.
        let Ok(namespace) = std::fs::read_link(format!("/proc/{pid}/ns/mnt")) else { continue };
        if !namespaces.insert(namespace) {
            continue;
        }
        let Ok(text) = std::fs::read(format!("/proc/{pid}/mountinfo")) else { continue };
        let foreign = |line: &MountLine| {
            line.device == device && !own.iter().any(|path| line.point == path.as_os_str().as_bytes())
        };
        if parse_mountinfo(&text).iter().any(foreign) {
            users.push(pid);
        }
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_is_read_with_its_escapes() {
        let text = b"36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw\n\
            37 36 0:45 / /a\\040b\\134c rw - overlay x rw\nhalf a line\n";
        let lines = parse_mountinfo(text);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].device, rustix::fs::makedev(98, 0));
        assert_eq!(lines[0].point, b"/mnt2");
        assert_eq!(lines[1].point, b"/a b\\c");
    }

    #[test]
    fn options_name_the_topmost_layer_first() {
        let lowers = ["/s/b".to_owned(), "/s/a".to_owned()];
        let options = overlay_options(&lowers, "/s/u", "/s/w", "index=off");
        assert_eq!(options, "index=off,lowerdir=/s/b:/s/a,upperdir=/s/u,workdir=/s/w");
    }
}
