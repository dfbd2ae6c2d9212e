//! Making one clone.

use anyhow::{Context as _, Result};

use super::{Cloning, group, interrupted};
use crate::container::build::{self, Origin};
use crate::container::record::{Cloned, Record};
use crate::container::{Host, identity, lifecycle, ready, undo};
use crate::failpoint;
use crate::lan::LeaseView;
use crate::opt::{Kind, LayerId, Merged, Person, VolumeRequest};
use crate::report::{Fault, Reporter};

/// Makes the clone, and starts it unless it is not to be. On failure nothing of it is left.
pub async fn make(
    host: &Host,
    (record, lease): (&Record, Option<&LeaseView>),
    (base, layers): (&Origin, &[LayerId]),
    cloning: &Cloning,
) -> Result<()> {
    let name = record.spec.name.as_str();
    let made = async {
        if cloning.cancel.is_cancelled() {
            return Err(interrupted(name).into());
        }
        let mut record = record.clone();
        volumes(host, &record, layers, cloning.caller.person()).await?;
        failpoint::reach("clone-volume");
        record.engine_id = build::engine_container(host, &record, base, lease).await?;
        failpoint::reach("clone-created");
        let done = Record { intent: None, ..record };
        if !cloning.start {
            return host.records.put(name, &done);
        }
        host.engine.start(name).await?;
        // Its record is written while it boots: from now on a kill leaves a container that only has to be waited for.
        let (records, written) = (&host.records, &done);
        tokio::select! {
            up = async { tokio::try_join!(lifecycle::up(host, written), async { records.put(name, written) }) } => up.map(drop),
            () = cloning.cancel.cancelled() => Err(interrupted(name).into()),
        }
    };
    let made: Result<()> = made.await;
    if made.is_err() {
        // The record may say by now that it is made. Where that cannot be mended, the container goes all the same.
        if let Err(error) = host.records.put(name, record) {
            tracing::warn!("{error:#}");
        }
        undo::take_apart(host, record).await;
    }
    made
}

/// Waits for the project's own check in a clone that was started; what it says where it does not succeed. The clone stays,
/// for its owner to look at.
pub async fn ready(host: &Host, record: &Record, cloning: &Cloning) -> Option<Fault> {
    let check = record.spec.ready.as_ref().filter(|_| cloning.start)?;
    let (name, silent) = (record.spec.name.as_str(), Reporter::silent());
    let waited = tokio::select! {
        waited = ready::project(host, record, check, &silent) => waited,
        () = cloning.cancel.cancelled() => Err(interrupted(name).into()),
    };
    waited.err().map(|error| Fault::of(&error))
}

/// `/opt` on the source's layers with a directory of its own, and the source's mapped host directories, for whoever mapped
/// them; where the source is gone, for `caller`.
async fn volumes(host: &Host, record: &Record, layers: &[LayerId], caller: Person) -> Result<()> {
    let cloned = record.cloned.clone().context("a clone knows what it was cloned from")?;
    let request = VolumeRequest {
        name: record.opt_volume().to_owned(),
        layers: layers.to_owned(),
        view: Some(build::view_owner(record)),
    };
    let (opt, record) = (host.opt.clone(), record.clone());
    build::blocking(move || {
        drop(opt.new_volume(request)?);
        opt.finish_volume_with(record.opt_volume(), |merged| join(merged, &record, &cloned))?;
        let volumes = opt.volumes()?;
        for (index, mount) in record.spec.mounts.iter().enumerate() {
            let of_source = format!("{}.mount{index}", cloned.from);
            let person = volumes.iter().find(|(name, _)| *name == of_source).and_then(|(_, volume)| {
                match &volume.kind {
                    Kind::Bind { source, person, .. } if *source == mount.source => Some(person),
                    _ => None,
                }
            });
            let name = record.mount_volume(index);
            opt.new_bind(&name, mount.source.as_ref(), person.unwrap_or(&caller), mount.read_only)?;
        }
        Ok(())
    })
    .await
}

/// Puts the group's key into the homes that are in `/opt`, and lets whoever has it in.
fn join(merged: &Merged, record: &Record, cloned: &Cloned) -> Result<()> {
    for account in record.people.iter().filter(|account| !account.is_root()) {
        let (home, owner) = (account.home(), (account.uid, account.gid));
        let home = home.trim_start_matches("/opt/");
        let put = || -> Result<()> {
            // In a snapshot from elsewhere nobody of this host has a home yet.
            merged.make_directory("home", 0o755, (0, 0))?;
            merged.make_directory(home, 0o750, owner)?;
            merged.make_directory(&format!("{home}/.ssh"), 0o700, owner)?;
            let keys = format!("{home}/.ssh/authorized_keys");
            let authorized = match merged.read_file(&keys)? {
                Some(authorized) => authorized,
                None => identity::authorized_keys(record, account).unwrap_or_default().into_bytes(),
            };
            merged.write_file(&keys, &group::with_key(&authorized, cloned), 0o600, owner)?;
            merged.write_file(&format!("{home}/{}", group::KEY), cloned.key.private.as_bytes(), 0o600, owner)
        };
        // A home that its owner has made a link of, or removed, is no reason to have no clone.
        if let Err(error) = put() {
            tracing::warn!("{}: {} has no key of the group: {error:#}", record.spec.name, account.name);
        }
    }
    Ok(())
}
