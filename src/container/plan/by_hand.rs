//! The commands that a person could type, as root, instead of what moorage does.

use super::Places;
use crate::container::Account;
use crate::container::identity::below_opt;
use crate::report::escape;
use crate::spec::{Addressing, Archive, ContainerSpec, Fixed, Limits};

/// Where things are of the container `name`.
pub struct Volume(String);

impl Volume {
    pub fn of(spec: &ContainerSpec, places: &Places) -> Volume {
        Volume(format!("{}/.store/volumes/{}", places.storage, spec.name))
    }

    /// A path inside, below `/opt`, in the container's own part.
    pub fn upper(&self, inside: &str) -> String {
        format!("{}/upper{}", self.0, inside.trim_start_matches("/opt"))
    }

    fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

/// How an image gets here. A local one is in no registry.
pub fn image(image: &str) -> (String, String) {
    match image.strip_prefix("moorage/") {
        Some(name) => {
            let name = name.trim_end_matches(":latest");
            let text = format!("the image {image} is not here: it has to be made first");
            (text, format!("moorage make-dev-image {}", quoted(name)))
        }
        None => (format!("pull the image {image}"), format!("docker pull {}", quoted(image))),
    }
}

/// The begin of a pipe that ends in tar: what gets the archive and unpacks it.
pub fn fetch(archive: &Archive) -> String {
    let Ok(reference) = archive.reference() else {
        return format!("curl -fL {} |{}", quoted(&archive.url), unpack(&archive.url));
    };
    let repository = quoted(&format!("{}/{}", reference.registry, reference.repository));
    format!(
        "oras manifest fetch {} | jq -r '.layers[].digest' | while read -r piece; do \
         oras blob fetch --output - {repository}@$piece; done | zstd -dc |",
        quoted(&reference.to_string())
    )
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

/// Checks a source out for the person whose container it is.
pub fn check_out(repo: &str, reference: Option<&str>, to: &str, places: &Places) -> Vec<String> {
    let branch = reference.map(|r| format!(" --branch {}", quoted(r))).unwrap_or_default();
    let to = quoted(to);
    let owner = places.people.first().filter(|person| !person.is_root());
    let chown = owner.map(|person| format!("chown -R {}:{} {to}", person.uid, person.gid));
    [format!("git clone{branch} -- {} {to}", quoted(repo))].into_iter().chain(chown).collect()
}

/// The volume with what is in it before the first start, the container, and what makes it a machine of its own.
pub fn create(spec: &ContainerSpec, lowers: &[String], places: &Places) -> Vec<String> {
    let volume = Volume::of(spec, places);
    let (upper, work, merged) = (volume.upper("/opt"), volume.path("work"), volume.path("merged"));
    let empty = volume.path("empty");
    let (mut directories, mut lower) = (format!("mkdir -p {upper} {work} {merged}"), lowers.join(":"));
    if lowers.is_empty() {
        directories = format!("{directories} {empty}");
        lower = empty;
    }
    let mut lines = vec![directories];
    for person in places.people.iter().filter(|person| !person.is_root()) {
        lines.extend(home(spec, person, &volume));
    }
    let by_content = |to: &str| format!("# the site's file for {}:", escape(to));
    let (in_opt, elsewhere): (Vec<_>, Vec<_>) = spec.files.iter().partition(|file| below_opt(&file.to));
    for file in in_opt {
        let to = volume.upper(&file.to);
        lines.push(format!("{} install -D -m {:o} FILE {}", by_content(&file.to), file.mode, escape(&to)));
    }
    lines.push(format!(
        "mount -t overlay overlay -o redirect_dir=on,index=off,metacopy=off,xino=off,lowerdir={lower},\
         upperdir={upper},workdir={work} {merged}"
    ));
    lines.push(docker_create(spec, &merged, places));
    lines.extend(identity(spec, &volume));
    for file in elsewhere {
        lines.push(format!("{} docker cp FILE {}:{}", by_content(&file.to), spec.name, escape(&file.to)));
    }
    lines
}

/// Home directory and keys of one person, in the container's own part of `/opt`.
fn home(spec: &ContainerSpec, person: &Account, volume: &Volume) -> Vec<String> {
    let (name, owner) = (&person.name, format!("-o {} -g {}", person.uid, person.gid));
    let home = volume.upper(&person.home());
    let mut lines = vec![
        format!("mkdir -p {}", volume.upper("/opt/home")),
        format!("install -d -m 750 {owner} {}", quoted(&home)),
    ];
    if let Some(keys) = keys(spec, name) {
        lines.push(format!("install -d -m 750 {owner} {}", quoted(&format!("{home}/.ssh"))));
        let file = quoted(&format!("{home}/.ssh/authorized_keys"));
        lines.push(format!("printf '%s\\n' {keys} | install -m 600 {owner} /dev/stdin {file}"));
    }
    lines
}

fn keys(spec: &ContainerSpec, name: &str) -> Option<String> {
    let keys = spec.authorized_keys.get(name).filter(|keys| !keys.is_empty())?;
    Some(keys.iter().map(|key| quoted(key)).collect::<Vec<_>>().join(" "))
}

/// An SSH host key and a machine-id that no other container has.
fn identity(spec: &ContainerSpec, volume: &Volume) -> Vec<String> {
    let (name, key, id) = (&spec.name, volume.path("ssh_host_ed25519_key"), volume.path("machine-id"));
    vec![
        format!("ssh-keygen -q -t ed25519 -N '' -C {name} -f {key}"),
        format!("docker cp {key} {name}:/etc/ssh/"),
        format!("docker cp {key}.pub {name}:/etc/ssh/"),
        format!("rm {key}"),
        format!("tr -d - </proc/sys/kernel/random/uuid >{id}"),
        format!("docker cp {id} {name}:/etc/machine-id"),
    ]
}

fn docker_create(spec: &ContainerSpec, opt: &str, places: &Places) -> String {
    let name = spec.name.as_str();
    let network = if spec.address == Addressing::Nat { "bridge" } else { "none" };
    let mut words: Vec<String> =
        ["docker", "create", "--name", name, "--hostname", name, "--network", network]
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
    flag("-e", "container=docker".into());
    for (name, value) in &spec.env {
        flag("-e", format!("{name}={value}"));
    }
    for (name, limit) in &spec.ulimits {
        flag("--ulimit", format!("{name}={}:{}", limit.soft, limit.hard));
    }
    if let Some(shm) = spec.shm {
        flag("--shm-size", shm.0.to_string());
    }
    for (name, value) in limits(&spec.limits, &places.usual) {
        flag(name, value);
    }
    words.extend_from_slice(&places.cgroups);
    words.push(quoted(&spec.image));
    words.join(" ")
}

/// What a container asks for, else what this host gives it.
fn limits(asked: &Limits, usual: &Limits) -> Vec<(&'static str, String)> {
    let memory = asked.memory.or(usual.memory).map(|memory| ("--memory", memory.0.to_string()));
    let pids = asked.pids.or(usual.pids).map(|pids| ("--pids-limit", pids.to_string()));
    // 1024 shares are a weight of 100.
    let weight = asked.cpu_weight.or(usual.cpu_weight);
    let shares = weight.map(|weight| ("--cpu-shares", (u64::from(weight) * 1024 / 100).max(2).to_string()));
    memory.into_iter().chain(pids).chain(shares).collect()
}

/// The container, its interface, and the users inside.
pub fn start(spec: &ContainerSpec, places: &Places) -> Vec<String> {
    let mut lines = vec![format!("docker start {}", spec.name)];
    lines.extend(interface(spec, places));
    for person in &places.people {
        lines.extend(user(spec, person));
    }
    lines
}

/// What pipework and udhcpc do by hand.
fn interface(spec: &ContainerSpec, places: &Places) -> Vec<String> {
    let Places { parent, mac, .. } = places;
    let name = spec.name.as_str();
    let inside = "nsenter -t $pid -n";
    let address = match spec.address {
        Addressing::Nat | Addressing::None => return Vec::new(),
        Addressing::Dhcp => vec![format!("{inside} udhcpc -i eth0 -n -x hostname:{name}")],
        Addressing::Static(Fixed { address, prefix, gateway }) => {
            let route = gateway.map(|gateway| format!("{inside} ip route add default via {gateway}"));
            let address = format!("{inside} ip address add {address}/{prefix} dev eth0");
            [address].into_iter().chain(route).collect()
        }
    };
    let mut lines = vec![
        format!("pid=$(docker inspect -f '{{{{.State.Pid}}}}' {name})"),
        format!("ip link add link {parent} name eth0 address {mac} netns $pid type macvlan mode bridge"),
        format!("{inside} ip link set eth0 up"),
    ];
    lines.extend(address);
    lines
}

/// One person inside, with the numbers they have on the host. `*` is no password, and not a locked account either.
fn user(spec: &ContainerSpec, person: &Account) -> Vec<String> {
    let Account { name: user, uid, gid, group } = person;
    let name = &spec.name;
    if person.is_root() {
        let Some(keys) = keys(spec, user) else { return Vec::new() };
        let put = "umask 077; mkdir -p /root/.ssh; cat >/root/.ssh/authorized_keys";
        return vec![format!("printf '%s\\n' {keys} | docker exec -i {name} /bin/sh -c {}", quoted(put))];
    }
    let add_group = format!("getent group {gid} || groupadd -g {gid} {}", quoted(group));
    let rule = format!("{user} ALL=(ALL:ALL) NOPASSWD: ALL");
    let sudo = format!(
        "[ ! -d /etc/sudoers.d ] || {{ umask 227; echo {} >>/etc/sudoers.d/moorage; }}",
        quoted(&rule)
    );
    vec![
        format!("docker exec {name} /bin/sh -c {}", quoted(&add_group)),
        format!(
            "docker exec {name} useradd -o -u {uid} -g {gid} -M -d {} -s /bin/bash -p '*' {}",
            quoted(&person.home()),
            quoted(user)
        ),
        format!("docker exec {name} /bin/sh -c {}", quoted(&sudo)),
    ]
}

/// `text` as one word of a POSIX shell.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@,+%".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ByteSize;

    #[test]
    fn words_for_a_shell_are_quoted() {
        assert_eq!(quoted("plain/x:1"), "plain/x:1");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_local_image_is_made_and_another_pulled() {
        assert_eq!(image("moorage/demo:latest").1, "moorage make-dev-image demo");
        assert_eq!(image("moorage/demo:rc1").1, "moorage make-dev-image demo:rc1");
        assert_eq!(image("registry.corp:5000/demo:latest").1, "docker pull registry.corp:5000/demo:latest");
    }

    #[test]
    fn limits_are_the_containers_else_the_hosts() {
        let usual =
            Limits { cpu_weight: Some(50), memory: Some(ByteSize(8)), pids: Some(9), ..Limits::default() };
        let asked = Limits { memory: Some(ByteSize(7)), ..Limits::default() };
        let flags = [("--memory", "7"), ("--pids-limit", "9"), ("--cpu-shares", "512")];
        assert_eq!(limits(&asked, &usual), flags.map(|(name, value)| (name, value.to_owned())));
        assert!(limits(&Limits::default(), &Limits::default()).is_empty());
    }
}
