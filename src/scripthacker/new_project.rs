//! `new-project`.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use minijinja::{Environment, context};
use serde::Serialize;

use crate::invocation::Invocation;
use crate::report::{Fault, Kind};
use crate::site::Site;

const TEMPLATE: &str = include_str!("../../templates/project.toml.j2");

/// Add a project to the site: a file that is right, to be filled in
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage new-project siem --site ~/our-site --image demo --repo ssh://git@git.corp/siem.git
  moorage new-project siem --dry-run")]
pub struct Args {
    /// Its name: small letters, digits and dashes
    #[arg(value_name = "PROJECT")]
    name: String,
    /// The image of its containers, of the site or a full reference
    #[arg(long, default_value = "demo")]
    image: String,
    /// Its /opt archive, for example oci://registry.corp/opt/siem:{branch}
    #[arg(long, value_name = "URL")]
    opt: Option<String>,
    /// Its git repository
    #[arg(long, value_name = "URL")]
    repo: Option<String>,
    /// Print the file, and write nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Serialize)]
struct Added {
    project: String,
    file: PathBuf,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if args.name.is_empty() || !args.name.chars().all(good) || args.name.starts_with('-') {
        return Err(Fault::new(Kind::Usage, format!("{:?} is not the name of a project", args.name))
            .next("small letters, digits and dashes: it begins the names of its containers")
            .into());
    }
    let site = Site::of_this_host(invocation.site.as_deref())?;
    site.image_reference(&args.image)?;
    let mut templates = Environment::new();
    // Values go into TOML strings.
    let quote = |text: &str| toml::Value::String(text.to_owned()).to_string();
    let values = context! {
        name => &args.name,
        image => quote(&args.image),
        opt => args.opt.as_deref().map(quote),
        repo => args.repo.as_deref().map(quote),
    };
    templates.add_template("project", TEMPLATE).context("read the template")?;
    let text = templates
        .get_template("project")
        .and_then(|template| template.render(values))
        .context("write the project")?;
    // The template's last line end is not rendered.
    let text = text.trim_end().to_owned() + "\n";
    if args.dry_run {
        return invocation
            .print(&serde_json::json!({ "project": args.name, "text": text }), |_| text.clone());
    }
    let Some(directory) = site.files().directory() else {
        return Err(Fault::new(Kind::Usage, "there is no site to add it to")
            .next("moorage new-site DIR, then the same command with --site DIR")
            .into());
    };
    let file = directory.join("dockeruser/projects").join(format!("{}.toml", args.name));
    let above = file.parent().context("a file has a directory")?;
    std::fs::create_dir_all(above).with_context(|| format!("make {}", above.display()))?;
    let written = std::fs::File::options().write(true).create_new(true).open(&file);
    let mut written = match written {
        Ok(written) => written,
        Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
            let what = format!("{} exists already", file.display());
            return Err(Fault::new(Kind::Differs, what).next("edit it, or name another project").into());
        }
        Err(e) => return Err(e).with_context(|| format!("write {}", file.display())),
    };
    written.write_all(text.as_bytes()).with_context(|| format!("write {}", file.display()))?;
    // What the person typed may still be wrong: an archive without a digest, for instance.
    if let Some(fault) = site.check_project(&args.name).0.into_iter().next() {
        std::fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))?;
        return Err(fault.into());
    }
    invocation.print(&Added { project: args.name, file }, |added| {
        format!("{}\nnext: edit it, then: moorage check-site\n", added.file.display())
    })
}
