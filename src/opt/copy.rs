//! Copying single files with all that they are: data with its holes, owner, mode, times, extended attributes. Shares the
//! data where the filesystem can.

use std::ffi::CStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod,
    fchown, fgetxattr, flistxattr, fsetxattr, futimens, openat, readlinkat, symlinkat, utimensat,
};
use rustix::io::Errno;

/// What overlay says of a directory or file is about the layer it is in, and goes with no copy.
const OF_OVERLAY: &[u8] = b"trusted.overlay.";

/// Whether files of the filesystem at `directory` can share their blocks (ioctl_ficlone(2)).
pub fn reflinks(directory: &Path) -> Result<bool> {
    let try_it = || -> std::io::Result<bool> {
        let mut one = tempfile::tempfile_in(directory)?;
        let two = tempfile::tempfile_in(directory)?;
        std::io::Write::write_all(&mut one, &[1; 4096])?;
        Ok(rustix::fs::ioctl_ficlone(&two, &one).is_ok())
    };
    try_it().with_context(|| format!("try whether files share blocks in {}", directory.display()))
}

/// Copies the data of `from` into the empty file `to`.
pub fn data(from: &File, to: &File, length: u64) -> Result<()> {
    if rustix::fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(());
    }
    to.set_len(length)?;
    let mut at = 0;
    while at < length {
        let begin = match rustix::fs::seek(from, SeekFrom::Data(at)) {
            Ok(begin) => begin,
            // Nothing but a hole to the end.
            Err(Errno::NXIO) => break,
            Err(e) => return Err(e.into()),
        };
        let end = rustix::fs::seek(from, SeekFrom::Hole(begin))?;
        rustix::fs::seek(from, SeekFrom::Start(begin))?;
        rustix::fs::seek(to, SeekFrom::Start(begin))?;
        let (mut from, mut to) = (from, to);
        std::io::copy(&mut from.by_ref().take(end - begin), &mut to)?;
        at = end;
    }
    Ok(())
}

/// Gives `to` what `from` is beside its data: extended attributes, owner, mode, times.
pub fn attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> rustix::io::Result<()> {
    // The owner first: a change of it takes file capabilities and setuid away.
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    for name in xattr_names(from)? {
        let value = xattr(from, &name)?;
        fsetxattr(to, name.as_c_str(), &value, XattrFlags::empty())?;
    }
    fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    futimens(to, &times(stat))
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

fn xattr_names(file: BorrowedFd<'_>) -> rustix::io::Result<Vec<std::ffi::CString>> {
    let mut names = vec![0; 64 << 10];
    let length = match flistxattr(file, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => 0,
        Err(e) => return Err(e),
    };
    let names = names[..length].split(|byte| *byte == 0);
    let ours = names.filter(|name| !name.is_empty() && !name.starts_with(OF_OVERLAY));
    Ok(ours.filter_map(|name| std::ffi::CString::new(name).ok()).collect())
}

fn xattr(file: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Vec<u8>> {
    let mut value = vec![0; 64 << 10];
    let length = fgetxattr(file, name, &mut value[..])?;
    value.truncate(length);
    Ok(value)
}

/// Copies a regular file to the new name `to` in `directory`. `data_of` has its data, `file` the rest of it.
pub fn regular(data_of: &File, file: &File, directory: BorrowedFd<'_>, to: &CStr, stat: &Stat) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let new = File::from(openat(directory, to, flags, Mode::RUSR | Mode::WUSR)?);
    data(data_of, &new, u64::try_from(stat.st_size).unwrap_or(0))?;
    Ok(attributes(file.as_fd(), new.as_fd(), stat)?)
}

/// Copies what is neither file nor directory: a symbolic link, FIFO, socket or device.
pub fn special(
    from: BorrowedFd<'_>,
    name: &CStr,
    directory: BorrowedFd<'_>,
    stat: &Stat,
) -> rustix::io::Result<()> {
    let kind = super::beneath::sort(stat);
    match kind.is_symlink() {
        true => symlinkat(readlinkat(from, name, Vec::new())?.as_c_str(), directory, name)?,
        false => {
            rustix::fs::mknodat(
                directory,
                name,
                kind,
                Mode::from_raw_mode(stat.st_mode & 0o7777),
                stat.st_rdev,
            )?;
        }
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    utimensat(directory, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)
}

/// The same of a directory's own attributes as [`attributes`]; `to` may have some of its own, which go.
pub fn imitate(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    attributes(from.as_fd(), to.as_fd(), &rustix::fs::fstat(from)?)
}
