//! `apply-bundle`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::registry::Place;
use crate::registry::bundle::{Applied, Apply, Trusted, Verified};
use crate::report::{Fault, Kind, Table, escape};
use crate::spec::ByteSize;

/// Take a bundle into the registry of this host
///
/// Every part is verified against the key first and while it is read. Nothing is visible in the registry before all of it is
/// there; run again after an interruption it goes on where it was, and what the registry has is not read. Ends with a report
/// of what is in the registry now.
///
/// On a host that has nothing yet: --programs takes this program, the registry's server and the authority out of the bundle.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage apply-bundle /media/usb --key bundle.pub --dry-run    # verifies each part alone
  moorage apply-bundle /media/usb --key bundle.pub --programs /usr/local/bin
  moorage apply-bundle /media/usb --key bundle.pub")]
pub struct Args {
    /// The parts, or the directory that they are in
    #[arg(value_name = "PART", required = true)]
    parts: Vec<PathBuf>,
    /// The public key that create-bundle has printed, which came by another way than the bundle
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Only take the programs and the authority out, into this directory
    #[arg(long, value_name = "DIR", conflicts_with = "dry_run")]
    programs: Option<PathBuf>,
    /// Only verify the parts that are named, each alone
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct AllVerified {
    dry_run: bool,
    parts: Vec<Verified>,
}

#[derive(Debug, Serialize)]
struct Programs {
    programs: Vec<PathBuf>,
}

/// What was done, whichever it was.
enum Done {
    Verified(AllVerified),
    Programs(Programs),
    Applied(Applied),
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let place = Place::of_this_host();
    // Whoever got a part may verify it.
    let (settings, _lock) = match args.dry_run || args.programs.is_some() {
        true => (None, None),
        false => {
            super::only_root("apply-bundle")?;
            let settings = place.started()?;
            // Nothing is collected meanwhile.
            (Some(settings), Some(place.lock().await?))
        }
    };
    let reporter = invocation.reporter();
    let work = {
        let reporter = reporter.clone();
        move || -> Result<Done> {
            let trusted = Trusted::read(&args.key)?;
            let parts = found(&args.parts)?;
            let apply = Apply { parts: &parts, trusted: &trusted, reporter: &reporter };
            Ok(match (&settings, &args.programs) {
                (_, Some(to)) => Done::Programs(Programs { programs: apply.programs(to)? }),
                (Some(settings), None) => Done::Applied(apply.run(&settings.directory)?),
                (None, None) => Done::Verified(AllVerified { dry_run: true, parts: apply.verify()? }),
            })
        }
    };
    let done = tokio::task::spawn_blocking(work).await??;
    drop(reporter);
    match done {
        Done::Verified(verified) => invocation.print(&verified, verified_text),
        Done::Programs(programs) => invocation.print(&programs, |programs| {
            programs.programs.iter().map(|path| format!("{}\n", path.display())).collect()
        }),
        Done::Applied(applied) => invocation.print(&applied, text),
    }
}

/// The files that were named, and those of directories that were, in their order.
fn found(named: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut parts = Vec::new();
    for path in named {
        if !path.is_dir() {
            parts.push(path.clone());
            continue;
        }
        let entries = std::fs::read_dir(path).with_context(|| format!("list {}", path.display()))?;
        let all: std::io::Result<Vec<PathBuf>> =
            entries.map(|entry| entry.map(|entry| entry.path())).collect();
        let mut all = all.with_context(|| format!("list {}", path.display()))?;
        all.retain(|path| path.extension().is_some_and(|extension| extension == "tar"));
        all.sort();
        if all.is_empty() {
            return Err(Fault::new(
                Kind::NotFound,
                format!("{} has no part of a bundle in it", path.display()),
            )
            .next("parts are called part-001.tar and so on")
            .into());
        }
        parts.extend(all);
    }
    Ok(parts)
}

fn verified_text(verified: &AllVerified) -> String {
    let mut table = Table::new(&["PART", "NUMBER", "BUNDLE", "ENTRIES", "SIZE", "STATE"]);
    for part in &verified.parts {
        table.row([
            part.part.display().to_string(),
            format!("{} of {}", part.number, part.of),
            part.bundle.clone(),
            part.entries.to_string(),
            ByteSize(part.bytes).to_string(),
            "as it was signed".to_owned(),
        ]);
    }
    table.text()
}

fn text(applied: &Applied) -> String {
    let mut table = Table::new(&["IMAGE", "DIGEST", "BLOBS", "STATE"]);
    for image in &applied.images {
        let state = match &image.before {
            Some(before) => format!("verified; was {before}"),
            None => "verified".to_owned(),
        };
        table.row([
            escape(&image.image).as_ref(),
            &image.digest.to_string(),
            &image.blobs.to_string(),
            &state,
        ]);
    }
    let mut text = table.text();
    text.push_str(&format!(
        "\nbundle {}: {} images, {} new blobs ({}), {} were there\n",
        applied.bundle,
        applied.images.len(),
        applied.new_blobs,
        ByteSize(applied.new_bytes),
        applied.known_blobs
    ));
    text
}
