//! What to do, decided from what was seen. Pure.

use std::path::PathBuf;

use anyhow::Result;
use minijinja::context;

use crate::report::{Fault, Kind};
use crate::service::render;

use super::Args;
use super::observe::{Binary, CONFIG, Configured, Lan, Link, PROGRAM, SITE, SPEC, Seen, UNITS};
use super::parent;
use super::site::Checkout;

/// One thing to do. Each may be repeated without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    InstallEngine,
    StartEngine {
        systemd: bool,
    },
    InstallProgram {
        from: PathBuf,
    },
    Link {
        names: Vec<String>,
    },
    CloneSite {
        url: String,
    },
    /// Fast-forward only: what somebody changed there is theirs to sort out.
    UpdateSite {
        url: String,
    },
    Write {
        path: &'static str,
        text: String,
    },
    EnableUnits,
    StartDaemon {
        systemd: bool,
    },
    /// An upgrade: containers go on running.
    RestartDaemon {
        systemd: bool,
    },
    MakeNetwork {
        name: String,
        parent: String,
        vlan: Option<u16>,
    },
}

/// Where moorage keeps its state, and its store unless the configuration says otherwise.
const STATE: &str = "/var/lib/moorage";
const STORAGE: &str = "/opt/containers";
/// What Docker calls the LAN unless somebody wants another name.
pub(super) const DEFAULT_NETWORK: &str = "lan";

pub fn plan(args: &Args, seen: &Seen) -> Result<Vec<Step>> {
    let parent = chosen_parent(args, seen)?;
    check_configured(args, seen)?;
    if let Some(parent) = &parent {
        check_network(args, seen, parent)?;
    }
    check_links(seen)?;
    let mut steps = engine(seen)?;
    if seen.binary != Binary::Installed {
        steps.push(Step::InstallProgram { from: seen.program.clone() });
    }
    let missing = seen.links.iter().filter(|(_, link)| **link == Link::Missing);
    let names: Vec<_> = missing.map(|(name, _)| name.clone()).collect();
    if !names.is_empty() {
        steps.push(Step::Link { names });
    }
    steps.extend(site(args, seen)?);
    let units = files(args, seen, parent.as_deref(), &mut steps)?;
    let systemd = seen.systemd;
    if systemd && (units || !seen.units_enabled) {
        steps.push(Step::EnableUnits);
    }
    match seen.daemon_answers {
        false => steps.push(Step::StartDaemon { systemd }),
        true if units || seen.binary != Binary::Installed => steps.push(Step::RestartDaemon { systemd }),
        true => {}
    }
    if let Some(parent) = parent
        && !matches!(seen.lan, Lan::There(_))
    {
        let (name, vlan) = (args.network.clone(), seen.configured.vlan);
        steps.push(Step::MakeNetwork { name, parent, vlan });
    }
    Ok(steps)
}

/// The parent that holds from now on; none where there is no LAN.
fn chosen_parent(args: &Args, seen: &Seen) -> Result<Option<String>> {
    let without = args.no_lan || seen.configured.address.as_deref().is_some_and(|kind| kind != "dhcp");
    let chosen = match (&args.parent, &seen.configured.parent) {
        (_, Some(configured)) if args.no_lan => {
            return Err(Fault::new(Kind::Differs, format!("this host's LAN interface is {configured}"))
                .why(format!("{CONFIG} says so"))
                .next(format!("write address = \"nat\" into {CONFIG}, then run this again without --no-lan"))
                .into());
        }
        (None, None) if without => return Ok(None),
        (Some(asked), Some(configured)) if asked != configured => {
            return Err(Fault::new(Kind::Differs, format!("this host's LAN interface is {configured}, not {asked}"))
                .why(format!("{CONFIG} says so"))
                .next(format!(
                    "remove the containers and `docker network rm {}`, write parent = \"{asked}\" into {CONFIG}, then run this again",
                    args.network
                ))
                .into());
        }
        (Some(parent), _) | (None, Some(parent)) => parent.clone(),
        (None, None) => {
            return Err(Fault::new(Kind::Usage, "which interface is plugged into the LAN?")
                .next(parent::suggestion(&seen.usable))
                .into());
        }
    };
    match &seen.parent_fault {
        Some(fault) => Err(fault.clone().into()),
        None => Ok(Some(chosen)),
    }
}

