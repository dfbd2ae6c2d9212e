use std::collections::BTreeMap;

use super::*;
use crate::engine::Network;

fn args() -> Args {
    Args {
        parent: Some("eth0".into()),
        no_lan: false,
        site_repo: None,
        network: "lan".into(),
        dry_run: false,
    }
}

/// A Debian machine where nothing of ours is.
fn fresh() -> Seen {
    Seen {
        systemd: false,
        apt: true,
        engine_installed: false,
        engine_answers: false,
        daemon_answers: false,
        program: "/src/moorage".into(),
        binary: Binary::Missing,
        files: [CONFIG, SPEC].into_iter().chain(UNITS).map(|file| (file, None)).collect(),
        units_enabled: false,
        links: BTreeMap::from([("list-containers".into(), Link::Missing)]),
        configured: Configured::default(),
        usable: vec!["eth0".into()],
        parent_fault: None,
        site: Checkout::Absent,
        lan: Lan::Unknown,
    }
}

fn on(parent: &str) -> Lan {
    Lan::There(Network {
        id: "1".into(),
        driver: "moorage".into(),
        options: [("parent".to_owned(), parent.to_owned())].into(),
    })
}

/// The machine after the steps.
fn after(mut seen: Seen, steps: &[Step]) -> Seen {
    for step in steps {
        match step {
            Step::InstallEngine => seen.engine_installed = true,
            Step::StartEngine { .. } => seen.engine_answers = true,
            Step::InstallProgram { .. } => seen.binary = Binary::Installed,
            Step::Link { names } => {
                seen.links.extend(names.iter().map(|name| (name.clone(), Link::Ours)));
            }
            Step::CloneSite { url } => seen.site = Checkout::Clone { url: url.clone() },
            Step::UpdateSite { .. } => {}
            Step::Write { path, text } => {
                if *path == CONFIG {
                    seen.configured = Configured::read(text).unwrap();
                }
                seen.files.insert(path, Some(text.clone()));
            }
            Step::EnableUnits => seen.units_enabled = true,
            Step::StartDaemon { .. } | Step::RestartDaemon { .. } => seen.daemon_answers = true,
            Step::MakeNetwork { parent, .. } => seen.lan = on(parent),
        }
    }
    seen
}

fn texts(steps: &[Step]) -> String {
    steps.iter().map(|step| step.text() + "\n").collect()
}

fn fault(args: &Args, seen: &Seen) -> Fault {
    Fault::of(&plan(args, seen).unwrap_err())
}

