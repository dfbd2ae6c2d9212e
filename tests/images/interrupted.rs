//! Publishing that is killed or cut off in the middle: the next run, or the same, sends only what is missing. And what is
//! said meanwhile: how much of how much.

use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::engine::Engine;
use crate::gate::Gate;
use crate::publish::docker_registry::DockerRegistry;
use crate::publish::{log_in, noise, tree};

/// Bytes of a layer.
const LAYER: u64 = 3_000_000;
/// What may be sent beside content: requests for what is there, manifest and configuration.
const WORDS: u64 = 400_000;

struct Place {
    engine: Engine,
    _registry: DockerRegistry,
    gate: Gate,
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        // One layer after another, so that some are there when the push ends.
        let engine = Engine::with(&["--max-concurrent-uploads=1"]);
        let registry = DockerRegistry::with_login();
        let gate = Gate::to(registry.port);
        log_in(&engine, &gate.host());
        Place { engine, _registry: registry, gate, directory: tempfile::tempdir().unwrap() }
    }

    fn spawn(&self, words: &[&str]) -> Child {
        self.engine.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The result, and the steps of the progress of `step`: how much of how much, and of what.
    fn publish(&self, words: &[&str], step: &str) -> (Value, Vec<(u64, u64, String)>) {
        let mut all = words.to_vec();
        all.extend(["--format", "json", "--progress", "json"]);
        let (code, said, told) = self.engine.moorage(&all);
        assert_eq!(code, 0, "{told}");
        let events = told.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let progress = events.filter(|event| event["event"] == "progress" && event["step"] == step);
        let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("no number: {value}"));
        let progress = progress.map(|event| {
            (number(&event["done"]), number(&event["total"]), event["unit"].as_str().unwrap().to_owned())
        });
        (serde_json::from_str(&said).unwrap(), progress.collect())
    }

    /// An image of three layers of noise.
    fn image(&self) -> String {
        let at = self.directory.path();
        for (seed, name) in [(1, "ground"), (2, "one"), (3, "two")] {
            let bytes: Vec<u8> = (0..LAYER / 60_000).flat_map(|part| noise(seed * 1000 + part)).collect();
            std::fs::write(at.join(name), bytes).unwrap();
        }
        std::fs::write(at.join("Dockerfile"), "FROM example.test/ground\nCOPY one /one\nCOPY two /two\n")
            .unwrap();
        let packed = Command::new("tar").args(["-cf", "ground.tar", "ground"]).current_dir(at).status();
        assert!(packed.unwrap().success());
        let at = at.to_str().unwrap();
        self.engine.docker(&["import", &format!("{at}/ground.tar"), "example.test/ground:latest"]);
        let name = format!("{}/team/three:1", self.gate.host());
        // The builder that every engine has.
        let socket = self.engine.socket();
        let mut build = Command::new("docker");
        build.args(["--host", &socket, "build", "--quiet", "--tag", &name, at]).env("DOCKER_BUILDKIT", "0");
        let built = build.output().unwrap();
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        name
    }
}

fn is_a_sum(progress: &[(u64, u64, String)], unit: &str) {
    assert!(!progress.is_empty(), "nothing was said");
    assert!(progress.iter().all(|(done, total, of)| done <= total && of == unit), "{progress:?}");
    assert!(progress.windows(2).all(|two| two[0].0 <= two[1].0 && two[0].1 <= two[1].1), "{progress:?}");
    let (done, total, _) = progress.last().unwrap();
    assert_eq!(done, total, "{progress:?}");
}

