//! Overlay volumes from their record to their removal.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat};
use rustix::io::Errno;

use super::{Kind, Merged, Phase, Upper, Usage, ViewOwner, VolumeRecord, VolumeRequest};
use crate::opt::beneath::{self, Inner};
use crate::opt::layer::{Discarded, Leftovers};
use crate::opt::layer_id::LayerId;
use crate::opt::store::{Store, check_name, directory};
use crate::opt::{mounts, tree};
use crate::report::{self, Fault};

/// Renamed directories work (`redirect_dir`); nothing that ties a layer to one volume or keeps file data apart from its
/// name, so that an upper can become a layer, and inode numbers the host's tools understand.
const OPTIONS: &str = "redirect_dir=on,index=off,metacopy=off,xino=off";

/// Names in the storage root that are the store's own.
const RESERVED: [&str; 2] = ["staging", "logs"];

/// The paths of one volume.
pub(super) struct Places {
    pub(super) home: PathBuf,
    pub(super) upper: PathBuf,
    pub(super) work: PathBuf,
    pub(super) merged: PathBuf,
    private: PathBuf,
}

impl Store {
    /// Writes down that the volume is to be made, and makes its empty upper directory to put things into. The volume
    /// exists once [`Store::finish_volume`] has been called; one that never was is removed at the next start, or
    /// replaced by the next call.
    pub fn new_volume(&self, request: VolumeRequest) -> Result<Upper> {
        self.make_volume(request, true)
    }

