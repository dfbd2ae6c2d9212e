//! collect-garbage against the real server, while the real Docker Engine pulls and pushes.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;

use crate::support::served::{PULL, PUSH, Place, STATE, digest};
use crate::support::{Outcome, Scene, root};

const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Until when everybody works, and what each has done.
struct Work {
    over: &'static AtomicBool,
    done: Receiver<String>,
    done_by: Sender<String>,
    all: Vec<JoinHandle<Vec<String>>>,
}

impl Work {
    fn new() -> Work {
        let (done_by, done) = channel();
        Work { over: Box::leak(Box::default()), done, done_by, all: Vec::new() }
    }

    /// Does this again and again; each time it answers what it has made, or what went wrong.
    fn again(&mut self, name: &str, work: impl Fn(usize) -> Result<String, String> + Send + 'static) {
        let (over, done_by, name) = (self.over, self.done_by.clone(), name.to_owned());
        self.all.push(std::thread::spawn(move || {
            let mut made = Vec::new();
            let mut turn = 0;
            while !over.load(Ordering::Relaxed) {
                turn += 1;
                made.push(work(turn).unwrap_or_else(|error| panic!("{name}: {error}")));
                let _ = done_by.send(name.clone());
            }
            made
        }));
    }

    /// Waits until each of these has done something from now on.
    fn until_all(&self, names: &[&str]) {
        while self.done.try_recv().is_ok() {}
        let mut missing: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        while !missing.is_empty() {
            let name = self.done.recv().expect("everybody has ended");
            missing.remove(name.as_str());
        }
    }

