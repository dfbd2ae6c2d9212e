//! What making a container will do, decided from its specification and what is here already. Pure.

use crate::spec::plan::{Plan, Step};
use crate::spec::{ContainerSpec, Mac};

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
    pub user: String,
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
        add(
            1,
            "image",
            format!("pull the image {}", spec.image),
            vec![format!("docker pull {}", spec.image)],
        );
    }
    let layers = format!("{}/.store/layers", places.storage);
    let mut lowers = Vec::new();
    for (index, archive) in spec.opt.iter().enumerate() {
        let lower = format!("{layers}/{index}");
        if present.archives.get(index).copied().flatten().is_none() {
            let url = quoted(&archive.url);
            let shell = vec![
                format!("mkdir -p {lower}"),
                format!("curl -fL {url} |{} tar -x --numeric-owner -C {lower}", unpack(&archive.url)),
            ];
            add(1, "opt", format!("fetch and extract {}", archive.url), shell);
        }
        lowers.insert(0, lower);
    }
    let address = format!("get an address for {} from the LAN's DHCP server", places.mac);
    add(1, "address", address, vec![]);
    for source in &spec.sources {
        let branch =
            source.reference.as_ref().map(|r| format!(" --branch {}", quoted(r))).unwrap_or_default();
        let upper =
            format!("{}/.store/volumes/{name}/upper{}", places.storage, source.to.trim_start_matches("/opt"));
        add(
            1,
            "source",
            format!("check {} out into {}", source.repo, source.to),
            vec![format!("git clone{branch} -- {} {}", quoted(&source.repo), quoted(&upper))],
        );
    }
    let volume = format!("{}/.store/volumes/{name}", places.storage);
    let lower = if lowers.is_empty() { format!("{volume}/empty") } else { lowers.join(":") };
    add(
        2,
        "create",
        format!("create {name} with its own /opt, user {}, host keys and licence", places.user),
        vec![
            format!("mkdir -p {volume}/upper {volume}/work {volume}/merged"),
            format!(
                "mount -t overlay overlay -o redirect_dir=on,index=off,metacopy=off,xino=off,lowerdir={lower},\
                 upperdir={volume}/upper,workdir={volume}/work {volume}/merged"
            ),
            docker_create(spec, &format!("{volume}/merged"), &places.cgroups),
        ],
    );
    add(3, "start", format!("start {name}"), start_by_hand(name, places));
    for step in &spec.setup {
        let shell = format!("docker exec -u {} {name} /bin/sh -lc {}", places.user, quoted(step));
        add(4, "setup", format!("run inside, once, as {}: {step}", places.user), vec![shell]);
    }
    if let Some(check) = &spec.ready {
        let shell =
            format!("until docker exec -u {} {name} /bin/sh -lc {}; do :; done", places.user, quoted(check));
        add(5, "ready", format!("wait until this succeeds inside: {check}"), vec![shell]);
    }
    plan
}

/// The decompressor in the middle of a pipe, by the archive's name; moorage itself goes by the content.
fn unpack(url: &str) -> &'static str {
    match url.rsplit('.').next() {
        Some("zst") => " zstd -dc |",
        Some("gz" | "tgz") => " gzip -dc |",
        Some("xz") => " xz -dc |",
        _ => "",
    }
}

fn docker_create(spec: &ContainerSpec, opt: &str, cgroups: &[String]) -> String {
    let name = spec.name.as_str();
    let mut words: Vec<String> =
        ["docker", "create", "--name", name, "--hostname", name, "--network", "none"]
            .map(str::to_owned)
            .into();
    let mut flag = |name: &str, value: String| words.extend([name.to_owned(), quoted(&value)]);
    flag("--restart", "unless-stopped".into());
    flag("--cap-drop", "MKNOD".into());
    for capability in &spec.capabilities {
        flag("--cap-add", capability.clone());
    }
    for tmpfs in ["/run:exec,mode=755", "/run/lock", "/tmp:exec,mode=1777"] {
        flag("--tmpfs", tmpfs.into());
    }
    flag("-v", format!("{opt}:/opt"));
    for mount in &spec.mounts {
        let mode = if mount.read_only { ":ro" } else { "" };
        flag("-v", format!("{}:{}{mode}", mount.source, mount.target));
    }
    for (name, value) in &spec.env {
        flag("-e", format!("{name}={value}"));
    }
    for (name, limit) in &spec.ulimits {
        flag("--ulimit", format!("{name}={}:{}", limit.soft, limit.hard));
    }
    if let Some(shm) = spec.shm {
        flag("--shm-size", shm.0.to_string());
    }
    if let Some(memory) = spec.limits.memory {
        flag("--memory", memory.0.to_string());
    }
    if let Some(pids) = spec.limits.pids {
        flag("--pids-limit", pids.to_string());
    }
    words.extend_from_slice(cgroups);
    words.push(quoted(&spec.image));
    words.join(" ")
}

/// What pipework and udhcpc do by hand.
fn start_by_hand(name: &str, places: &Places) -> Vec<String> {
    let Places { parent, mac, .. } = places;
    vec![
        format!("docker start {name}"),
        format!("pid=$(docker inspect -f '{{{{.State.Pid}}}}' {name})"),
        format!("ip link add link {parent} name eth0 address {mac} netns $pid type macvlan mode bridge"),
        "nsenter -t $pid -n ip link set eth0 up".to_owned(),
        format!("nsenter -t $pid -n udhcpc -i eth0 -n -x hostname:{name}"),
    ]
}

/// `text` as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::sample::spec;

    fn places() -> Places {
        let mac = Mac([2, 0, 0, 0, 0, 1]);
        Places {
            storage: "/opt/containers".into(),
            parent: "eth0".into(),
            mac,
            user: "ann".into(),
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
        let plan = plan(&spec(), &Present::default(), &places());
        let shell: Vec<String> = plan.steps.into_iter().flat_map(|step| step.shell).collect();
        insta::assert_snapshot!(shell.join("\n"));
    }

    #[test]
    fn words_for_a_shell_are_quoted() {
        assert_eq!(quoted("plain/x:1"), "plain/x:1");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
