//! `make-base-image`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::engine::Engine;
use crate::image::base::{self, Lock};
use crate::image::memory::Memory;
use crate::image::{Build, STEP};
use crate::invocation::Invocation;
use crate::report::{Fault, Kind};
use crate::site::Site;

/// Make a base image: an operating system from its package repositories
///
/// The site defines it in containerauthor/bases/<os>-<release>.toml and common/repos/<os>-<release>/. When neither has
/// changed since the image was made, nothing is done. With a lock the image has exactly the packages that the lock
/// names, and the same lock makes the same image, byte for byte; a lock beside the definition, <os>-<release>.lock, is
/// always in force.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage make-base-image debian-12
  moorage make-base-image debian-12 --lock our-site/containerauthor/bases/debian-12.lock
  moorage make-base-image debian-12 --refresh")]
pub struct Args {
    /// The base, for example debian-12
    #[arg(value_name = "OS-RELEASE")]
    name: String,
    /// Make it anew although its definition is the same: there may be newer packages
    #[arg(long)]
    refresh: bool,
    /// Make what this lock names; written where it is not there, and anew with --refresh
    #[arg(long, value_name = "FILE")]
    lock: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let site = Site::of_this_host(invocation.site.as_deref())?;
    if args.dry_run {
        return invocation.print(&base::plan(&site, &args.name)?, |plan| plan.commands());
    }
    let definition = base::digest(&site.base(&args.name)?)?;
    let (file, text) = match args.lock {
        Some(file) => {
            let text = read(&file)?;
            (Some(file), text)
        }
        None => match site.lock_of(&args.name)? {
            Some((file, text)) => (Some(file), Some(text)),
            None => (None, None),
        },
    };
    let lock = match (&file, &text) {
        (Some(file), Some(text)) if !args.refresh => {
            Some(Lock::parse(&file.display().to_string(), text, &args.name, definition)?)
        }
        _ => None,
    };
    let engine = Engine::of_this_host();
    let report = invocation.reporter();
    // A lock that has to be written needs what only making the base tells.
    let writes = file.is_some() && lock.is_none();
    let refresh = args.refresh || writes;
    let secrets = Default::default();
    let build = Build { site: &site, engine: &engine, report: &report, refresh, secrets: &secrets };
    let made = base::make(build, &args.name, lock.as_ref()).await?;
    if let Some(lock) = &made.lock {
        Memory::of_this_host()?.locks()?.put(&args.name, lock)?;
        if let Some(file) = file.filter(|_| writes) {
            std::fs::write(&file, lock.text()?).with_context(|| format!("write {}", file.display()))?;
            report.end(STEP, format!("{} says what it is made of", file.display()));
        }
    }
    invocation.print(&made.built, |built| format!("{} {}\n", built.image, built.id))
}

/// The lock's text; none where there is no such file yet.
fn read(file: &Path) -> Result<Option<String>, Fault> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Fault::new(Kind::Failed, format!("{} cannot be read", file.display()))
            .why(e.to_string())
            .next(format!("ls -la {}", file.display()))),
    }
}