    /// What all have made; one that failed fails the test.
    fn end(self) -> Vec<String> {
        self.over.store(true, Ordering::Relaxed);
        let ended = self.all.into_iter().map(|one| one.join());
        ended.flat_map(|made| made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    }
}

#[test]
fn garbage_goes_while_four_pull_and_two_push() {
    let place = Place::published_to();
    let pulled = ["pulled1", "pulled2", "pulled3", "pulled4"];
    for name in pulled {
        place.publish(&[&format!("{name}:1")]);
    }
    for tag in ["old:1", "old:2", "old:3"] {
        place.publish(&[tag]);
    }
    place.age();
    let mut work = Work::new();
    for name in pulled {
        work.again(name, move |_| {
            let image = format!("{PULL}/{name}:1");
            let pull = root().run("docker", &["pull", "-q", &image]);
            if pull.code != 0 {
                return Err(pull.whole());
            }
            root().run("docker", &["rmi", &image]).ok();
            Ok(String::new())
        });
    }
    let config = place.directory.path().join("ann");
    for name in ["pushed1", "pushed2"] {
        let (config, scratch) = (config.clone(), place.directory.path().join(name));
        std::fs::create_dir(&scratch).unwrap();
        work.again(name, move |turn| {
            let image = format!("{name}:{turn}");
            push(&image, &scratch, &config).map(|()| image)
        });
    }
    let everybody = ["pulled1", "pulled2", "pulled3", "pulled4", "pushed1", "pushed2"];
    work.until_all(&everybody);
    let collect = || {
        place.collect(&["--keep-last", "1", "--keep-tag", "push*:*", "--yes", "--format", "json"]).ok().json()
    };
    let first = collect();
    assert_eq!((&first["tags"], &first["manifests"]), (&2.into(), &0.into()), "{first:#}");
    work.until_all(&everybody);
    // Nobody can be pulling what was dropped so long ago.
    place.age_dropped();
    let second = collect();
    assert_eq!((&second["tags"], &second["manifests"]), (&0.into(), &2.into()), "{second:#}");
    assert!(second["bytes"].as_u64().unwrap() > 6_000_000, "{second:#}");
    work.until_all(&everybody);
    collect();
    let made = work.end();
    place.blobs_are_whole();
    let pushed: Vec<&String> = made.iter().filter(|image| !image.is_empty()).collect();
    assert!(pushed.len() >= 6, "{pushed:?}");
    for image in pushed {
        let image = format!("{PULL}/{image}");
        place.docker("nobody", &["pull", "-q", &image]).ok();
        root().run("docker", &["rmi", &image]).ok();
    }
    place.docker("nobody", &["pull", "-q", &format!("{PULL}/old:3")]).ok();
    assert_ne!(place.docker("nobody", &["pull", "-q", &format!("{PULL}/old:1")]).code, 0);
    let shown = place.show();
    assert!(shown["last_collection"]["when"].is_string(), "{shown:#}");
    root().moorage(&["show-registry"]).ok().says("collected");
}

/// Publishes a fresh image. Docker waits a while by itself; what it gives up for must be that it was told to come again.
fn push(image: &str, scratch: &Path, config: &Path) -> Result<(), String> {
    let name = format!("{PUSH}/{image}");
    root().shell(&format!(
        "cd {}; head -c 2000000 /dev/urandom >noise; tar -cf ground.tar noise; docker import ground.tar {name}",
        scratch.display()
    ))
    .ok();
    let mut last = String::new();
    // Docker itself has tried for a minute each time.
    for _ in 0..5 {
        let mut command: Command = root().command("docker");
        let pushed = Outcome::of(command.env("DOCKER_CONFIG", config).args(["push", "-q", &name]));
        if pushed.code == 0 {
            root().run("docker", &["rmi", &name]).ok();
            return Ok(());
        }
        last = pushed.whole();
        let told = ["garbage is being collected", "connection refused", "EOF", "connection reset"];
        if !told.iter().any(|words| last.contains(words)) {
            return Err(last);
        }
    }
    Err(last)
}

#[test]
fn what_shares_something_stays_whole() {
    let place = Place::published_to();
    // An index of two images, one layer of which both have.
    let shared = place.put_blob("multi", b"shared");
    let mut children = Vec::new();
    for architecture in ["amd64", "arm64"] {
        let config = place.put_blob("multi", format!("{{\"architecture\":\"{architecture}\"}}").as_bytes());
        let child = format!(
            r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":24,"digest":"{config}"}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":6,"digest":"{shared}"}}]}}"#
        );
        let name = digest(child.as_bytes());
        place.put_manifest(&format!("multi/manifests/{name}"), IMAGE, &child).says("201");
        children.push(format!(r#"{{"mediaType":"{IMAGE}","size":{},"digest":"{name}","platform":{{"os":"linux","architecture":"{architecture}"}}}}"#, child.len()));
    }
    let index =
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, children.join(","));
    place.put_manifest("multi/manifests/1", INDEX, &index).says("201");
    // Two tags on one digest, and one on another image with the same layers.
    place.publish(&["same:1", "same:2"]);
    place.publish(&["again:1"]);
    place.age();

    place
        .collect(&["--keep-tag", "multi:1", "--keep-tag", "same:2", "--grace", "0s", "--yes"])
        .ok()
        .says("again:1")
        .says("same:1");
    for name in
        children.iter().map(|child| child.split("\"digest\":\"").nth(1).unwrap().split('"').next().unwrap())
    {
        place
            .ask(&["-o", "/dev/null", "-H", &format!("Accept: {IMAGE}")], &format!("multi/manifests/{name}"))
            .says("200");
    }
    place.ask(&[], &format!("multi/blobs/{shared}")).says("shared200");
    assert_ne!(place.docker("nobody", &["pull", "-q", &format!("{PULL}/same:1")]).code, 0);
    place.docker("nobody", &["pull", "-q", &format!("{PULL}/same:2")]).ok();
    place.blobs_are_whole();

    // What was collected is pushed again: it must be sent, and come back whole.
    let (published, pulled) = (format!("{PUSH}/again:1"), format!("{PULL}/again:1"));
    place.image(&published);
    place.docker("ann", &["push", "-q", &published]).ok();
    place.collect(&["--keep-tag", "same:2", "--grace", "0s", "--yes"]).ok().says("again:1").says("multi:1");
    assert_ne!(place.docker("nobody", &["pull", "-q", &pulled]).code, 0);
    place.docker("ann", &["push", "-q", &published]).ok();
    root().run("docker", &["rmi", &published]).ok();
    place.docker("nobody", &["pull", "-q", &pulled]).ok();
    place.blobs_are_whole();
    assert_eq!(place.collect(&["--dry-run", "--grace", "0s"]).ok().says("nothing would go").code, 0);
}

