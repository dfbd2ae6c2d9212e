//! From a record to a container that exists but does not run: gather what it needs side by side, then put it together.

use std::path::Path;

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

use super::identity::{authorized_keys, below_opt, own_files, root_files};
use super::{Caller, Host, Record, check, clone, handed_on, identity, roots, slice, throttle};
pub use crate::apart::blocking;
use crate::api::SourceDone;
use crate::engine::{Create, File, Image, ImageFacts, Init, Place, View, Volume, root_image};
use crate::lan::LeaseView;
use crate::opt::{Layer, Staging, Upper, ViewOwner, VolumeRequest};
use crate::report::{Event, Fault, Kind, Reporter};
use crate::spec::{Addressing, ContainerSpec, Owner};

/// Everything that is fetched before anything is put together.
pub struct Gathered {
    pub image: Image,
    pub facts: ImageFacts,
    pub layers: Vec<Layer>,
    /// Where a DHCP server grants the address.
    pub lease: Option<LeaseView>,
    pub staging: Option<Staging>,
}

/// The four parallel branches. The first that fails ends the others.
pub async fn gather(
    host: &Host,
    record: &Record,
    for_whom: (&Caller, &str),
    staged: oneshot::Receiver<SourceDone>,
    report: &Reporter,
) -> Result<Gathered> {
    let ((image, facts), layers, lease, staging) = tokio::try_join!(
        image(host, &record.spec.image, report),
        layers(host, record, for_whom.0, report),
        address(host, record, report),
        sources(host, record, for_whom, staged, report),
    )?;
    Ok(Gathered { image, facts, layers, lease, staging })
}

/// What a container's root filesystem begins as.
pub struct Origin {
    pub image: Image,
    pub facts: ImageFacts,
    /// It was committed from a container, so that all but the identity is in it.
    pub is_root: bool,
    /// What root's `authorized_keys` says there, where root is one of the people.
    pub root_keys: Option<Vec<u8>>,
}

/// What a container is made from: the root filesystem it was started from, else its image.
pub async fn origin(host: &Host, record: &Record, report: &Reporter) -> Result<Origin> {
    if let Some(root) = &record.root {
        match host.engine.image(&root_image(&root.key)).await? {
            Some(image) => {
                let facts = host.facts(&image).await?;
                let root_keys = match record.people.iter().any(super::Account::is_root) {
                    true => host.engine.file_of_image(&image.id, "/root/.ssh/authorized_keys").await?,
                    false => None,
                };
                return Ok(Origin { image, facts, is_root: true, root_keys });
            }
            None => {
                let name = &record.spec.name;
                report.warning(format!("what {name} had in its root filesystem is gone from Docker too"));
            }
        }
    }
    let (image, facts) = image(host, &record.spec.image, report).await?;
    Ok(Origin { image, facts, is_root: false, root_keys: None })
}

/// The image and what is inside it; pulled where it is not here.
pub async fn image(host: &Host, reference: &str, report: &Reporter) -> Result<(Image, ImageFacts)> {
    let image = match host.engine.image(reference).await? {
        Some(image) => image,
        None => {
            let registry = check::registry(reference);
            if registry.is_none() && !host.config.registries.iter().any(|allowed| allowed == "docker.io") {
                let name = reference.trim_start_matches("moorage/").trim_end_matches(":latest");
                return Err(Fault::new(
                    Kind::NotFound,
                    format!("there is no image {reference} on this host"),
                )
                .next(format!("moorage make-dev-image {name}"))
                .into());
            }
            report.begin("image", format!("pulling {reference}"));
            host.engine.pull(reference, report).await?;
            let image = host.engine.image(reference).await?;
            image.with_context(|| format!("{reference} was pulled and is not here"))?
        }
    };
    let facts = host.facts(&image).await?;
    report.end("image", format!("{reference} is here"));
    Ok((image, facts))
}

/// The layers of its archives; fetched where they are not here.
pub async fn layers(host: &Host, record: &Record, caller: &Caller, report: &Reporter) -> Result<Vec<Layer>> {
    let person = caller.person();
    let fetches = record.spec.opt.iter().map(|archive| host.opt.fetch(archive, &person, report));
    let layers = futures_util::future::try_join_all(fetches).await?;
    if !layers.is_empty() {
        report.end("opt", format!("{} archive(s) are here", layers.len()));
        roots::make_room(host).await;
    }
    Ok(layers)
}