#[test]
fn a_fresh_machine_gets_everything_in_order() {
    insta::assert_snapshot!(texts(&plan(&args(), &fresh()).unwrap()), @r"
    install Docker Engine from this distribution's packages
    start the Docker Engine
    install this program as /usr/local/bin/moorage
    make the commands list-containers
    write /etc/moorage/config.toml
    write /etc/docker/plugins/moorage.spec
    start the daemon
    make the Docker network lan on eth0
    ");
    let systemd = Seen { systemd: true, ..fresh() };
    insta::assert_snapshot!(texts(&plan(&args(), &systemd).unwrap()), @r"
    install Docker Engine from this distribution's packages
    start the Docker Engine
    install this program as /usr/local/bin/moorage
    make the commands list-containers
    write /etc/moorage/config.toml
    write /etc/docker/plugins/moorage.spec
    write /etc/systemd/system/moorage.service
    write /etc/systemd/system/moorage.socket
    write /etc/systemd/system/moorage-plugin.socket
    start the daemon at every boot
    start the daemon
    make the Docker network lan on eth0
    ");
}

#[test]
fn a_second_run_changes_nothing() {
    for systemd in [false, true] {
        let before = Seen { systemd, ..fresh() };
        let steps = plan(&args(), &before).unwrap();
        let seen = after(before, &steps);
        assert_eq!(plan(&args(), &seen).unwrap(), []);
        // What is configured need not be said again.
        assert_eq!(plan(&Args { parent: None, ..args() }, &seen).unwrap(), []);
    }
}

#[test]
fn an_upgrade_restarts_the_daemon_and_nothing_else() {
    let seen = after(fresh(), &plan(&args(), &fresh()).unwrap());
    let newer = Seen { binary: Binary::Older, ..seen };
    insta::assert_snapshot!(texts(&plan(&args(), &newer).unwrap()), @r"
    install this program as /usr/local/bin/moorage
    restart the daemon; containers go on running
    ");
}

#[test]
fn another_parent_than_the_configured_one_is_refused() {
    let ready = after(fresh(), &plan(&args(), &fresh()).unwrap());
    let other = Args { parent: Some("eth1".into()), ..args() };
    let answer = fault(&other, &ready);
    assert_eq!(answer.kind, Kind::Differs);
    assert!(answer.next.unwrap().contains("parent = \"eth1\""));

    let foreign = Seen { lan: on("eth1"), ..ready.clone() };
    assert_eq!(fault(&args(), &foreign).kind, Kind::Differs);
    let Lan::There(network) = on("eth0") else { unreachable!() };
    let bridge = Seen { lan: Lan::There(Network { driver: "bridge".into(), ..network }), ..ready };
    assert!(fault(&args(), &bridge).why[0].contains("bridge"));
}

#[test]
fn what_is_missing_is_asked_for() {
    let nothing = fault(&Args { parent: None, ..args() }, &fresh());
    assert_eq!(nothing.kind, Kind::Usage);
    assert!(nothing.next.unwrap().contains("--parent eth0"));
    let other_distribution = fault(&args(), &Seen { apt: false, ..fresh() });
    assert_eq!(other_distribution.kind, Kind::Missing);
    let down = Fault::new(Kind::Missing, "it is down");
    assert_eq!(fault(&args(), &Seen { parent_fault: Some(down.clone()), ..fresh() }), down);
    let foreign = Seen { links: [("doctor".to_owned(), Link::Foreign)].into(), ..fresh() };
    assert_eq!(fault(&args(), &foreign).kind, Kind::Differs);
}

#[test]
fn a_site_is_cloned_once_and_configured() {
    let with = Args { site_repo: Some("ssh://git/site".into()), ..args() };
    let steps = plan(&with, &fresh()).unwrap();
    assert!(steps.contains(&Step::CloneSite { url: "ssh://git/site".into() }));
    let seen = after(fresh(), &steps);
    assert_eq!(seen.configured.site.as_deref(), Some(SITE));
    assert_eq!(plan(&with, &seen).unwrap(), [Step::UpdateSite { url: "ssh://git/site".into() }]);
    assert_eq!(fault(&Args { site_repo: Some("ssh://other".into()), ..args() }, &seen).kind, Kind::Differs);

    // A host that was set up without one: its configuration is the admin's to change.
    let without = after(fresh(), &plan(&args(), &fresh()).unwrap());
    let answer = fault(&with, &without);
    assert_eq!(answer.kind, Kind::Differs);
    assert!(answer.next.unwrap().contains("site = \"/etc/moorage/site\""));
}

#[test]
fn names_cannot_break_out_of_the_configuration() {
    let odd = "eth\"\nadmins=[\"x\"]";
    let text = config(Some(odd), &args()).unwrap();
    assert_eq!(Configured::read(&text).unwrap().parent.as_deref(), Some(odd));
}

#[test]
fn the_unit_waits_for_the_disk_that_the_store_is_on() {
    let unit = |configured: &str| {
        let configured = Configured::read(configured).unwrap();
        let steps = plan(&args(), &Seen { systemd: true, configured, ..fresh() }).unwrap();
        let text = steps.into_iter().find_map(|step| match step {
            Step::Write { path, text } if path == UNITS[0] => Some(text),
            _ => None,
        });
        let text = text.unwrap();
        text.lines().find_map(|line| line.strip_prefix("RequiresMountsFor=")).unwrap().to_owned()
    };
    assert_eq!(unit(""), "/var/lib/moorage \"/opt/containers\"");
    assert_eq!(unit("storage = '/srv/my 50% disk'"), "/var/lib/moorage \"/srv/my 50%% disk\"");
}

#[test]
fn without_a_lan_containers_go_on_dockers_bridge() {
    let args = Args { parent: None, no_lan: true, ..args() };
    let steps = plan(&args, &fresh()).unwrap();
    assert!(!steps.iter().any(|step| matches!(step, Step::MakeNetwork { .. })));
    let written = steps.iter().find_map(|step| match step {
        Step::Write { path, text } if *path == CONFIG => Some(text.clone()),
        _ => None,
    });
    let text = written.unwrap();
    assert!(text.contains("address = \"nat\"") && !text.contains("parent"), "{text}");
    // From then on nobody has to say it again.
    let again = after(fresh(), &steps);
    assert_eq!(plan(&Args { parent: None, ..self::args() }, &again).unwrap(), []);
    // A host that has a LAN is not taken from it in passing.
    let mut with = fresh();
    with.configured.parent = Some("eth0".into());
    assert_eq!(Fault::of(&plan(&args, &with).unwrap_err()).kind, Kind::Differs);
}
