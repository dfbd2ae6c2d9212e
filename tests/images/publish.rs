//! Publishing to a real registry that wants a login: what is there is not sent again.

#[path = "../support/docker_registry.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
pub mod docker_registry;

use std::path::Path;

use serde_json::Value;

use crate::engine::Engine;
use docker_registry::{DockerRegistry, PASSWORD};

/// Noise of 60 KB a file, the same each time.
pub fn tree(root: &Path, files: u64) {
    for number in 0..files {
        let directory = root.join(format!("product/{}", number % 20));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(format!("file-{number}")), noise(number + 1)).unwrap();
    }
}

pub fn noise(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::new();
    while bytes.len() < 60_000 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

pub fn log_in(engine: &Engine, host: &str) {
    use base64::Engine as _;
    let login = base64::engine::general_purpose::STANDARD.encode(format!("ann:{PASSWORD}"));
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{login}\"}}}}}}", host);
    let directory = engine.directory.path().join(".docker");
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("config.json"), config).unwrap();
}

#[test]
#[ignore = "needs an engine of its own: scripts/test --soak"]
fn an_image_goes_to_the_registry_once() {
    let (engine, registry) = (Engine::start(), DockerRegistry::with_login());
    let script =
        "mkdir ground && head -c 3000000 /dev/urandom >ground/noise && tar -C ground -cf ground.tar .";
    let place = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("sh").args(["-euc", script]).current_dir(place.path()).status();
    assert!(made.unwrap().success());
    let name = format!("{}/team/ground:1", registry.host());
    engine.docker(&["import", place.path().join("ground.tar").to_str().unwrap(), &name]);

    let (code, _, told) = engine.moorage(&["publish-image", &name, "--progress", "plain"]);
    assert_eq!(code, 6, "without a login: {told}");
    log_in(&engine, &registry.host());
    let publish = || {
        let (code, said, told) = engine.moorage(&["publish-image", &name, "--format", "json"]);
        assert_eq!(code, 0, "{told}");
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let first = publish();
    assert_eq!((first["layers"].as_u64(), first["sent_layers"].as_u64()), (Some(1), Some(1)));
    assert!(first["sent_bytes"].as_u64().unwrap() > 3_000_000);
    let second = publish();
    assert_eq!((second["sent_layers"].as_u64(), second["sent_bytes"].as_u64()), (Some(0), Some(0)));
    assert_eq!(first["digest"], second["digest"]);
    let (code, _, _) =
        engine.moorage(&["publish-image", "moorage/absent:latest", "--to", &name.replace(":1", ":2")]);
    assert_eq!(code, 4);
}

#[test]
#[ignore = "needs an engine of its own: scripts/test --soak"]
fn a_tree_goes_to_the_registry_and_then_only_what_changed() {
    let (engine, registry) = (Engine::start(), DockerRegistry::with_login());
    log_in(&engine, &registry.host());
    let place = tempfile::tempdir().unwrap();
    tree(place.path(), 400);
    let to = format!("oci://{}/opt/siem:9.2", registry.host());
    let publish = || {
        let (code, said, told) =
            engine.moorage(&["publish-opt", place.path().to_str().unwrap(), &to, "--format", "json"]);
        assert_eq!(code, 0, "{told}");
        serde_json::from_str::<Value>(&said).unwrap()
    };
    let first = publish();
    assert_eq!(first["sent_blobs"], first["blobs"]);
    let second = publish();
    assert_eq!((second["sent_blobs"].as_u64(), second["changed"].as_bool()), (Some(0), Some(false)));
    assert_eq!(first["digest"], second["digest"]);
    // 1 % of the files.
    for number in [7, 107, 207, 307] {
        std::fs::write(place.path().join(format!("product/7/file-{number}")), noise(number + 9000)).unwrap();
    }
    let third = publish();
    assert_eq!(third["changed"], true);
    let (sent, whole) = (third["sent_bytes"].as_f64().unwrap(), third["packed_bytes"].as_f64().unwrap());
    assert!(sent > 0.0 && sent / whole <= 0.1, "{sent} of {whole}");
}