/// Reserves the address where a DHCP server has to be asked for it.
pub async fn address(host: &Host, record: &Record, report: &Reporter) -> Result<Option<LeaseView>> {
    if record.spec.address != Addressing::Dhcp {
        return Ok(None);
    }
    report.begin("address", format!("asking the LAN's DHCP server for {}", record.mac));
    let lease = host.lan.reserve(&record.network_id, record.mac, record.spec.name.as_str()).await?;
    let address = lease.address.map(|address| address.to_string()).unwrap_or_default();
    report.end("address", format!("{address} for {}", record.mac));
    Ok(Some(lease))
}

/// The checkout is the client's work, as the person: here it gets a place and is waited for.
async fn sources(
    host: &Host,
    record: &Record,
    (caller, operation): (&Caller, &str),
    staged: oneshot::Receiver<SourceDone>,
    report: &Reporter,
) -> Result<Option<Staging>> {
    if record.spec.sources.is_empty() {
        return Ok(None);
    }
    report.begin("source", format!("checking out {} source(s)", record.spec.sources.len()));
    let staging = host.opt.staging(&caller.person())?;
    let directory = staging.path().to_string_lossy().into_owned();
    report.send(Event::Staging { operation: operation.to_owned(), directory });
    match staged.await {
        Ok(SourceDone::Ready) => {
            report.end("source", "checked out");
            Ok(Some(staging))
        }
        Ok(SourceDone::Failed(fault)) => Err(fault.into()),
        Err(_) => {
            let fault = Fault::new(Kind::Interrupted, "the client went away before the sources were there");
            Err(fault.next("run the same command again").into())
        }
    }
}

/// Puts the volume, the mapped directories and the engine's container together.
pub async fn create(
    host: &Host,
    record: &Record,
    caller: &Caller,
    mut gathered: Gathered,
) -> Result<(Vec<Layer>, String)> {
    volume(host, record, &mut gathered).await?;
    for (index, mount) in record.spec.mounts.iter().enumerate() {
        let (opt, name, mount, person) =
            (host.opt.clone(), record.mount_volume(index), mount.clone(), caller.person());
        blocking(move || opt.new_bind(&name, Path::new(&mount.source), &person, mount.read_only)).await?;
    }
    let Gathered { image, facts, layers, lease, .. } = gathered;
    let origin = Origin { image, facts, is_root: false, root_keys: None };
    let engine_id = engine_container(host, record, &origin, lease.as_ref()).await?;
    Ok((layers, engine_id))
}

/// The engine's part alone, on volumes that are there; answers its id.
pub async fn engine_container(
    host: &Host,
    record: &Record,
    origin: &Origin,
    lease: Option<&LeaseView>,
) -> Result<String> {
    let (image, facts) = (&origin.image, &origin.facts);
    // One from another host knows none of the people here.
    let strangers = !identity::knows(&facts.passwd, &record.people);
    let mut files = match origin.is_root && !strangers {
        true => own_files(record, facts),
        false => root_files(record, facts),
    };
    if let Some(cloned) = &record.cloned {
        files.extend(clone::group::root_files(record, cloned, facts, origin.root_keys.as_deref()));
    }
    files.extend(lease.map(handed_on::files).unwrap_or_default());
    let name = record.spec.name.as_str();
    if let Some(other) = host.engine.inspect(name).await? {
        if other.id != record.id {
            return Err(Fault::new(Kind::Differs, format!("Docker has a container {name} that is not ours"))
                .next(format!("docker rm {name}, or choose another --name"))
                .into());
        }
        host.engine.remove(name).await?;
    }
    let mut volumes =
        vec![Volume { name: record.opt_volume().to_owned(), target: "/opt".into(), read_only: false }];
    for (index, mount) in record.spec.mounts.iter().enumerate() {
        let name = record.mount_volume(index);
        volumes.push(Volume { name, target: mount.target.clone(), read_only: mount.read_only });
    }
    for volume in &volumes {
        host.engine.create_volume(&volume.name, &record.id).await?;
    }
    let cgroups = host.engine.cgroups(&host.config.cgroup).await?;
    let create = engine_create(host, record, (image, facts), lease, (volumes, cgroups.view(&record.id)));
    if facts.init.is_some() {
        let disks = match create.limits.io.is_empty() {
            true => Vec::new(),
            false => throttle::disks(host, record).await?,
        };
        slice::confine(&cgroups, &record.id, &create.limits, &disks).await?;
    }
    let engine_id = host.engine.create(&create).await?;
    identify(host, name, files).await?;
    Ok(engine_id)
}

