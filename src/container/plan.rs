//! What making a container will do, decided from its specification and what is here already. Pure.

mod by_hand;

use super::Account;
use crate::spec::plan::{Plan, Step};
use crate::spec::{Addressing, ContainerSpec, Limits, Mac};
use by_hand::{Volume, quoted};

/// What the host has of what a specification needs.
#[derive(Debug, Clone, Default)]
pub struct Present {
    /// The container exists, with this specification, and this is whether it runs.
    pub container: Option<bool>,
    /// Bytes of the image, if it is here.
    pub image: Option<u64>,
    /// Bytes of each archive's layer, if it is here, in the order of the specification.
    pub archives: Vec<Option<u64>>,
}

/// Where things are on the host, for the commands a person could type.
#[derive(Debug, Clone)]
pub struct Places {
    pub storage: String,
    pub parent: String,
    pub mac: Mac,
    /// Who has a user inside, the one to log in as first.
    pub people: Vec<Account>,
    /// What the host gives a container that asks for no limits.
    pub usual: Limits,
    /// What its init sees of the control groups, as flags of `docker create`.
    pub cgroups: Vec<String>,
}

/// The ordered plan.
pub fn plan(spec: &ContainerSpec, present: &Present, places: &Places) -> Plan {
    let mut plan = Plan::default();
    let mut add = |stage, step: &str, text: String, shell: Vec<String>| {
        plan.steps.push(Step { stage, step: step.to_owned(), text, bytes: None, shell });
    };
    let name = spec.name.as_str();
    match present.container {
        Some(true) => return plan,
        Some(false) => {
            add(1, "start", format!("start {name}"), vec![format!("docker start {name}")]);
            return plan;
        }
        None => {}
    }
    if present.image.is_none() {
        let (text, command) = by_hand::image(&spec.image);
        add(1, "image", text, vec![command]);
    }
    let layers = format!("{}/.store/layers", places.storage);
    let mut lowers = Vec::new();
    for (index, archive) in spec.opt.iter().enumerate() {
        let lower = format!("{layers}/{index}");
        if present.archives.get(index).copied().flatten().is_none() {
            let shell = vec![
                format!("mkdir -p {lower}"),
                format!("{} tar -x --numeric-owner -C {lower}", by_hand::fetch(archive)),
            ];
            add(1, "opt", format!("fetch and extract {}", archive.url), shell);
        }
        lowers.insert(0, lower);
    }
    if spec.address == Addressing::Dhcp {
        let address = format!("get an address for {} from the LAN's DHCP server", places.mac);
        add(1, "address", address, vec![]);
    }
    for source in &spec.sources {
        let to = Volume::of(spec, places).upper(&source.to);
        let commands = by_hand::check_out(&source.repo, source.reference.as_deref(), &to, places);
        add(1, "source", format!("check {} out into {}", source.repo, source.to), commands);
    }
    let user = places.people.first().map_or("root", |person| person.name.as_str());
    let text = format!("create {name} with its own /opt, user {user}, host keys and licence");
    add(2, "create", text, by_hand::create(spec, &lowers, places));
    add(3, "start", format!("start {name}"), by_hand::start(spec, places));
    let inside =
        |command: &str| format!("docker exec -u {} {name} /bin/sh -lc {}", quoted(user), quoted(command));
    for step in &spec.setup {
        add(4, "setup", format!("run inside, once, as {user}: {step}"), vec![inside(step)]);
    }
    if let Some(check) = &spec.ready {
        let shell = format!("until {}; do :; done", inside(check));
        add(5, "ready", format!("wait until this succeeds inside: {check}"), vec![shell]);
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::sample::spec;

    fn ann() -> Account {
        Account { name: "ann".into(), uid: 1000, gid: 100, group: "users".into() }
    }

    fn places() -> Places {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        Places {
            storage: "/opt/containers".into(),
            parent: "eth0".into(),
            mac,
            people: vec![ann()],
            usual: Limits { pids: Some(8192), ..Limits::default() },
            cgroups: vec!["--cgroupns host".into()],
        }
    }

    fn steps(present: &Present) -> Vec<String> {
        plan(&spec(), present, &places())
            .steps
            .into_iter()
            .map(|s| format!("{} {}", s.stage, s.step))
            .collect()
    }

    #[test]
    fn nothing_here_means_every_step() {
        let all = ["1 image", "1 opt", "1 address", "1 source", "2 create", "3 start", "4 setup", "5 ready"];
        assert_eq!(steps(&Present::default()), all);
    }

    #[test]
    fn what_is_here_is_not_fetched_and_what_runs_is_left_alone() {
        let here = Present { container: None, image: Some(1), archives: vec![Some(1)] };
        assert_eq!(steps(&here)[..2], ["1 address", "1 source"]);
        assert_eq!(steps(&Present { container: Some(false), ..Present::default() }), ["1 start"]);
        assert!(steps(&Present { container: Some(true), ..Present::default() }).is_empty());
    }

    #[test]
    fn the_shell_form_is_what_a_person_could_type() {
        let mut spec = spec();
        spec.authorized_keys.insert("ann".into(), vec!["ssh-ed25519 AAAA ann@desk".into()]);
        let plan = plan(&spec, &Present::default(), &places());
        let shell: Vec<String> = plan.steps.into_iter().flat_map(|step| step.shell).collect();
        insta::assert_snapshot!(shell.join("\n"));
    }

    #[test]
    fn a_shell_can_read_it_whatever_is_in_it() {
        let odd = r#"it's "$(odd)" \`;&| {} #"#;
        let mut spec = ContainerSpec { setup: vec![odd.into()], ready: Some(odd.into()), ..spec() };
        spec.env.insert("ODD".into(), odd.into());
        spec.opt[0].url = format!("file:///srv/{odd}.tar.gz");
        spec.sources[0].reference = Some(odd.into());
        let root = Account { name: "root".into(), uid: 0, gid: 0, group: "root".into() };
        for name in ["ann", "root"] {
            spec.authorized_keys.insert(name.into(), vec![format!("ssh-ed25519 AAAA {odd}")]);
        }
        for (opt, people) in [(spec.opt.clone(), vec![ann(), root]), (vec![], vec![])] {
            let plan = plan(
                &ContainerSpec { opt, ..spec.clone() },
                &Present::default(),
                &Places { people, ..places() },
            );
            let lines: Vec<String> = plan.steps.into_iter().flat_map(|step| step.shell).collect();
            let read =
                std::process::Command::new("sh").args(["-n", "-c", &lines.join("\n")]).output().unwrap();
            assert!(read.status.success() && read.stderr.is_empty(), "{read:?}\n{}", lines.join("\n"));
        }
    }
}
