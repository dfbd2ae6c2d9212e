//! One store in a directory and a mount namespace of its own, gone at the end.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use moorage::oci::Access;
use moorage::opt::{Config, Layer, Person, Store, Upper, ViewOwner, VolumeRequest};
use moorage::report::{Event, Fault, Reporter};
use moorage::spec::{Archive, Digest};
use nix::sched::CloneFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use sha2::Digest as _;

/// Users that no machine knows.
pub const ANN: u32 = 12345;
pub const BOB: u32 = 12346;

pub struct World {
    pub home: PathBuf,
    pub store: Arc<Store>,
    runtime: tokio::runtime::Runtime,
    _directory: Directory,
}

/// What is in it goes with this, behind the store, which is still busy with new layers for a moment.
struct Directory(Option<tempfile::TempDir>);

/// Gives this thread, and those it starts from now on, mounts of its own.
pub fn leave_the_hosts_mounts() {
    assert!(rustix::process::geteuid().is_root(), "these tests mount things: they need root");
    nix::sched::unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).unwrap();
}

pub fn person(uid: u32) -> Person {
    Person { uid, gid: uid, groups: Vec::new() }
}

pub fn open_to_all(path: &Path) {
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
}

pub fn give(path: &Path, uid: u32) {
    std::os::unix::fs::chown(path, Some(uid), Some(uid)).unwrap();
}

impl World {
    pub fn new() -> World {
        World::at(|_| {})
    }

    /// With something done to the home before the store is opened in it.
    pub fn at(before: impl FnOnce(&Path)) -> World {
        leave_the_hosts_mounts();
        let directory = tempfile::tempdir().unwrap();
        let home = directory.path().to_owned();
        open_to_all(&home);
        for name in ["archives", "data"] {
            std::fs::create_dir(home.join(name)).unwrap();
            open_to_all(&home.join(name));
        }
        before(&home);
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let store = Store::open(config(&home)).unwrap();
        World { home, store, runtime, _directory: Directory(Some(directory)) }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    pub fn storage(&self) -> PathBuf {
        self.home.join("storage")
    }

    pub fn partial(&self) -> Vec<PathBuf> {
        entries(&self.storage().join(".store/partial"))
    }

    /// Nothing half-made, nothing made.
    pub fn assert_untouched(&self) {
        assert_eq!(self.partial(), [] as [PathBuf; 0]);
        assert_eq!(entries(&self.storage().join(".store/layers")), [] as [PathBuf; 0]);
    }

    /// Puts bytes where `file://` archives may lie.
    pub fn publish(&self, name: &str, bytes: &[u8]) -> Archive {
        let path = self.home.join("archives").join(name);
        std::fs::write(&path, bytes).unwrap();
        Archive { url: format!("file://{}", path.display()), sha256: Some(digest(bytes)) }
    }

    pub fn fetch(&self, archive: &Archive) -> Result<Layer, Fault> {
        self.fetch_as(archive, &person(0))
    }

    pub fn fetch_as(&self, archive: &Archive, person: &Person) -> Result<Layer, Fault> {
        let fetched = self.block_on(self.store.fetch(archive, person, &Reporter::silent()));
        fetched.map_err(|e| Fault::of(&e))
    }

    pub fn layer(&self, tar: Vec<u8>) -> Layer {
        self.fetch(&self.publish("layer.tar", &tar)).unwrap()
    }

    pub fn tree(&self, layer: &Layer) -> PathBuf {
        self.storage().join(".store/layers").join(&layer.digest.hex()[..12])
    }

    /// A volume of Ann's, not finished.
    pub fn new_volume(&self, name: &str, layers: &[&Layer]) -> anyhow::Result<Upper> {
        let view = Some(ViewOwner { uid: ANN, gid: ANN, group_readable: false });
        let layers = layers.iter().map(|layer| layer.id()).collect();
        self.store.new_volume(VolumeRequest { name: name.into(), layers, view })
    }

    pub fn volume(&self, name: &str, layers: &[&Layer]) {
        self.new_volume(name, layers).unwrap();
        self.store.finish_volume(name).unwrap();
    }

    pub fn merged(&self, name: &str) -> PathBuf {
        self.storage().join(".store/volumes").join(name).join("merged")
    }

    pub fn view(&self, name: &str) -> PathBuf {
        self.storage().join(name).join("opt")
    }

    /// The mount options at `path`, none where nothing is mounted.
    pub fn options(&self, path: &Path) -> Option<String> {
        let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let fields = |line: &str| line.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let line = text.lines().map(fields).find(|fields| Path::new(&fields[4]) == path)?;
        Some(line[5].clone())
    }

    /// What a reboot leaves: the files, and no mounts.
    pub fn unmount_all(&self) {
        unmount_below(&self.storage());
    }

    /// Drops the store as a crash would and opens it again.
    pub fn reopen(mut self) -> World {
        self.try_reopen().unwrap();
        self
    }

    pub fn try_reopen(&mut self) -> anyhow::Result<()> {
        self.open_again()?;
        self.store.remove_left();
        Ok(())
    }

    /// Up to the point from which everybody is served.
    pub fn open_again(&mut self) -> anyhow::Result<()> {
        // The old store lets go of its lock; a stand-in keeps the field filled meanwhile.
        let stand_in = tempfile::tempdir().unwrap();
        self.store = Store::open(config(stand_in.path()))?;
        self.store = Store::open(config(&self.home))?;
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let Some(directory) = self.0.take() else { return };
        unmount_below(directory.path());
        if let Err(e) = directory.close()
            && !std::thread::panicking()
        {
            panic!("the test leaves something behind: {e}");
        }
    }
}

fn unmount_below(home: &Path) {
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    for line in text.lines().rev() {
        let point = Path::new(line.split(' ').nth(4).unwrap());
        if point.starts_with(home) {
            rustix::mount::unmount(point, UnmountFlags::DETACH).unwrap();
        }
    }
}

pub fn config(home: &Path) -> Config {
    Config {
        storage: home.join("storage"),
        state: home.join("state"),
        archive_roots: vec![home.join("archives")],
        mount_roots: vec![home.join("data")],
        docker: Access {
            config: Some(home.join("docker.json")),
            certificates: home.join("certs.d"),
            login: None,
        },
    }
}

pub fn entries(path: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

pub fn digest(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}

pub fn tmpfs(path: &Path, options: &str) {
    std::fs::create_dir_all(path).unwrap();
    let options = std::ffi::CString::new(options).unwrap();
    rustix::mount::mount("tmpfs", path, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
}

/// What a command prints when `uid` runs it.
pub fn run_as(uid: u32, command: &mut Command) -> String {
    use std::os::unix::process::CommandExt as _;
    let output = command.uid(uid).gid(uid).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned() + String::from_utf8_lossy(&output.stderr).trim()
}

/// A reporter and what it was told.
pub fn listening() -> (Reporter, Arc<Mutex<Vec<Event>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let sink = heard.clone();
    (Reporter::new(move |event| sink.lock().unwrap().push(event)), heard)
}

/// What tells one fetch of an archive from another.
pub fn fetched(layer: &Layer) -> (Digest, jiff::Timestamp) {
    (layer.digest, layer.when)
}
