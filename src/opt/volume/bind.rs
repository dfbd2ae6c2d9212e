//! Bind volumes: a host path that a person may use, mounted without Docker ever resolving it.

use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::{Kind, Phase, VolumeRecord};
use crate::opt::beneath;
use crate::opt::mounts;
use crate::opt::person::Person;
use crate::opt::store::{Store, check_name};
use crate::report::{self, Fault};

impl Store {
    /// Remembers a mount of the host path `source`. It is opened with the person's rights now, so that a mistake shows at
    /// once, and again whenever it is mounted, so that it follows what the host allows then.
    ///
    /// # Errors
    /// A [`Fault`]: `Denied` where the path or the person's rights do not allow it, `NotFound`, `Differs` where the name is
    /// taken by something else.
    pub fn new_bind(&self, name: &str, source: &Path, person: &Person, read_only: bool) -> Result<()> {
        check_name(name)?;
        let (_, root) = person.open_mount(source, &self.config.mount_roots, !read_only)?;
        let kind = Kind::Bind {
            source: source.to_str().context("the path is not UTF-8")?.to_owned(),
            root: root.to_string_lossy().into_owned(),
            person: person.clone(),
            read_only,
        };
        let _changing = self.changing(name);
        match self.records.get(name)? {
            Some(existing) if existing.kind == kind && existing.phase == Phase::Ready => return Ok(()),
            Some(_) => {
                let what = format!("the volume {name} exists already");
                return Err(Fault::new(report::Kind::Differs, what).into());
            }
            None => {}
        }
        let made = jiff::Timestamp::now();
        self.records.put(name, &VolumeRecord { kind, phase: Phase::Ready, managed: true, view: None, made })
    }

    /// Opens the source of a bind volume with its person's rights; none for another kind.
    pub(super) fn open_bind(&self, record: &VolumeRecord) -> Result<Option<OwnedFd>> {
        let Kind::Bind { source, person, read_only, .. } = &record.kind else { return Ok(None) };
        let (source, _) = person.open_mount(Path::new(source), &self.config.mount_roots, !read_only)?;
        Ok(Some(source))
    }

    /// Mounts the opened source unless something is mounted already.
    pub(super) fn mount_bind(&self, name: &str, record: &VolumeRecord, source: &OwnedFd) -> Result<()> {
        let Kind::Bind { read_only, .. } = &record.kind else { bail!("{name} is no bind") };
        let target = self.mountpoint(name, record);
        if mounts::is_mounted(&target)? {
            return Ok(());
        }
        let is_directory = beneath::sort(&rustix::fs::fstat(source)?).is_dir();
        self.make_place(name, is_directory).context("make the mount point")?;
        mounts::bind(source, &target, *read_only)
    }

    /// What it is mounted on is of the same sort as the source, which may have changed since the last time.
    fn make_place(&self, name: &str, is_directory: bool) -> Result<()> {
        let binds = crate::opt::store::directory(&self.inside("binds"))?;
        let make = || match is_directory {
            true => rustix::fs::mkdirat(&binds, name, Mode::RWXU),
            false => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&binds, name, flags, Mode::RUSR | Mode::WUSR).map(drop)
            }
        };
        match make() {
            Err(Errno::EXIST) => {
                super::overlay::remove_place(&binds, name)?;
                Ok(make()?)
            }
            result => Ok(result?),
        }
    }
}