#[test]
#[ignore = "needs an engine of its own: scripts/test --soak"]
fn an_image_whose_publishing_was_killed_goes_on_with_what_is_missing() {
    let place = Place::new();
    let name = place.image();
    place.gate.stop_after(LAYER * 3 / 2);
    let mut running = place.spawn(&["publish-image", &name]);
    place.gate.until_stopped();
    running.kill().unwrap();
    running.wait().unwrap();
    place.gate.cut();
    let first = place.gate.sent();
    let (published, progress) = place.publish(&["publish-image", &name], "publish");
    let second = place.gate.sent();
    eprintln!("an image of {} bytes: killed after {first}, then {second} were sent", 3 * LAYER);
    assert_eq!((published["layers"].as_u64(), published["sent_layers"].as_u64()), (Some(3), Some(2)));
    assert!(second <= 2 * LAYER + WORDS, "{second} bytes for two layers");
    is_a_sum(&progress, "bytes");
    assert!(progress.last().unwrap().1 >= 2 * LAYER);
    let (again, _) = place.publish(&["publish-image", &name], "publish");
    assert_eq!((again["sent_layers"].as_u64(), &again["digest"]), (Some(0), &published["digest"]));
    assert!(place.gate.sent() <= WORDS);
}

#[test]
#[ignore = "needs an engine of its own: scripts/test --soak"]
fn an_image_gets_there_although_the_connection_is_cut() {
    let place = Place::new();
    let name = place.image();
    place.gate.stop_after(LAYER * 3 / 2);
    let mut running = place.spawn(&["publish-image", &name]);
    place.gate.until_stopped();
    place.gate.cut();
    assert!(running.wait().unwrap().success(), "the engine tries a layer again");
    // Three layers, and half a one once more.
    let sent = place.gate.sent();
    assert!(sent <= LAYER * 7 / 2 + WORDS + LAYER / 2, "{sent}");
    let (again, _) = place.publish(&["publish-image", &name], "publish");
    assert_eq!(again["sent_layers"].as_u64(), Some(0));
}

#[test]
#[ignore = "needs an engine of its own: scripts/test --soak"]
fn a_tree_whose_publishing_was_killed_or_cut_off_sends_each_piece_once() {
    let place = Place::new();
    let root = place.directory.path().join("opt");
    tree(&root, 400);
    let whole = 400 * 60_000;
    let (root, to) = (root.to_str().unwrap().to_owned(), format!("oci://{}/opt/siem:9.2", place.gate.host()));
    let words = ["publish-opt", root.as_str(), to.as_str()];
    place.gate.stop_after(whole / 2);
    let mut running = place.spawn(&words);
    place.gate.until_stopped();
    running.kill().unwrap();
    running.wait().unwrap();
    place.gate.cut();
    let first = place.gate.sent();
    let (published, progress) = place.publish(&words, "publish");
    let second = place.gate.sent();
    eprintln!("a tree of {whole} bytes: killed after {first}, then {second} were sent");
    let count = |what: &str| published[what].as_u64().unwrap();
    assert!(count("sent_blobs") < count("blobs"), "{published:#}");
    // Only the pieces that were on their way, at most eight of four times the average size, are sent twice.
    assert!(
        count("sent_bytes") <= count("packed_bytes") - first + 9 * (256 << 10) + WORDS,
        "{first}: {published:#}"
    );
    assert_eq!(count("bytes"), whole);
    is_a_sum(&progress, "bytes");
    assert_eq!(progress.last().unwrap().1, whole, "the total is that of the tree");

    // One that is cut off in the middle of it goes on by itself.
    for number in 0..400 {
        std::fs::write(format!("{root}/product/{}/file-{number}", number % 20), noise(number + 5000))
            .unwrap();
    }
    place.gate.stop_after(whole / 2);
    let mut running = place.spawn(&words);
    place.gate.until_stopped();
    place.gate.cut();
    assert!(running.wait().unwrap().success(), "a piece is tried again");
    let sent = place.gate.sent();
    assert!(sent <= whole + whole / 10 + 9 * (256 << 10), "{sent} of {whole}");
    let (again, _) = place.publish(&words, "publish");
    assert_eq!((again["sent_blobs"].as_u64(), again["changed"].as_bool()), (Some(0), Some(false)));
}
