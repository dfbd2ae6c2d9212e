//! The store as a whole: where it lies, whether the place is fit for it, and bringing everything back at a start.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use anyhow::{Context as _, Result};
use rustix::fs::{
    AtFlags, Dir, FileType, IFlags, Mode, OFlags, StatVfs, XattrFlags, ioctl_getflags, ioctl_setflags,
};
use rustix::io::Errno;

use super::busy::{Busy, Changing};
use super::layer::{Discarded, Layers};
use super::marker::Marker;
use super::settle::Settling;
use super::turns::Turns;
use super::volume::VolumeRecord;
use crate::oci::Access;
use crate::report::{Fault, Kind};
use crate::state::Records;

/// Where a store lies and what people may name on this host.
#[derive(Debug, Clone)]
pub struct Config {
    /// The storage root, `/opt/containers` by default.
    pub storage: PathBuf,
    /// Where records are kept, `/var/lib/moorage` by default; the volumes' go to `volumes/` in it.
    pub state: PathBuf,
    /// `file://` archives must lie below one of these.
    pub archive_roots: Vec<PathBuf>,
    /// Host paths mounted into containers must lie below one of these.
    pub mount_roots: Vec<PathBuf>,
    /// With whose login `oci://` archives are asked for.
    pub docker: Access,
}

/// `f_type` of filesystems that an overlay cannot write to (statfs(2)).
const UNFIT: [(u64, &str); 4] =
    [(0x6969, "NFS"), (0x794c_7630, "overlay"), (0xff53_4d42, "CIFS"), (0xfe53_4d42, "SMB")];

/// The `/opt` store of this host. One process at a time.
pub struct Store {
    pub(super) config: Config,
    /// The storage root.
    pub(super) root: OwnedFd,
    pub(super) layers: Arc<Layers>,
    pub(super) records: Records<VolumeRecord>,
    pub(super) client: OnceLock<reqwest::Client>,
    /// The volumes that are being changed. Trees are removed outside of it.
    pub(super) busy: Busy,
    /// One lock per archive that is being fetched.
    pub(super) fetching: Mutex<HashMap<String, Weak<tokio::sync::Mutex<()>>>>,
    pub(super) turns: Turns,
    /// Which containers have a bind volume mounted, as Docker's mount IDs.
    pub(super) bound: Mutex<HashMap<String, Vec<String>>>,
    /// Whether the filesystem shares blocks between files (FICLONE): then a first write copies nothing.
    reflinks: bool,
    /// Trees of before the start, moved away and not removed yet.
    left: Mutex<Vec<Discarded>>,
    settling: Settling,
    /// Locked for as long as the store is open.
    _marker: File,
}

impl Store {
    /// Opens the store, making it where there is none yet; moves away what a crash left, for [`Store::remove_left`], and
    /// mounts all volumes and their views. What fails for one volume is logged and does not keep the others from coming
    /// back.
    ///
    /// # Errors
    /// A filesystem that overlays cannot be written to; a store that is open already; a marker that is missing although
    /// there are volumes, which means that the store's disk is not mounted; records that are not this store's.
    pub fn open(config: Config) -> Result<Arc<Store>> {
        let records: Records<VolumeRecord> = Records::open(config.state.join("volumes"))?;
        let storage = &config.storage;
        if storage.as_os_str().to_string_lossy().contains([',', ':', '\\', '\n']) {
            let what = format!("the store cannot lie at {}", storage.display());
            return Err(Fault::new(Kind::Usage, what).why("overlay's options cannot name it").into());
        }
        let (marker, has_volumes) = (Marker { storage, state: &config.state }, !records.all()?.is_empty());
        marker.check_mounted(has_volumes)?;
        prepare(storage)?;
        let marker = marker.take(has_volumes)?;
        let root = directory(storage)?;
        let reflinks = super::copy::reflinks(&storage.join(".store"))?;
        let (layers, mut left) = Layers::open(&storage.join(".store"))?;
        let layers = Arc::new(layers);
        let settling = Settling::of(layers.clone())?;
        let store = Arc::new(Store {
            config,
            root,
            layers,
            records,
            client: OnceLock::new(),
            busy: Busy::default(),
            fetching: Mutex::default(),
            turns: Turns::default(),
            bound: Mutex::default(),
            reflinks,
            left: Mutex::default(),
            settling,
            _marker: marker,
        });
        store.clear_staging(&mut left)?;
        left.problems.extend(store.clear_spools()?);
        store.restore(&mut left)?;
        for problem in left.problems {
            tracing::error!("{problem:#}");
        }
        *store.left() = left.trees;
        store.settle_later();
        Ok(store)
    }

    /// Removes what a crash left and opening the store moved away. Takes as long as that is large.
    pub fn remove_left(&self) {
        let left = std::mem::take(&mut *self.left());
        for tree in left {
            if let Err(e) = tree.remove() {
                tracing::error!("left until the next start: {e:#}");
            }
        }
    }

    fn left(&self) -> MutexGuard<'_, Vec<Discarded>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a first write to a file of a layer copies nothing, because the filesystem shares blocks.
    pub fn reflinks(&self) -> bool {
        self.reflinks
    }

    /// There are new layers to be brought to disk.
    pub(super) fn settle_later(&self) {
        self.settling.begin();
    }

