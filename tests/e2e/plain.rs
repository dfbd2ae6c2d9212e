//! What people who know nothing of moorage type: `docker run` and a compose file.

use std::path::PathBuf;

use crate::support::{root, world};

fn docker(arguments: &[&str]) -> String {
    root().run("docker", arguments).ok().stdout.trim().to_owned()
}

/// The address that the container's interface has, and a sign of life from the LAN.
fn address(container: &str) -> String {
    let pid = docker(&["inspect", "-f", "{{.State.Pid}}", container]);
    let script = format!(
        "nsenter -t {pid} -n ip -o -4 address show dev eth0 | awk '{{ sub(\"/.*\", \"\", $4); print $4 }}'"
    );
    let address = root().shell(&script).ok().stdout.trim().to_owned();
    root().shell(&format!("ip netns exec moorage-lab ping -c 1 -W 5 {address}")).ok();
    root().run("ping", &["-c", "1", "-W", "5", &address]).ok();
    address
}

fn mac(number: u8) -> String {
    let id = std::process::id();
    format!("02:00:5e:{number:02x}:{:02x}:{:02x}", id >> 8 & 255, id & 255)
}

/// Removed with this.
struct Container(String);

impl Drop for Container {
    fn drop(&mut self) {
        root().run("docker", &["rm", "-f", &self.0]);
    }
}

#[test]
fn docker_run_gets_an_address_of_the_lan_and_the_same_again_where_its_mac_is_pinned() {
    let (name, mac) = (format!("plainrun{}", std::process::id()), mac(1));
    // A command line of Docker's that is newer than the engine refuses `--mac-address`: its request is made by hand, and
    // typed as it is where the two are of an age (scripts/lib/vm-check).
    let run = || {
        let body = format!(
            "{{\"Image\": \"moorage/debian-12\", \"Cmd\": [\"sleep\", \"infinity\"], \"MacAddress\": \"{mac}\", \
             \"HostConfig\": {{\"NetworkMode\": \"lan\"}}}}"
        );
        let url = format!("http://docker/v1.41/containers/create?name={name}");
        let json = "Content-Type: application/json";
        root()
            .run("curl", &["-fsS", "--unix-socket", "/run/docker.sock", "-H", json, "-d", &body, &url])
            .ok();
        docker(&["start", &name]);
        Container(name.clone())
    };
    let first = run();
    let before = address(&name);
    assert_eq!(docker(&["exec", &name, "cat", "/sys/class/net/eth0/address"]), mac);
    docker(&["restart", "-t", "0", &name]);
    assert_eq!(address(&name), before);
    drop(first);
    let _again = run();
    assert_eq!(address(&name), before, "the MAC is the same, and so is the address");
}

/// A compose project, taken down with this.
struct Compose {
    project: String,
    file: PathBuf,
}

impl Compose {
    fn new(text: &str) -> Compose {
        let project = format!("composed{}", std::process::id());
        let file = world().join("tmp").join(format!("{project}.yaml"));
        std::fs::write(&file, text).unwrap();
        Compose { project, file }
    }

    fn does(&self, words: &[&str]) -> crate::support::Outcome {
        let common = ["-p", &self.project, "-f", self.file.to_str().unwrap()];
        root().run("docker-compose", &[&common[..], words].concat())
    }

    fn container(&self, service: &str) -> String {
        self.does(&["ps", "-q", service]).ok().stdout.trim().to_owned()
    }
}

impl Drop for Compose {
    fn drop(&mut self) {
        self.does(&["down", "-t", "0"]);
    }
}

#[test]
fn the_services_of_a_compose_file_are_machines_on_the_lan() {
    let text = format!(
        "version: \"2.4\"\n\
         services:\n\
         \x20 web:\n\
         \x20   image: moorage/debian-12\n\
         \x20   command: sleep infinity\n\
         \x20   mac_address: \"{}\"\n\
         \x20   networks: [lan]\n\
         \x20 store:\n\
         \x20   image: moorage/debian-12\n\
         \x20   command: sleep infinity\n\
         \x20   networks: [lan]\n\
         networks:\n\
         \x20 lan:\n\
         \x20   external: true\n",
        mac(2)
    );
    let compose = Compose::new(&text);
    compose.does(&["up", "-d"]).ok();
    let (web, store) = (compose.container("web"), compose.container("store"));
    let before = address(&web);
    assert_ne!(before, address(&store));
    assert_eq!(docker(&["exec", &web, "cat", "/sys/class/net/eth0/address"]), mac(2));
    compose.does(&["restart", "-t", "0"]).ok();
    assert_eq!(address(&web), before);
    compose.does(&["down", "-t", "0"]).ok();
    compose.does(&["up", "-d"]).ok();
    assert_eq!(address(&compose.container("web")), before, "the MAC is the same, and so is the address");
    address(&compose.container("store"));
}
