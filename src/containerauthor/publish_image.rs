//! `publish-image`.

use anyhow::{Context as _, Result};
use bollard::query_parameters::TagImageOptions;

use crate::engine::Engine;
use crate::image::publish::image;
use crate::image::squash;
use crate::invocation::Invocation;
use crate::oci::Access;
use crate::report::{Fault, Kind};
use crate::site::Site;
use crate::spec::Reference;
use crate::spec::plan::{Plan, Step};

/// Publish an image to the registry
///
/// Who asks is who Docker's configuration says: docker login and its credential helpers. Layers that the registry has are
/// not sent; after an interruption the same command sends what is missing.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage publish-image siem-el9
  moorage publish-image siem-el9 --to registry.corp:5000/siem-el9:rc1")]
pub struct Args {
    /// An image or base of the site, or a full reference
    #[arg(value_name = "IMAGE")]
    name: String,
    /// Publish it under this reference
    #[arg(long, value_name = "REFERENCE")]
    to: Option<String>,
    /// Make one layer of all that it has above its base, for instance of what was saved from a container
    #[arg(long)]
    squash: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let site = Site::of_this_host(invocation.site.as_deref())?;
    let from = site.image_reference(&args.name)?;
    let to = args.to.clone().unwrap_or_else(|| from.clone());
    let to: Reference = to.parse().map_err(|e: crate::spec::reference::BadReference| {
        Fault::new(Kind::Usage, format!("{to} is in no registry: {e}"))
            .next("name one with --to HOST/REPOSITORY:TAG, or set `registry` in /etc/moorage/config.toml")
    })?;
    if to.digest.is_some() {
        let what = format!("{to}: the registry says what the digest is");
        return Err(Fault::new(Kind::Usage, what).next("name a tag").into());
    }
    let to = Reference { tag: Some(to.tag.clone().unwrap_or_else(|| "latest".to_owned())), ..to };
    if args.dry_run {
        return invocation.print(&plan(&from, &to), |plan| plan.commands());
    }
    let engine = Engine::of_this_host();
    let report = invocation.reporter();
    if to.to_string() != from {
        if engine.image(&from).await?.is_none() {
            return Err(Fault::new(Kind::NotFound, format!("the image {from} is not here"))
                .next("moorage list-images")
                .into());
        }
        let name = format!("{}/{}", to.registry, to.repository);
        let names = TagImageOptions { repo: Some(name), tag: to.tag.clone() };
        let named = engine.docker().await?.tag_image(&from, Some(names)).await;
        named.with_context(|| format!("name {from} {to}"))?;
    }
    if args.squash {
        squash::squash(&engine, &to.to_string(), &report).await?;
    }
    let published = image::publish(&engine, &to, &Access::of_docker(), &report).await?;
    drop(report);
    invocation.print(&published, |published| format!("{}@{}\n", published.image, published.digest))
}

fn plan(from: &str, to: &Reference) -> Plan {
    let mut shell = Vec::new();
    if to.to_string() != from {
        shell.push(format!("docker tag {from} {to}"));
    }
    shell.push(format!("docker push {to}"));
    Plan {
        steps: vec![Step {
            stage: 0,
            step: "publish".into(),
            text: format!("push {from} as {to}"),
            bytes: None,
            shell,
        }],
    }
}