    pub(in crate::opt) fn make_volume(&self, request: VolumeRequest, managed: bool) -> Result<Upper> {
        let name = &request.name;
        check_name(name)?;
        if RESERVED.contains(&name.as_str()) {
            let what = format!("a volume cannot be called {name}: the store uses that name");
            return Err(Fault::new(report::Kind::Usage, what).into());
        }
        self.take_half(name)?.remove_or_leave(name);
        let _changing = self.changing(name);
        if self.records.get(name)?.is_some() {
            let what = format!("the volume {name} exists already");
            return Err(Fault::new(report::Kind::Differs, what).into());
        }
        let places = self.places(name, 1);
        self.check_options(&places, &request.layers, OPTIONS)?;
        let record = VolumeRecord {
            kind: Kind::Overlay { layers: request.layers.clone(), upper: 1, options: OPTIONS.to_owned() },
            phase: Phase::Unfinished,
            managed,
            view: request.view,
            made: jiff::Timestamp::now(),
        };
        let lowers = self.put_needing(name, &record, &request.layers)?;
        let make = || -> Result<Upper> {
            for path in [&places.home, &places.upper, &places.work, &places.merged, &places.private] {
                std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), 0o700)
                    .create(path)?;
            }
            Upper::new(directory(&places.upper)?, lowers)
        };
        make().with_context(|| format!("make the volume {name}")).map_err(|e| self.explain(e))
    }

    /// Takes away a volume that was never finished, or whose removal was not.
    fn take_half(&self, name: &str) -> Result<Remains> {
        let _changing = self.changing(name);
        match self.records.get(name)?.map(|record| record.phase) {
            Some(Phase::Unfinished | Phase::Removing) => self.take_apart(name),
            Some(Phase::Ready | Phase::Freezing { .. }) | None => Ok(Remains::default()),
        }
    }

    /// Mounts a volume that has been filled, and its view: from now on it exists.
    pub fn finish_volume(&self, name: &str) -> Result<()> {
        self.finish_volume_with(name, |_| Ok(()))
    }

    /// The same; `edit` changes what is seen of all the layers together, before anybody else sees it.
    pub fn finish_volume_with(&self, name: &str, edit: impl FnOnce(&Merged) -> Result<()>) -> Result<()> {
        let _changing = self.changing(name);
        let mut record = self.record(name)?;
        self.mount_overlay(name, &record)?;
        let merged = Merged::new(directory(&self.mountpoint(name, &record))?);
        edit(&merged).map_err(|e| self.explain(e))?;
        // A descriptor of it would keep the mount busy.
        drop(merged);
        self.mount_view(name, &record)?;
        record.phase = Phase::Ready;
        self.records.put(name, &record)
    }

    /// Removes a volume with all its data. One that does not exist is no error.
    ///
    /// # Errors
    /// A [`Fault`] while a container has it mounted; then it stays as it is.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        check_name(name)?;
        let taken = {
            let _changing = self.changing(name);
            self.take_apart(name)?
        };
        taken.remove()
    }

    /// Every volume with its name.
    pub fn volumes(&self) -> Result<Vec<(String, VolumeRecord)>> {
        self.records.all()
    }

    /// What a volume takes on disk. Walks its upper directory.
    pub fn usage(&self, name: &str) -> Result<Usage> {
        let record = self.record(name)?;
        let Kind::Overlay { layers, upper, .. } = &record.kind else {
            return Ok(Usage { upper_bytes: 0, layers_bytes: 0 });
        };
        let mut layers_bytes = 0;
        for layer in layers {
            layers_bytes += self.layers.bytes(layer)?;
        }
        let upper = directory(&self.places(name, *upper).upper)?;
        let upper_bytes = tree::disk_bytes(upper).with_context(|| format!("measure the volume {name}"))?;
        Ok(Usage { upper_bytes, layers_bytes })
    }

    /// What docker and the owner find there: unfinished volumes and those whose removal had begun moved away, the others
    /// mounted.
    pub(in crate::opt) fn restore(&self, left: &mut Leftovers) -> Result<()> {
        for (name, record) in self.records.all()? {
            let restored = match (&record.kind, &record.phase) {
                (_, Phase::Unfinished | Phase::Removing) => self.take_half(&name),
                (Kind::Overlay { .. }, Phase::Ready | Phase::Freezing { .. }) => {
                    self.bring_back(&name, record)
                }
                // Mounted when Docker asks: its source may be on a disk that comes later.
                (Kind::Bind { .. }, _) => Ok(Remains::default()),
            };
            match restored.with_context(|| format!("bring back the volume {name}")) {
                Ok(Remains(trees)) => left.trees.extend(trees),
                Err(e) => left.problems.push(e),
            }
        }
        Ok(())
    }

    pub(in crate::opt) fn record(&self, name: &str) -> Result<VolumeRecord> {
        check_name(name)?;
        let missing = || Fault::new(report::Kind::NotFound, format!("there is no volume {name}"));
        Ok(self.records.get(name)?.ok_or_else(missing)?)
    }

    /// Puts the record of a volume that may need `layers` from now on, and opens them, topmost first. Nobody collects them
    /// between the look and the record.
    pub(super) fn put_needing(
        &self,
        name: &str,
        record: &VolumeRecord,
        layers: &[LayerId],
    ) -> Result<Vec<OwnedFd>> {
        let _layers = self.layers.changing();
        let lowers = self.lowers(layers)?;
        self.records.put(name, record)?;
        Ok(lowers)
    }

    /// The volume's own directory, which its container may be writing to.
    pub(in crate::opt) fn upper_of(&self, name: &str, record: &VolumeRecord) -> Result<OwnedFd> {
        match &record.kind {
            Kind::Overlay { upper, .. } => directory(&self.places(name, *upper).upper),
            Kind::Bind { .. } => bail!("{name} is no overlay"),
        }
    }

    /// Where a volume is mounted for Docker.
    pub(in crate::opt) fn mountpoint(&self, name: &str, record: &VolumeRecord) -> PathBuf {
        match &record.kind {
            Kind::Overlay { upper, .. } => self.places(name, *upper).merged,
            Kind::Bind { .. } => self.inside("binds").join(name),
        }
    }

    pub(super) fn places(&self, name: &str, upper: u32) -> Places {
        let home = self.inside("volumes").join(name);
        Places {
            upper: home.join(format!("upper-{upper}")),
            work: home.join(format!("work-{upper}")),
            merged: home.join("merged"),
            private: home.join("view"),
            home,
        }
    }

    /// `<root>/<name>`.
    pub(super) fn container_directory(&self, name: &str) -> PathBuf {
        self.config.storage.join(name)
    }

    /// The layers' trees, topmost first.
    pub(in crate::opt) fn lowers(&self, layers: &[LayerId]) -> Result<Vec<OwnedFd>> {
        let open = |layer: &LayerId| -> Result<OwnedFd> {
            if !self.layers.has(layer)? {
                let what = format!("the opt layer {layer} is not in the store");
                return Err(Fault::new(report::Kind::NotFound, what)
                    .next("make the container again: that fetches it")
                    .into());
            }
            directory(&self.layers.tree(layer))
        };
        layers.iter().rev().map(open).collect()
    }

    /// Refuses more layers than the kernel takes as options.
    pub(super) fn check_options(&self, places: &Places, layers: &[LayerId], options: &str) -> Result<()> {
        let options = self.options(places, layers, options);
        if options.len() <= mounts::LONGEST_OPTIONS {
            return Ok(());
        }
        let what = format!("{} opt layers are too many for one volume", layers.len());
        let why = format!("their mount options are {} bytes, the kernel takes a page", options.len());
        Err(Fault::new(report::Kind::Usage, what).why(why).into())
    }

    pub(super) fn options(&self, places: &Places, layers: &[LayerId], options: &str) -> String {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut lowers: Vec<String> =
            layers.iter().rev().map(|layer| text(&self.layers.tree(layer))).collect();
        if lowers.is_empty() {
            lowers.push(text(&self.inside("empty")));
        }
        mounts::overlay_options(&lowers, &text(&places.upper), &text(&places.work), options)
    }

    /// Mounts the overlay unless it is mounted.
    pub(in crate::opt) fn mount_overlay(&self, name: &str, record: &VolumeRecord) -> Result<()> {
        let Kind::Overlay { layers, upper, options } = &record.kind else { bail!("{name} is no overlay") };
        let places = self.places(name, *upper);
        if mounts::is_mounted(&places.merged)? {
            return Ok(());
        }
        self.lowers(layers)?;
        // A view of the mount before this one would show what nobody uses.
        mounts::unmount_from(&self.container_directory(name).join("opt"), true)?;
        mounts::overlay(&self.options(&places, layers, options), &places.merged)
    }

    /// Shows the owner the volume, unless it is shown.
    ///
    /// The owner owns `<root>/<name>` and may have put anything at `opt` in it while nothing was mounted there.
    pub(in crate::opt) fn mount_view(&self, name: &str, record: &VolumeRecord) -> Result<()> {
        let (Some(view), Kind::Overlay { upper, .. }) = (&record.view, &record.kind) else { return Ok(()) };
        let container = self.container_directory(name);
        if mounts::is_mounted(&container.join("opt"))? {
            return Ok(());
        }
        match mkdirat(&self.root, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).with_context(|| format!("make {}", container.display())),
        }
        let inner = Inner::parse(name.as_bytes())?;
        let handle = beneath::open(&self.root, &inner, OFlags::RDONLY | OFlags::DIRECTORY)
            .with_context(|| format!("open {}", container.display()))?;
        hand_over(&handle, view).with_context(|| format!("give {} to its owner", container.display()))?;
        match mkdirat(&handle, "opt", Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e).with_context(|| format!("make {}/opt", container.display())),
        }
        let target = beneath::handle(&handle, &Inner::parse(b"opt")?).map_err(|e| {
            let what = format!("{}/opt is not a directory", container.display());
            Fault::new(report::Kind::Failed, what)
                .why(e.to_string())
                .next(format!("move {}/opt away and start the container again", container.display()))
        })?;
        let places = self.places(name, *upper);
        mounts::view(&places.merged, &places.private, target.as_fd())
    }

    /// Refuses a volume that a container has mounted.
    pub(super) fn check_unused(&self, name: &str, mountpoint: &Path) -> Result<()> {
        if !mounts::is_mounted(mountpoint)? {
            return Ok(());
        }
        let view = self.container_directory(name).join("opt");
        let device = fstat(directory(mountpoint)?)?.st_dev;
        match mounts::users_of(device, &[mountpoint, &view])?.first() {
            None => Ok(()),
            Some(pid) => Err(Fault::new(report::Kind::Failed, format!("the volume {name} is in use"))
                .why(format!("process {pid} has it mounted"))
                .next("stop the container that uses it, then try again")
                .into()),
        }
    }

    /// Unmounts a volume and takes everything of it away but what takes time. Needs [`Store::changing`].
    fn take_apart(&self, name: &str) -> Result<Remains> {
        let Some(mut record) = self.records.get(name)? else { return Ok(Remains::default()) };
        let mountpoint = self.mountpoint(name, &record);
        let view = self.container_directory(name).join("opt");
        let is_overlay = matches!(record.kind, Kind::Overlay { .. });
        if is_overlay {
            self.check_unused(name, &mountpoint)?;
        }
        if let Kind::Overlay { layers, .. } = &record.kind {
            layers.iter().for_each(|layer| self.wanted(layer));
        }
        record.phase = Phase::Removing;
        self.records.put(name, &record)?;
        // The owner's shell may stand in the view: it must not keep the volume.
        mounts::unmount_from(&view, true)?;
        mounts::unmount_from(&mountpoint, !is_overlay)?;
        let mut remains = Remains::default();
        match is_overlay {
            true => {
                let private = self.places(name, 1).private;
                mounts::unmount_from(&private, true)?;
                remains.add(self.layers.discard(directory(&self.inside("volumes"))?, name)?);
                if record.view.is_some() {
                    remains.add(self.layers.discard(&self.root, name)?);
                }
            }
            false => remove_place(&directory(&self.inside("binds"))?, name)?,
        }
        self.records.remove(name)?;
        Ok(remains)
    }
}

