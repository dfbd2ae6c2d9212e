//! `make-os-container`.

use anyhow::Result;

use super::definitions::site;
use super::make::{self, Wishes};
use crate::invocation::Invocation;
use crate::site::OsRequest;

/// Make a container of a plain OS: a base or any image of the site, without a project
///
/// It gets its own address, your user and keys. Its first process is the image's init, else Docker's.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage make-os-container debian-12
  moorage make-os-container debian-12 --name scratch")]
pub struct Args {
    /// A base or image of the site
    image: String,
    #[command(flatten)]
    wishes: Wishes,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let Args { image, wishes } = args;
    let people = wishes.people()?;
    let spec = site(invocation)?.os_spec(&OsRequest {
        image,
        owner: people.owner,
        name: wishes.name.clone(),
        mounts: wishes.mounts.clone(),
        address: wishes.address,
        user: people.user,
        members: people.members,
        keys: people.keys,
    })?;
    make::run(spec, &wishes, invocation).await
}
