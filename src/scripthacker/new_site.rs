//! `new-site`.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use include_dir::{Dir, include_dir};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::report::{Fault, Kind};

/// What a new site begins with.
static BEGIN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates/site");

/// Begin a site: a directory for your projects, images and package repositories
///
/// It is laid out like the built-in definitions, which stay in force where it says nothing. JSON schemas and a
/// .taplo.toml are there so that an editor completes keys and marks mistakes.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage new-site ~/our-site
  moorage new-project siem --site ~/our-site")]
pub struct Args {
    /// The directory; one that exists has to be empty
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Say what would be written, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Begun {
    site: PathBuf,
    files: Vec<PathBuf>,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let site = args.directory;
    let used = std::fs::read_dir(&site).is_ok_and(|mut entries| entries.next().is_some());
    if used || (site.exists() && !site.is_dir()) {
        return Err(Fault::new(Kind::Differs, format!("{} is not an empty directory", site.display()))
            .next("name another one, or add a project there: moorage new-project NAME --site DIR")
            .into());
    }
    let mut files = Vec::new();
    collect(&BEGIN, &mut files);
    if !args.dry_run {
        for (name, content) in &files {
            let path = site.join(name);
            let above = path.parent().context("a file has a directory")?;
            std::fs::create_dir_all(above).with_context(|| format!("make {}", above.display()))?;
            std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
    }
    let begun = Begun { files: files.into_iter().map(|(name, _)| site.join(name)).collect(), site };
    invocation.print(&begun, |begun| {
        let files: String = begun.files.iter().map(|file| format!("{}\n", file.display())).collect();
        format!("{files}next: moorage new-project NAME --site {}\n", begun.site.display())
    })
}

fn collect(directory: &Dir<'static>, files: &mut Vec<(PathBuf, &'static [u8])>) {
    files.extend(directory.files().map(|file| (file.path().to_owned(), file.contents())));
    directory.dirs().for_each(|directory| collect(directory, files));
}