/// What is left of a volume: moved away already, to be removed when nobody waits for the volume.
#[must_use]
#[derive(Default)]
pub(super) struct Remains(Vec<Discarded>);

impl Remains {
    pub(super) fn add(&mut self, discarded: Discarded) {
        self.0.push(discarded);
    }

    pub(super) fn remove(self) -> Result<()> {
        self.0.into_iter().try_for_each(Discarded::remove)
    }

    /// For who has done what was asked: what cannot be removed costs only its space until the next start.
    pub(super) fn remove_or_leave(self, name: &str) {
        if let Err(e) = self.remove() {
            tracing::warn!("what the volume {name} had stays until the next start: {e:#}");
        }
    }
}

/// Removes the empty file or directory that something was mounted on.
pub(super) fn remove_place(place: &OwnedFd, name: &str) -> Result<()> {
    let removed = match rustix::fs::unlinkat(place, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => rustix::fs::unlinkat(place, name, AtFlags::REMOVEDIR),
        result => result,
    };
    match removed {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e).with_context(|| format!("remove the mount point of {name}")),
    }
}

fn hand_over(container: &OwnedFd, view: &ViewOwner) -> rustix::io::Result<()> {
    let gid = Gid::from_raw(view.gid);
    let (uid, mode) = match view.group_readable {
        true => (Uid::ROOT, 0o750),
        false => (Uid::from_raw(view.uid), 0o700),
    };
    fchmod(container, Mode::empty())?;
    fchown(container, Some(uid), Some(gid))?;
    fchmod(container, Mode::from_raw_mode(mode))
}