#[test]
fn a_push_that_is_under_way_is_not_harmed() {
    let place = Place::published_to();
    let upload = || {
        let layer = place.put_blob("slow", b"layer");
        let config = place.put_blob("slow", b"{}");
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"{config}"}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":5,"digest":"{layer}"}}]}}"#
        )
    };
    // Its blobs are there, its manifest is not: they stay for an hour.
    place.publish(&["old:1"]);
    let manifest = upload();
    place.collect(&["--keep-last", "0", "--yes"]).ok().says("old:1").says("later");
    place.put_manifest("slow/manifests/1", IMAGE, &manifest).says("201");
    place.collect(&["--keep-tag", "none", "--grace", "0s", "--yes"]).ok().says("slow:1");
    // Without a grace they are gone, and the publisher is told, not fooled.
    let manifest = upload();
    place.collect(&["--grace", "0s", "--yes"]).ok();
    place.put_manifest("slow/manifests/1", IMAGE, &manifest).says("BLOB_UNKNOWN").says("400");
    let manifest = upload();
    place.put_manifest("slow/manifests/1", IMAGE, &manifest).says("201");
    place.blobs_are_whole();
}

#[test]
fn a_plan_is_applied_as_it_was_shown_or_refused() {
    let place = Place::published_to();
    place.publish(&["siem:1"]);
    place.publish(&["siem:2"]);
    place.age();
    let file = place.directory.path().join("plan.json");
    let file = file.to_str().unwrap();
    let rules = ["--keep-tag", "2", "--grace", "0s"];
    let plan = || {
        let said = place.collect(&[&rules[..], &["--dry-run", "--format", "json"]].concat()).ok();
        std::fs::write(file, &said.stdout).unwrap();
        said.json()["plan"].take()
    };
    let first = plan();
    assert_eq!(first["tags"][0]["tag"], "1", "{first:#}");
    assert!(first["bytes"].as_u64().unwrap() > 3_000_000, "{first:#}");
    // Nobody is there to answer, and nothing is done.
    place.collect(&rules).ends(2).says("--yes");
    assert_eq!(place.show()["repositories"][0]["tags"], serde_json::json!(["1", "2"]));

    // The tag is given to another image after the plan was made.
    place.publish(&["siem:1"]);
    place.collect(&["--plan", file, "--yes"]).ends(5).says("stale").says("siem:1").helps();
    assert_eq!(place.show()["repositories"][0]["tags"], serde_json::json!(["1", "2"]));
    // What has become garbage since is not in the plan, and stays.
    plan();
    place.publish(&["other:1"]);
    let done = place.collect(&["--plan", file, "--yes", "--format", "json"]).ok().json();
    assert_eq!((&done["tags"], &done["plan"]["tags"][0]["tag"]), (&1.into(), &"1".into()));
    let shown = place.show();
    assert_eq!(shown["repositories"][0]["name"], "other");
    assert_eq!(shown["repositories"][1]["tags"], serde_json::json!(["2"]));
    place.collect(&["--plan", file, "--yes"]).ends(5).says("stale");
    std::fs::write(file, "{}").unwrap();
    place.collect(&["--plan", file, "--yes"]).ends(2).helps();
    place.collect(&["--keep-tag", "[", "--dry-run"]).ends(2).helps();
    place.collect(&["--keep-for", "soon", "--dry-run"]).ends(2);
}

