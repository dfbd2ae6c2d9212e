//! Snapshots that were published in a registry: what is written there of one, and making containers of it on this host or
//! another.

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::record::Root;
use super::snapshot::Snapshot;
use super::{Caller, Host, Record, check, clone, make};
use crate::api::CloneResult;
use crate::oci::{Artifact, Registry};
use crate::report::{Fault, Kind, Reporter};
use crate::spec::{Archive, ContainerName, ContainerSpec, Digest, Owner, Reference, SnapshotName};

/// The most bytes that are read of what is written of a snapshot: a specification with its licences.
const LARGEST: u64 = 16 << 20;

/// What is written of a snapshot beside its files. It comes from whoever published it, so nothing in it is believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub schema: u32,
    pub name: SnapshotName,
    pub made: Timestamp,
    /// Of the container as it was.
    pub spec: ContainerSpec,
    /// The image that its root filesystem was written over, by its id.
    pub image_id: String,
    /// The image that is its root filesystem, by the digest it has in the registry.
    pub root: Digest,
}

/// The version of [`Description`]'s layout.
const SCHEMA: u32 = 1;

impl Description {
    pub fn of(snapshot: &Snapshot, root: Digest) -> Description {
        Description {
            schema: SCHEMA,
            name: snapshot.name.clone(),
            made: snapshot.made,
            // Keys are of people who may log in there.
            spec: ContainerSpec { authorized_keys: Default::default(), ..snapshot.of.spec.clone() },
            image_id: snapshot.root.image_id.clone(),
            root,
        }
    }

    fn read(bytes: &[u8], of: &Reference) -> Result<Description> {
        let unreadable = |why: String| {
            Fault::new(Kind::Failed, format!("oci://{of} cannot be read as a snapshot")).why(why)
        };
        #[derive(Deserialize)]
        struct Layout {
            schema: u32,
        }
        let layout: Layout = serde_json::from_slice(bytes).map_err(|e| unreadable(e.to_string()))?;
        if layout.schema != SCHEMA {
            return Err(unreadable(format!("its layout is {}, this moorage reads {SCHEMA}", layout.schema))
                .next("install the moorage it was published with")
                .into());
        }
        Ok(serde_json::from_slice(bytes).map_err(|e| unreadable(e.to_string()))?)
    }
}

/// For whom containers are made of a published snapshot.
pub struct For {
    pub caller: Caller,
    pub owner: Owner,
    /// Lines of `authorized_keys` of the caller.
    pub keys: Vec<String>,
}

/// A published snapshot, of which only the description is here.
pub struct Published {
    of: Reference,
    description: Description,
    /// As the container would be here that it is a snapshot of.
    pub source: Record,
}

/// Looks one up, for somebody who wants a container of it.
pub async fn find(host: &Host, of: &Reference, wanted: For) -> Result<Published> {
    check::registry_of(of, &host.config)?;
    let registry = Registry::open(&of.registry, &crate::oci::Access::of_docker()).await?;
    let manifest = registry.manifest(of).await?;
    // From here on a tag that is moved changes nothing.
    let of = Reference { digest: Some(manifest.digest), ..of.clone() };
    let description = Artifact::read(&manifest)?.description()?;
    let description = Description::read(&registry.small_blob(&of, &description, LARGEST).await?, &of)?;
    let mut spec = description.spec.clone();
    let front = clone::names::front(&spec.name, &spec.owner).to_owned();
    spec.name = ContainerName::join(&[&front], &wanted.owner)
        .map_err(|e| Fault::new(Kind::Usage, e.to_string()).next("another --name"))?;
    spec.owner = wanted.owner;
    spec.network = host.config.network.clone();
    // Its /opt is all in the snapshot.
    (spec.opt, spec.sources, spec.patches) = (Vec::new(), Vec::new(), Vec::new());
    spec.authorized_keys = [(wanted.caller.account.name.clone(), wanted.keys)].into();
    check::check(&spec, &host.config)?;
    let mut source = make::record_of(host, spec, &wanted.caller).await?;
    source.intent = None;
    source.setup = super::Setup::Done;
    Ok(Published { of, description, source })
}

impl Published {
    /// Brings it here and makes the containers.
    pub async fn containers(
        &self,
        host: &Host,
        names: &[ContainerName],
        cloning: &clone::Cloning,
    ) -> Result<CloneResult> {
        let Published { of, description, source } = self;
        let archive = Archive { url: format!("oci://{of}"), sha256: None };
        let person = cloning.caller.person();
        let brought = async {
            tokio::try_join!(
                host.opt.fetch(&archive, &person, &cloning.report),
                bring_root(host, of, &description.root, &cloning.report),
            )
        };
        let (layer, key) = tokio::select! {
            brought = brought => brought?,
            () = cloning.cancel.cancelled() => {
                return Err(clone::interrupted(&format!("oci://{of}")).into());
            }
        };
        let snapshot = Snapshot {
            name: description.name.clone(),
            of: source.clone(),
            made: description.made,
            root: Root { key: key.key.clone(), image_id: description.image_id.clone() },
            layers: vec![layer.id()],
        };
        let made = clone::from_snapshot(host, &snapshot, names, cloning).await;
        // Until here they were kept from being collected.
        drop((layer, key));
        made
    }
}

/// The root filesystem, pulled where it is not here; answers its key, held.
async fn bring_root(
    host: &Host,
    of: &Reference,
    digest: &Digest,
    report: &Reporter,
) -> Result<super::roots::HeldKey> {
    let reference = format!("{}/{}@{digest}", of.registry, of.repository);
    report.begin("image", format!("pulling the root filesystem of {of}"));
    host.engine.pull(&reference, report).await?;
    let key = host.engine.root_key(&reference).await?.with_context(|| {
        Fault::new(Kind::Failed, format!("{reference} is not the root filesystem of a snapshot"))
            .next("publish the snapshot again")
    })?;
    let held = host.held_roots.hold(&key);
    host.engine.adopt_root(&reference, &key).await?;
    report.end("image", "the root filesystem is here");
    Ok(held)
}
