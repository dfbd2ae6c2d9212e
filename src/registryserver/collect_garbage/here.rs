//! What this host, and the site that it has, need of the registry.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Result;

use crate::api::Client;
use crate::engine::Engine;
use crate::invocation::Invocation;
use crate::registry::Settings;
use crate::registry::collect::Used;
use crate::report::{Fault, Kind};
use crate::site::{Pinned, Site};
use crate::spec::InUse;

/// Where the daemon keeps what it knows of containers.
const RECORDS: &str = "/var/lib/moorage/containers";

/// All that must stay. Not to know is an error: what cannot be listed is not nothing.
pub async fn used(invocation: &Invocation, settings: &Settings) -> Result<Used> {
    let of_containers = of_containers(invocation).await?;
    let site = Site::of_this_host(invocation.site.as_deref())?;
    let mut used = Used { digests: of_containers.digests.into_keys().collect(), ..Used::default() };
    let hosts: BTreeSet<String> = settings
        .names
        .iter()
        .flat_map(|name| [name.at(settings.port), name.at(settings.push_port), name.as_str().to_owned()])
        .collect();
    for pinned in site.pinned()? {
        match pinned {
            Pinned::One(reference) if hosts.contains(&reference.registry) => {
                used.digests.extend(reference.digest);
                used.names.extend(reference.tag.map(|tag| format!("{}:{tag}", reference.repository)));
            }
            Pinned::All { registry, pattern } if hosts.contains(&registry) => used.patterns.push(pattern),
            _ => {}
        }
    }
    Ok(used)
}

async fn of_containers(invocation: &Invocation) -> Result<InUse> {
    match Client::connect(&invocation.socket).await {
        Ok(client) => return client.get("/v1/in-use").await,
        // A registry's host need not have containers.
        Err(error) if Fault::of(&error).kind == Kind::Missing && !has_records() => {}
        Err(error) => return Err(error.context("it is not known what the containers of this host use")),
    }
    match Path::new("/var/run/docker.sock").exists() || std::env::var_os("DOCKER_HOST").is_some() {
        true => Engine::of_this_host().manifests_in_use().await,
        false => Ok(InUse::default()),
    }
}

fn has_records() -> bool {
    std::fs::read_dir(RECORDS).is_ok_and(|mut entries| entries.next().is_some())
}
