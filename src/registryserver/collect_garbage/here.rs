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
use crate::site::Site;
use crate::spec::{InUse, Reference};

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
    for reference in named(&site)? {
        if !hosts.contains(&reference.registry) {
            continue;
        }
        used.digests.extend(reference.digest);
        used.names.extend(reference.tag.map(|tag| format!("{}:{tag}", reference.repository)));
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

/// What the site's projects name, and what its images and bases are called.
fn named(site: &Site) -> Result<Vec<Reference>> {
    let mut texts = Vec::new();
    for project in site.projects()? {
        for branch in project.branches {
            texts.push(branch.image);
            texts.extend(branch.opt.into_iter().map(|archive| archive.url));
        }
    }
    for name in site.images()?.into_iter().chain(site.bases()?) {
        texts.push(site.image_reference(&name)?);
    }
    // A glob's branch is not in the text yet, and other names are no registry's.
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}
