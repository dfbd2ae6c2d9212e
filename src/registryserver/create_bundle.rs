//! `create-bundle`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::invocation::Invocation;
use crate::registry::Place;
use crate::registry::bundle::{Create, Created, Program, Signer};
use crate::report::{Table, escape};
use crate::spec::ByteSize;

/// Write what the registry has into files that cross to where no network goes
///
/// Images and /opt archives with all they consist of, this program, the registry's server and the registry's authority: an
/// OCI image layout in tar files, the parts, each of which is signed and verified alone. Run again after an interruption it
/// writes the parts that are missing. The registry goes on serving.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage create-bundle /media/usb
  moorage create-bundle /media/usb 'siem*:9.2' 'opt/siem:9.2' --part-size 4GB
  moorage apply-bundle /media/usb --key bundle.pub    # there")]
pub struct Args {
    /// The directory for the parts: part-001.tar, …
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// What goes along: patterns of repository:tag [default: everything]
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// The most that a part may have
    #[arg(long, value_name = "SIZE", default_value = "4GB")]
    part_size: ByteSize,
    /// The OpenSSH private key to sign with (ed25519, no passphrase) [default: the registry's own, made when it is missing]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Leave the programs and the authority out
    #[arg(long)]
    only_images: bool,
    /// Only say what would be written
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    super::only_root("create-bundle")?;
    let place = Place::of_this_host();
    let settings = place.started()?;
    // Nothing is collected meanwhile.
    let _lock = place.lock().await?;
    let reporter = invocation.reporter();
    let write = {
        let (reporter, place) = (reporter.clone(), place.clone());
        move || -> Result<Created> {
            let signer = match &args.key {
                Some(path) => Signer::read(path)?,
                None => Signer::read_or_make(&place.bundle_key())?,
            };
            let programs = if args.only_images { Vec::new() } else { programs(&place)? };
            if !args.dry_run {
                std::fs::create_dir_all(&args.directory)
                    .with_context(|| format!("make {}", args.directory.display()))?;
            }
            let create = Create {
                directory: &settings.directory,
                patterns: &args.images,
                limit: args.part_size.0,
                signer: &signer,
                programs: &programs,
                reporter: &reporter,
            };
            create.run(&args.directory, args.dry_run)
        }
    };
    let created = tokio::task::spawn_blocking(write).await??;
    drop(reporter);
    invocation.print(&created, text)
}

/// What a host without a network needs beside the images.
fn programs(place: &Place) -> Result<Vec<Program>> {
    let own = std::env::current_exe().context("find this program")?;
    let program = |name: &str, path: PathBuf| Program { name: format!("programs/{name}"), path };
    Ok(vec![
        program("moorage", own),
        program("docker-registry", crate::registry::program()?.into()),
        program("ca.crt", place.authority()),
    ])
}

fn text(created: &Created) -> String {
    let mut table = Table::new(&["IMAGE", "DIGEST"]);
    for image in &created.images {
        table.row([escape(&image.name()).as_ref(), &image.digest.to_string()]);
    }
    let mut text = table.text();
    text.push_str(&format!(
        "\nbundle {}: {} in {} parts\n",
        created.bundle,
        ByteSize(created.bytes),
        created.parts.len()
    ));
    for part in &created.parts {
        text.push_str(&format!("{}\n", part.display()));
    }
    text.push_str(&format!(
        "\nWho applies it needs this key, by another way than the bundle:\n\n{}\n",
        created.key
    ));
    text
}