#[test]
fn what_is_in_use_stays_here_and_elsewhere() {
    let place = Place::published_to();
    for name in ["used:1", "unused:1", "elsewhere:1"] {
        place.publish(&[name]);
    }
    let image = format!("{PULL}/used:1");
    place.docker("nobody", &["pull", "-q", &image]).ok();
    let container = Container::of(&image);
    // What another host says that it uses.
    let manifest = place
        .ask(
            &[
                "-I",
                "-o",
                "/dev/null",
                "-D",
                "-",
                "-H",
                "Accept: application/vnd.docker.distribution.manifest.v2+json",
            ],
            "elsewhere/manifests/1",
        )
        .ok();
    let used = manifest
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix("Docker-Content-Digest: "))
        .unwrap()
        .trim()
        .to_owned();
    let list = format!(r#"{{"digests":{{"{used}":["container x"]}}}}"#);
    let layer = place.put_blob("moorage/in-use", list.as_bytes());
    let config = place.put_blob("moorage/in-use", b"{}");
    let list = format!(
        r#"{{"schemaVersion":2,"mediaType":"{IMAGE}","config":{{"mediaType":"application/vnd.oci.empty.v1+json","size":2,"digest":"{config}"}},"layers":[{{"mediaType":"application/vnd.moorage.in-use.v1+json","size":{},"digest":"{layer}"}}]}}"#,
        list.len()
    );
    place.put_manifest("moorage/in-use/manifests/far", IMAGE, &list).says("201");

    let all = ["--keep-last", "0", "--grace", "0s", "--yes"];
    place.collect(&all).ok().says("unused:1").never_says("elsewhere:1");
    let names = |shown: serde_json::Value| -> Vec<String> {
        shown["repositories"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(place.show()), ["elsewhere", "moorage/in-use", "used"]);

    // It has said nothing for two days: nobody knows what it uses.
    root().shell(&format!("find {STATE}/data/docker/registry/v2/repositories/moorage -name link -exec touch -d '2 days ago' {{}} +")).ok();
    place.collect(&all).ends(3).says("far").says("--forget-host far").helps();
    place.collect(&["--dry-run"]).ends(3);
    assert_eq!(names(place.show()), ["elsewhere", "moorage/in-use", "used"]);
    let with = |host: &'static str| [&all[..], &["--forget-host", host]].concat();
    place.collect(&with("near")).ends(4).says("far").helps();
    place.collect(&with("far")).ok().says("elsewhere:1");
    assert_eq!(names(place.show()), ["used"]);
    drop(container);
    root().run("docker", &["rmi", &image]).ok();
    place.collect(&all).ok().says("used:1");
    assert!(names(place.show()).is_empty());
}

#[test]
fn what_the_site_s_projects_name_stays() {
    let place = Place::published_to();
    for name in ["fixed:1", "fixed:2", "siem:rc-9.2", "siem:rc-8"] {
        place.publish(&[name]);
    }
    let tree = place.directory.path().join("tree");
    std::fs::create_dir_all(tree.join("product")).unwrap();
    let mut first = String::new();
    for name in ["siem:9.1", "siem:9.2", "siem:8.0", "base:1", "base:2", "agent:1"] {
        std::fs::write(tree.join("product/word"), name).unwrap();
        let url = format!("oci://{PUSH}/opt/{name}");
        let config = place.directory.path().join("ann");
        let words = ["publish-opt", tree.to_str().unwrap(), &url, "--format", "json"];
        let published = Outcome::of(root().command("moorage").env("DOCKER_CONFIG", config).args(words)).ok();
        if name == "agent:1" {
            first = published.json()["digest"].as_str().unwrap().to_owned();
        }
    }
    place.age();
    let scene = Scene::new("pinned");
    scene.raw(&format!(
        "[[branch]]\nmatch = \"9.*\"\nimage = \"{PULL}/siem:rc-{{branch}}\"\nopt = \"oci://{PULL}/opt/siem:{{branch}}\"\n\
         [[branch]]\nmatch = \"main\"\nimage = \"{PULL}/fixed:1\"\n\
         opt = [\"oci://{PULL}/opt/base:1\", \"oci://{PULL}/opt/agent@{first}\"]\n"
    ));
    // What the registry has under that name, and not somebody else's.
    scene.raw_as("elsewhere", "[[branch]]\nmatch = \"*\"\nimage = \"other.test/siem:{branch}\"\n");
    let all = ["--keep-last", "0", "--grace", "0s", "--yes", "--site", scene.site()];
    let gone = place.collect(&all).ok();
    let pinned = ["fixed:1", "siem:rc-9.2", "opt/siem:9.1", "opt/siem:9.2", "opt/base:1", "opt/agent:1"];
    for name in ["fixed:2", "siem:rc-8", "opt/siem:8.0", "opt/base:2"] {
        assert!(gone.stdout.contains(name), "{name} is there:\n{}", gone.whole());
    }
    for name in pinned {
        assert!(!gone.stdout.contains(name), "{name} is gone:\n{}", gone.whole());
    }
    place.docker("nobody", &["pull", "-q", &format!("{PULL}/siem:rc-9.2")]).ok();
    place.blobs_are_whole();
    for (name, tags) in [("opt/agent", vec!["1"]), ("opt/base", vec!["1"]), ("opt/siem", vec!["9.1", "9.2"])]
    {
        let shown = place.show();
        let all = shown["repositories"].as_array().unwrap();
        let found = all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name}: {shown:#}"));
        assert_eq!(found["tags"], serde_json::json!(tags), "{name}");
    }
    // A project that cannot be read may name anything.
    scene.raw("image = ");
    place.collect(&all).ends(2).says(&scene.project).helps();
    // Without it nothing needs them.
    scene.raw("[[branch]]\nmatch = \"main\"\nimage = \"demo\"\n");
    place.collect(&all).ok().says("opt/siem:9.1").says("opt/agent:1").says("fixed:1").says("siem:rc-9.2");
    assert!(place.show()["repositories"].as_array().unwrap().is_empty());
}

/// A container that was never started, gone at the end.
struct Container(String);

impl Container {
    fn of(image: &str) -> Container {
        Container(root().run("docker", &["create", image, "/x"]).ok().stdout.trim().to_owned())
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        root().run("docker", &["rm", &self.0]);
    }
}

#[test]
fn a_collection_that_is_killed_leaves_everything_whole() {
    let place = Place::published_to();
    place.publish(&["siem:1"]);
    place.publish(&["siem:2"]);
    let rules = ["collect-garbage", "--keep-last", "1", "--grace", "0s", "--yes"];
    let mut command = root().command("moorage");
    let killed = Outcome::of(command.env("MOORAGE_FAILPOINT", "collect-unlinked").args(rules));
    assert_eq!(killed.code, 128 + 9, "{}", killed.whole());
    // Pulls go on; publishers are let in again by a start.
    let kept = format!("{PULL}/siem:2");
    place.docker("nobody", &["pull", "-q", &kept]).ok();
    root().run("docker", &["rmi", &kept]).ok();
    place.start(&[]).ok().says("start the registry-writer");
    place.publish(&["siem:3"]);
    place.blobs_are_whole();
    let done = root().moorage(&[&rules[..], &["--format", "json"]].concat()).ok().json();
    assert!(done["bytes"].as_u64().unwrap() > 6_000_000, "{done:#}");
    let left = root().shell(&format!("ls {STATE}/data/docker/registry/v2/repositories")).ok();
    assert_eq!(left.stdout, "siem\n");
    place.collect(&["--dry-run", "--grace", "0s"]).ok().says("nothing would go");
    place.docker("nobody", &["pull", "-q", &format!("{PULL}/siem:3")]).ok();
}

/// These stop the daemon.
mod alone {
    use super::*;
    use crate::support::machine::{Daemons, world};

    const CONFIG: &str = "/etc/moorage/config.toml";

    /// The host's configuration is again what it was when this goes out of scope.
    struct Told(String, #[allow(dead_code, reason = "it goes last")] Daemons);

    impl Drop for Told {
        fn drop(&mut self) {
            world("stop", "daemon");
            std::fs::write(CONFIG, &self.0).unwrap();
        }
    }

    #[test]
    fn a_host_tells_the_registry_what_it_uses() {
        let place = Place::published_to();
        place.publish(&["used:1"]);
        let image = format!("{PULL}/used:1");
        place.docker("nobody", &["pull", "-q", &image]).ok();
        let container = Container::of(&image);
        root().shell(&format!("printf 'correct horse' | docker login -u ann --password-stdin {PUSH}")).ok();
        let before = std::fs::read_to_string(CONFIG).unwrap();
        world("stop", "daemon");
        let told = Told(before.clone(), Daemons);
        std::fs::write(CONFIG, format!("in_use_to = \"{PUSH}\"\n{before}")).unwrap();
        // An earlier run has said the same.
        let log = "/var/log/moorage/daemon.log";
        let from = std::fs::metadata(log).map_or(0, |found| found.len()) + 1;
        world("start", "daemon");
        let words = format!("{PUSH} knows what this host uses");
        let wait = format!("grep -q -m1 '{words}' <(exec tail --pid=$$ -c +{from} -F {log})");
        root().run("timeout", &["60", "bash", "-c", &wait]).ok();
        drop(told);
        root().shell(&format!("docker logout {PUSH}")).ok();
        let shown = place.show();
        assert_eq!(shown["repositories"][0]["name"], "moorage/in-use", "{shown:#}");
        let host = shown["repositories"][0]["tags"][0].as_str().unwrap().to_owned();

        // The container goes; the list that this host has told is still believed.
        drop(container);
        root().run("docker", &["rmi", &image]).ok();
        let all = ["--keep-last", "0", "--grace", "0s", "--yes"];
        place.collect(&all).ok().says("nothing went");
        place.collect(&[&all[..], &["--forget-host", &host]].concat()).ok().says("used:1");
    }
}
