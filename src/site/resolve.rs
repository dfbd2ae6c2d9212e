//! A request and the definitions → one validated [`ContainerSpec`]. The same input resolves to the same specification.

use std::collections::BTreeSet;

use super::Site;
use super::nearest::not_found;
use super::substitute::Values;
use super::validate::{Licence, validate};
use crate::report::{Fault, Kind};
use crate::spec::{Addressing, ContainerName, ContainerSpec, FileSpec, Limits, MountSpec, Owner};

/// What `make-dev-container` was asked for.
#[derive(Debug, Clone)]
pub struct Request {
    pub project: String,
    pub branch: String,
    /// In the order they stack.
    pub patches: Vec<String>,
    pub owner: Owner,
    /// Replaces `<project>-<branch>` in the container's name.
    pub name: Option<String>,
    /// Beyond those of the project.
    pub mounts: Vec<MountSpec>,
    /// The project's kind where absent, else the host's usual one.
    pub address: Option<Addressing>,
    /// Who asks.
    pub user: String,
    /// The people in the owning group; they may log in too.
    pub members: Vec<String>,
    /// Public keys of `user` beyond the one in the site (`~/.ssh/*.pub`), as lines.
    pub keys: Vec<String>,
}

/// What `make-os-container` was asked for: a base or any image of the site, without a project. See [`Request`].
#[derive(Debug, Clone)]
pub struct OsRequest {
    pub image: String,
    pub owner: Owner,
    pub name: Option<String>,
    pub mounts: Vec<MountSpec>,
    pub address: Option<Addressing>,
    pub user: String,
    pub members: Vec<String>,
    pub keys: Vec<String>,
}

impl Site {
    /// The specification of a project's container.
    ///
    /// Unknown project, branch, image or patch: [`Kind::NotFound`] with the nearest name. A mistake in a file:
    /// [`Kind::Usage`] with file, line and column.
    pub fn resolve(&self, request: &Request) -> Result<ContainerSpec, Fault> {
        let project = self.project(&request.project)?;
        let settings = project.branch(&request.branch)?;
        let values = Values {
            project: Some(&request.project),
            branch: Some(&request.branch),
            owner: Some(request.owner.bare()),
        };
        let valid = validate(&project.source, &settings, &values)?;
        let image = self.image_of(&project, &valid)?;
        let mut opt = valid.opt;
        for (at, patch) in request.patches.iter().enumerate() {
            let Some(archives) = valid.patches.get(patch) else {
                let sort = format!("patch of {} {}", request.project, request.branch);
                return Err(not_found(&sort, patch, valid.patches.keys().map(String::as_str)));
            };
            if request.patches[..at].contains(patch) {
                return Err(Fault::new(Kind::Usage, format!("patch {patch:?} is asked for twice"))
                    .next("the same command with --patch once for each patch"));
            }
            opt.extend(archives.iter().cloned());
        }
        let name = match &request.name {
            Some(name) => container_name(&[name], &request.owner)?,
            None => container_name(&[&request.project, &request.branch], &request.owner)?,
        };
        let people = people(&request.owner, &request.user, &request.members);
        let mounts = valid.mounts.into_iter().chain(request.mounts.iter().cloned()).collect::<Vec<_>>();
        distinct("mount", mounts.iter().map(|m| m.target.as_str()))?;
        distinct("source", valid.sources.iter().map(|s| s.to.as_str()))?;
        distinct("licence", valid.licences.iter().map(|l| l.to.as_str()))?;
        Ok(ContainerSpec {
            name,
            owner: request.owner.clone(),
            project: request.project.clone(),
            branch: request.branch.clone(),
            patches: request.patches.clone(),
            image,
            opt,
            sources: valid.sources,
            files: valid
                .licences
                .iter()
                .map(|licence| self.licence(licence))
                .collect::<Result<_, Fault>>()?,
            authorized_keys: self.authorized_keys(&people, &request.user, &request.keys)?,
            env: valid.env,
            ulimits: valid.ulimits,
            shm: valid.shm,
            limits: valid.limits,
            mounts,
            capabilities: valid.capabilities,
            setup: valid.setup,
            ready: valid.ready,
            network: self.host.network.clone(),
            address: request.address.or(valid.address).unwrap_or(self.host.address),
        })
    }

    /// The specification of a vanilla container of an image.
    pub fn os_spec(&self, request: &OsRequest) -> Result<ContainerSpec, Fault> {
        let people = people(&request.owner, &request.user, &request.members);
        distinct("mount", request.mounts.iter().map(|m| m.target.as_str()))?;
        Ok(ContainerSpec {
            name: container_name(&[request.name.as_ref().unwrap_or(&request.image)], &request.owner)?,
            owner: request.owner.clone(),
            project: String::new(),
            branch: String::new(),
            patches: Vec::new(),
            image: self.image_reference(&request.image)?,
            opt: Vec::new(),
            sources: Vec::new(),
            files: Vec::new(),
            authorized_keys: self.authorized_keys(&people, &request.user, &request.keys)?,
            env: Default::default(),
            ulimits: Default::default(),
            shm: None,
            limits: Limits::default(),
            mounts: request.mounts.clone(),
            capabilities: Vec::new(),
            setup: Vec::new(),
            ready: None,
            network: self.host.network.clone(),
            address: request.address.unwrap_or(self.host.address),
        })
    }

    fn licence(&self, licence: &Licence) -> Result<FileSpec, Fault> {
        let found = self.files.read(&format!("dockeruser/{}", licence.file)).map_err(|mut fault| {
            fault.what = format!("{}: {}", licence.place, fault.what);
            fault
        })?;
        match found {
            Some(found) => Ok(FileSpec { to: licence.to.clone(), mode: licence.mode, content: found.bytes }),
            None => Err(Fault::new(
                Kind::NotFound,
                format!("{}: the site has no dockeruser/{}", licence.place, licence.file),
            )
            .next("put the file there, then run the same command again")),
        }
    }
}

fn container_name(parts: &[&str], owner: &Owner) -> Result<ContainerName, Fault> {
    ContainerName::join(parts, owner)
        .map_err(|e| Fault::new(Kind::Usage, e.to_string()).next("choose another --name"))
}

/// Who may log in: the owner; of a group, the one who asks and its members.
fn people(owner: &Owner, user: &str, members: &[String]) -> BTreeSet<String> {
    match owner {
        Owner::Person(person) => [person.clone()].into(),
        Owner::Group(_) => members.iter().cloned().chain([user.to_owned()]).collect(),
    }
}

/// Two things cannot go to the same place.
pub(super) fn distinct<'a>(sort: &str, places: impl Iterator<Item = &'a str>) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for place in places {
        if !seen.insert(place) {
            return Err(Fault::new(Kind::Usage, format!("more than one {sort} goes to {place}"))
                .next("leave all but one out, in the project's file or on the command line"));
        }
    }
    Ok(())
}
