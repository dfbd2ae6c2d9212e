//! `start-registry`.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::invocation::Invocation;
use crate::registry::{CERTIFICATES, Name, Place, Started, Wanted, start, trust};

/// Start the registry of this host, or complete what is missing of it
///
/// Two servers on one storage: everybody pulls from the first without a login, publishers push to the second with one
/// (add-user). Both speak TLS with a certificate of an authority of their own, which every host that pulls or pushes has
/// to know: what to type there is printed. Started again it changes only what was asked for, and replaces a certificate
/// whose end is near.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  moorage start-registry --name registry.corp --name 10.0.0.5
  moorage start-registry --directory /srv/registry --trust
  moorage start-registry --format json | jq -r .authority")]
pub struct Args {
    /// DNS name or IPv4 address by which other hosts reach this one; may be repeated [default: as before, else its own name]
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<Name>,
    /// Port where everybody pulls [default: as before, else 5000]
    #[arg(long)]
    port: Option<u16>,
    /// Port where publishers push [default: as before, else the one above --port]
    #[arg(long, value_name = "PORT")]
    push_port: Option<u16>,
    /// Where the images are kept [default: as before, else /var/lib/moorage/registry/data]
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
    /// Have this host trust it too: its authority goes to /etc/docker/certs.d
    #[arg(long)]
    trust: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
}

pub async fn run(args: Args, invocation: &Invocation) -> Result<()> {
    super::only_root("start-registry")?;
    let place = Place::of_this_host();
    let wanted =
        Wanted { names: args.names, port: args.port, push_port: args.push_port, directory: args.directory };
    let reporter = invocation.reporter();
    let mut started = start(&place, &wanted, args.dry_run, &reporter).await?;
    if args.trust {
        for path in trust(&place, &started, Path::new(CERTIFICATES))? {
            started.changed = true;
            started.steps.push(format!("write {}", path.display()));
        }
    }
    invocation.print(&started, text)
}

fn text(started: &Started) -> String {
    if started.dry_run {
        let steps: String = started.steps.iter().map(|step| format!("{step}\n")).collect();
        return if steps.is_empty() { "The registry runs, nothing to do.\n".into() } else { steps };
    }
    let mut text = format!(
        "pull  {}   everybody\npush  {}   who was added with add-user, after docker login\n",
        started.pull.join(" "),
        started.push.join(" ")
    );
    if let Some(authority) = &started.authority {
        let hosts: Vec<&str> = started.pull.iter().chain(&started.push).map(String::as_str).collect();
        text.push_str(&format!(
            "\nA host that pulls or pushes has to know its authority. Type there, as root (here: --trust):\n\n\
             for host in {}; do\n  mkdir -p {CERTIFICATES}/$host && cat >{CERTIFICATES}/$host/ca.crt <<'END'\n{}\nEND\ndone\n",
            hosts.join(" "),
            authority.trim_end()
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_host_needs_is_said() {
        let started = Started {
            dry_run: false,
            changed: true,
            steps: vec!["write x".into()],
            pull: vec!["registry.corp:5000".into(), "10.0.0.5:5000".into()],
            push: vec!["registry.corp:5001".into(), "10.0.0.5:5001".into()],
            authority: Some("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n".into()),
        };
        insta::assert_snapshot!(text(&started));
        assert_eq!(text(&Started { dry_run: true, ..started }), "write x\n");
    }
}