/// Puts the files of a container's identity in before its first start: straight into its fresh upper directory where
/// the engine keeps one, which takes a tenth of the time of its archive API; through that elsewhere.
async fn identify(host: &Host, name: &str, files: Vec<File>) -> Result<()> {
    if let Some(layers) = host.engine.layers(name).await? {
        let files = files.clone();
        let written = blocking(move || {
            let root = Upper::of_root(&layers.upper, &layers.lowers)?;
            files.iter().try_for_each(|file| match &file.content {
                Some(content) => {
                    root.write_file(in_root(&file.path), content, file.mode, (file.uid, file.gid))
                }
                None => root.make_directory(in_root(&file.path), file.mode, (file.uid, file.gid)),
            })
        });
        match written.await {
            Ok(()) => return Ok(()),
            // A link or a file of the image's is where a directory is needed; the engine follows it inside.
            Err(error) => tracing::debug!("{name}: {error:#}"),
        }
    }
    host.engine.put_files(name, &files).await
}

fn in_root(path: &str) -> &str {
    path.trim_start_matches('/')
}

fn engine_create(
    host: &Host,
    record: &Record,
    (image, facts): (&Image, &ImageFacts),
    lease: Option<&LeaseView>,
    (volumes, cgroups): (Vec<Volume>, View),
) -> Create {
    let spec = &record.spec;
    let limits = check::effective(&spec.limits, &host.config.limits);
    Create {
        name: spec.name.to_string(),
        id: record.id.clone(),
        image: image.id.clone(),
        init: match &facts.init {
            Some(path) => Init::Own(path.clone()),
            None => Init::Docker { command: image.command.clone() },
        },
        stop_signal: image.stop_signal.clone(),
        cgroups,
        place: place(spec),
        mac: record.mac,
        dns: lease.map(|lease| lease.dns.clone()).unwrap_or_default(),
        dns_search: lease.map(|lease| lease.search.clone()).unwrap_or_default(),
        hosts: record
            .cloned
            .as_ref()
            .map(|cloned| clone::group::hosts(cloned, &spec.name))
            .unwrap_or_default(),
        volumes,
        env: spec.env.clone(),
        ulimits: spec.ulimits.clone(),
        shm: spec.shm.map(|size| size.0),
        limits,
        capabilities: spec.capabilities.clone(),
    }
}

fn place(spec: &ContainerSpec) -> Place {
    let lan = |fixed| Place::Lan { network: spec.network.clone(), fixed };
    match spec.address {
        Addressing::Dhcp => lan(None),
        Addressing::Static(fixed) => lan(Some(fixed)),
        Addressing::Nat => Place::Bridge,
        Addressing::None => Place::Nowhere,
    }
}

/// Who may look at a container's `/opt` on the host.
pub fn view_owner(record: &Record) -> ViewOwner {
    let by_person = matches!(record.spec.owner, Owner::Person(_));
    ViewOwner {
        uid: record.people.first().filter(|_| by_person).map_or(0, |account| account.uid),
        gid: record.gid,
        group_readable: !by_person,
    }
}

/// The `/opt` volume with homes, keys, licence and checkouts in its fresh upper directory, mounted.
async fn volume(host: &Host, record: &Record, gathered: &mut Gathered) -> Result<()> {
    let request = VolumeRequest {
        name: record.opt_volume().to_owned(),
        layers: gathered.layers.iter().map(Layer::id).collect(),
        view: Some(view_owner(record)),
    };
    let (opt, record, staging) = (host.opt.clone(), record.clone(), gathered.staging.take());
    blocking(move || {
        let upper = opt.new_volume(request)?;
        fill(&upper, &record, staging.as_ref())?;
        opt.finish_volume(record.opt_volume())
    })
    .await
}

/// What is the person's own below `/opt`, put there before anybody can lead it astray.
fn fill(upper: &Upper, record: &Record, staging: Option<&Staging>) -> Result<()> {
    for account in record.people.iter().filter(|account| !account.is_root()) {
        let owner = (account.uid, account.gid);
        let home = account.home();
        let home = in_opt(&home);
        upper.make_home(home, owner.0, owner.1)?;
        if let Some(keys) = authorized_keys(record, account) {
            upper.make_home(&format!("{home}/.ssh"), owner.0, owner.1)?;
            upper.write_file(&format!("{home}/.ssh/authorized_keys"), keys.as_bytes(), 0o600, owner)?;
        }
    }
    for (index, source) in record.spec.sources.iter().enumerate() {
        let staging = staging.context("the sources were not checked out")?;
        upper.move_checkout(staging, &index.to_string(), in_opt(&source.to))?;
    }
    for file in record.spec.files.iter().filter(|file| below_opt(&file.to)) {
        upper.write_file(in_opt(&file.to), &file.content, file.mode, (0, 0))?;
    }
    Ok(())
}

fn in_opt(path: &str) -> &str {
    path.trim_start_matches("/opt/")
}