    /// Waits until nobody else changes the volume `name`. Unmounting one brings all that was written to disk, of everybody
    /// on that disk: nobody but who wants this very volume waits for it.
    pub(super) fn changing(&self, name: &str) -> Changing<'_> {
        self.busy.begin(name)
    }

    /// `<root>/.store/<rest>`.
    pub(super) fn inside(&self, rest: impl AsRef<Path>) -> PathBuf {
        self.config.storage.join(".store").join(rest)
    }

    /// Turns "no space" into what a person can do about it; other errors pass.
    pub(super) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let free = rustix::fs::fstatvfs(&self.root).map(|fs| available(&fs)).unwrap_or(0);
        match is_full(&error) {
            true => {
                Fault::new(Kind::Failed, format!("the disk of {} is full", self.config.storage.display()))
                    .why(format!("{error:#}"))
                    .why(format!("{} free", crate::spec::ByteSize(free)))
                    .next("free some space there, then run the same command again")
                    .into()
            }
            false => error,
        }
    }
}

/// Whether there was no space, for us or for anybody.
pub(super) fn is_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        let number = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::raw_os_error)
            .or_else(|| cause.downcast_ref::<Errno>().map(|e| e.raw_os_error()));
        number == Some(Errno::NOSPC.raw_os_error()) || number == Some(Errno::DQUOT.raw_os_error())
    })
}

/// Bytes an ordinary file may still take.
pub(super) fn available(fs: &StatVfs) -> u64 {
    fs.f_bavail.saturating_mul(fs.f_frsize)
}

pub(super) fn directory(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).with_context(|| format!("open {}", path.display()))
}

/// Makes the store's directories with their modes, and refuses a filesystem that cannot be one.
fn prepare(storage: &Path) -> Result<()> {
    let make = |path: &Path, mode: u32| -> Result<()> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(path)
            .and_then(|()| std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)))
            .with_context(|| format!("make {}", path.display()))
    };
    make(storage, 0o755)?;
    let fs = rustix::fs::statfs(storage).with_context(|| format!("look at {}", storage.display()))?;
    // f_type is signed on some machines; the magic numbers are 32 bits wide.
    let magic = (fs.f_type as u64) & 0xffff_ffff;
    let unfit = |why: String| {
        Fault::new(Kind::Missing, format!("{} cannot hold the store", storage.display()))
            .why(why)
            .next("set the storage root to a directory on a local ext4, XFS or btrfs")
    };
    if let Some((_, name)) = UNFIT.iter().find(|(number, _)| *number == magic) {
        return Err(unfit(format!("it is on {name}, which an overlay cannot write to")).into());
    }
    let store = storage.join(".store");
    make(&store, 0o700)?;
    for name in
        ["layers", "frozen", "partial", "volumes", "binds", "files", "empty", "staging", "spool", "seals"]
    {
        make(&store.join(name), 0o700)?;
    }
    keep_apart(&store.join("partial"));
    make(&storage.join("staging"), 0o711)?;
    probe(&store).map_err(|why| unfit(why).into())
}

/// Asks the filesystem to put each tree made below this directory where nothing else is: they have nothing to do with one
/// another. ext4 would look for room for every new file among the inodes of whatever was removed last, which takes longer
/// than writing it (chattr(1), `T`). Others do without.
fn keep_apart(directory: &Path) {
    let flag = || -> Result<()> {
        let handle = self::directory(directory)?;
        Ok(ioctl_setflags(&handle, ioctl_getflags(&handle)? | IFlags::TOPDIR)?)
    };
    if let Err(e) = flag() {
        tracing::debug!("{}: trees are not kept apart: {e:#}", directory.display());
    }
}

/// An overlay's upper needs file types in directory listings (XFS without ftype has none) and trusted attributes.
fn probe(store: &Path) -> Result<(), String> {
    let try_it = || -> Result<FileType, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let store = rustix::fs::open(store, flags, Mode::empty())?;
        let place = format!("partial/{}", super::layer::unused());
        rustix::fs::mkdirat(&store, &place, Mode::RWXU)?;
        let test = || {
            let place = rustix::fs::openat(&store, &place, flags, Mode::empty())?;
            rustix::fs::fsetxattr(&place, "trusted.overlay.probe", b"y", XattrFlags::empty())?;
            rustix::fs::mkdirat(&place, "probe", Mode::RWXU)?;
            let mut found = FileType::Unknown;
            for entry in Dir::read_from(place.as_fd())? {
                let entry = entry?;
                if entry.file_name() == c"probe" {
                    found = entry.file_type();
                }
            }
            rustix::fs::unlinkat(&place, "probe", AtFlags::REMOVEDIR)?;
            Ok(found)
        };
        let result = test();
        rustix::fs::unlinkat(&store, &place, AtFlags::REMOVEDIR)?;
        result
    };
    match try_it() {
        Ok(FileType::Directory) => Ok(()),
        Ok(_) => Err("its directory listings have no file types (XFS made with ftype=0?)".into()),
        Err(Errno::OPNOTSUPP) => Err("it keeps no trusted extended attributes".into()),
        Err(Errno::PERM) => Err("only root may open the store".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// The record's key check is `Records`'; this keeps names out that mean something in the store or to overlay.
pub(super) fn check_name(name: &str) -> Result<()> {
    let good = (1..=128).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && name.as_bytes()[0].is_ascii_alphanumeric();
    match good {
        true => Ok(()),
        false => Err(Fault::new(Kind::Usage, format!("{name:?} cannot be the name of a volume"))
            .why("letters, digits, `_`, `.`, `-`; a letter or digit first; at most 128")
            .into()),
    }
}