/// The configuration is the admin's once it is there: what was asked for is written there by them, or it would hold for
/// this once and no longer.
fn check_configured(args: &Args, seen: &Seen) -> Result<()> {
    let Configured { parent, network, site, address, .. } = &seen.configured;
    let line = match &args.parent {
        _ if matches!(seen.files.get(CONFIG), None | Some(None)) => return Ok(()),
        // Another parent than the configured one is refused before.
        Some(asked) if parent.is_none() => format!("parent = \"{asked}\""),
        Some(_) if address.as_deref().is_some_and(|kind| kind != "dhcp") => "address = \"dhcp\"".to_owned(),
        None if args.no_lan && address.is_none() => "address = \"nat\"".to_owned(),
        _ if parent.is_some() && network.as_deref().unwrap_or(DEFAULT_NETWORK) != args.network => {
            format!("network = \"{}\"", args.network)
        }
        _ if args.site_repo.is_some() && site.as_deref() != Some(SITE) => format!("site = \"{SITE}\""),
        _ => return Ok(()),
    };
    Err(Fault::new(Kind::Differs, format!("{CONFIG} does not say {line}"))
        .next(format!("write {line} into {CONFIG}, then run this again"))
        .into())
}

fn check_network(args: &Args, seen: &Seen, parent: &str) -> Result<()> {
    let Lan::There(network) = &seen.lan else { return Ok(()) };
    let there = network.options.get("parent").map(String::as_str);
    let tag = network.options.get("vlan").and_then(|id| id.parse().ok());
    let why = match there {
        _ if network.driver != crate::engine::DRIVER => format!("its driver is {}", network.driver),
        Some(there) if there == parent && tag == seen.configured.vlan => return Ok(()),
        Some(there) if there == parent => {
            tag.map_or("it is not tagged".to_owned(), |id: u16| format!("it hangs on VLAN {id}"))
        }
        Some(there) => format!("it hangs on {there}"),
        None => "it names no parent interface".into(),
    };
    let what = format!("Docker has a network called {} that is not moorage's LAN on {parent}", args.network);
    let next = format!(
        "`docker network rm {0}` once no container uses it, then run this again; or choose another name with --network",
        args.network
    );
    Err(Fault::new(Kind::Differs, what).why(why).next(next).into())
}

fn check_links(seen: &Seen) -> Result<()> {
    let foreign: Vec<_> =
        seen.links.iter().filter(|(_, l)| **l == Link::Foreign).map(|(name, _)| name.as_str()).collect();
    if foreign.is_empty() {
        return Ok(());
    }
    Err(Fault::new(Kind::Differs, format!("/usr/local/bin has other programs called {}", foreign.join(", ")))
        .next("move them away, then run this again")
        .into())
}

fn engine(seen: &Seen) -> Result<Vec<Step>> {
    let start = Step::StartEngine { systemd: seen.systemd };
    match (seen.engine_answers, seen.engine_installed, seen.apt) {
        (true, ..) => Ok(vec![]),
        (false, true, _) => Ok(vec![start]),
        (false, false, true) => Ok(vec![Step::InstallEngine, start]),
        (false, false, false) => {
            let fault = Fault::new(Kind::Missing, "Docker Engine is not installed");
            Err(fault
                .why("moorage can install it only where there is apt-get")
                .next("install Docker Engine with this distribution's tool, then run this again")
                .into())
        }
    }
}

fn site(args: &Args, seen: &Seen) -> Result<Option<Step>> {
    let differs = |why: String| {
        Fault::new(Kind::Differs, format!("{SITE} is not a clone of what was asked for"))
            .why(why)
            .next(format!("move {SITE} away, then run this again"))
    };
    match (&args.site_repo, &seen.site) {
        (None, Checkout::Clone { url }) => Ok(Some(Step::UpdateSite { url: url.clone() })),
        (None, _) => Ok(None),
        (Some(url), Checkout::Absent) => Ok(Some(Step::CloneSite { url: url.clone() })),
        (Some(url), Checkout::Clone { url: there }) if url == there => {
            Ok(Some(Step::UpdateSite { url: url.clone() }))
        }
        (Some(_), Checkout::Clone { url }) => Err(differs(format!("it comes from {url}")).into()),
        (Some(_), Checkout::Foreign) => Err(differs("it is there, and no git repository".into()).into()),
    }
}

/// Adds the files whose text is not as it should be; says whether units are among them.
fn files(args: &Args, seen: &Seen, parent: Option<&str>, steps: &mut Vec<Step>) -> Result<bool> {
    let mut units = false;
    let mut wanted = Vec::new();
    if matches!(seen.files.get(CONFIG), None | Some(None)) {
        wanted.push((CONFIG, config(parent, args)?));
    }
    wanted.push((SPEC, "unix:///run/moorage/plugin.sock\n".to_owned()));
    if seen.systemd {
        let templates = [
            include_str!("../../../templates/systemd/moorage.service"),
            include_str!("../../../templates/systemd/moorage.socket"),
            include_str!("../../../templates/systemd/moorage-plugin.socket"),
        ];
        // A percent sign begins a specifier (systemd.unit(5)).
        let storage = seen.configured.storage.as_deref().unwrap_or(STORAGE).replace('%', "%%");
        for (path, template) in UNITS.into_iter().zip(templates) {
            let values = context! { state => STATE, binary => PROGRAM, storage => &storage };
            wanted.push((path, render(template, values)?));
        }
    }
    for (path, text) in wanted {
        if seen.files.get(path).and_then(Option::as_deref) != Some(text.as_str()) {
            units |= UNITS.contains(&path);
            steps.push(Step::Write { path, text });
        }
    }
    Ok(units)
}

/// The host's configuration as setup begins it.
fn config(parent: Option<&str>, args: &Args) -> Result<String> {
    let network = (args.network != DEFAULT_NETWORK).then_some(&args.network);
    let site = args.site_repo.as_ref().map(|_| SITE);
    render(include_str!("../../../templates/config.toml"), context! { parent, network, site })
}

impl Step {
    /// What it does, for a person.
    pub fn text(&self) -> String {
        match self {
            Step::InstallEngine => "install Docker Engine from this distribution's packages".into(),
            Step::StartEngine { .. } => "start the Docker Engine".into(),
            Step::InstallProgram { .. } => format!("install this program as {PROGRAM}"),
            Step::Link { names } => format!("make the commands {}", names.join(", ")),
            Step::CloneSite { url } => format!("clone the site's definitions from {url} into {SITE}"),
            Step::UpdateSite { url } => format!("bring the site's definitions up to date from {url}"),
            Step::Write { path, .. } => format!("write {path}"),
            Step::EnableUnits => "start the daemon at every boot".into(),
            Step::StartDaemon { .. } => "start the daemon".into(),
            Step::RestartDaemon { .. } => "restart the daemon; containers go on running".into(),
            Step::MakeNetwork { name, parent, vlan: None } => {
                format!("make the Docker network {name} on {parent}")
            }
            Step::MakeNetwork { name, parent, vlan: Some(id) } => {
                format!("make the Docker network {name} on VLAN {id} of {parent}")
            }
        }
    }

    /// Whether it takes long enough that a person wants to know what goes on.
    pub fn is_slow(&self) -> bool {
        !matches!(self, Step::InstallProgram { .. } | Step::Link { .. } | Step::Write { .. })
    }

    /// The commands a person could type instead.
    pub fn shell(&self) -> String {
        match self {
            Step::InstallEngine => "apt-get update && apt-get install -y --no-install-recommends docker.io\n# and docker-cli, where that is a package of its own".into(),
            Step::StartEngine { systemd: true } => "systemctl enable --now docker".into(),
            Step::StartEngine { systemd: false } => {
                "setsid dockerd >>/var/log/moorage/dockerd.log 2>&1 </dev/null &".into()
            }
            Step::InstallProgram { from } => format!("install -m 755 {} {PROGRAM}", from.display()),
            Step::Link { names } => {
                format!("cd /usr/local/bin && for name in {}; do ln -s moorage $name; done", names.join(" "))
            }
            Step::CloneSite { url } => format!("git clone {url} {SITE}"),
            Step::UpdateSite { .. } => format!("git -C {SITE} pull --ff-only"),
            Step::Write { path, text } => format!("cat >{path} <<'END'\n{text}END"),
            Step::EnableUnits => {
                "systemctl daemon-reload && systemctl enable moorage.socket moorage-plugin.socket moorage.service".into()
            }
            Step::StartDaemon { systemd: true } => {
                "systemctl start moorage.socket moorage-plugin.socket moorage.service".into()
            }
            Step::StartDaemon { systemd: false } => {
                "setsid moorage daemon >>/var/log/moorage/daemon.log 2>&1 </dev/null &".into()
            }
            Step::RestartDaemon { systemd: true } => "systemctl restart moorage.service".into(),
            Step::RestartDaemon { systemd: false } => {
                "kill $(cat /run/moorage/daemon.pid); setsid moorage daemon >>/var/log/moorage/daemon.log 2>&1 </dev/null &".into()
            }
            Step::MakeNetwork { name, parent, vlan } => {
                let tag = vlan.map(|id| format!(" -o vlan={id}")).unwrap_or_default();
                format!("docker network create -d moorage --ipam-driver null -o parent={parent}{tag} {name}")
            }
        }
    }
}

#[cfg(test)]
mod tests;
