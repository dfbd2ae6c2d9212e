//! The client for registries against the real one of the distribution.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test ends at what it did not expect")]

#[path = "support/docker_registry.rs"]
mod docker_registry;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use docker_registry::{DockerRegistry, PASSWORD};
use moorage::oci::{Access, Artifact, Blob, EMPTY, Registry};
use moorage::report::{Fault, Kind};
use moorage::spec::Reference;

/// Nobody's credentials, no certificates.
fn nobody(place: &Path) -> Access {
    Access { config: None, certificates: place.join("certs.d"), login: None }
}

/// Docker's configuration with this text.
fn configured(place: &Path, text: &str) -> Access {
    std::fs::write(place.join("config.json"), text).unwrap();
    Access { config: Some(place.join("config.json")), ..nobody(place) }
}

fn reference(registry: &DockerRegistry, name: &str) -> Reference {
    format!("oci://{}/{name}", registry.host()).parse().unwrap()
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| ((n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

/// Publishes an archive as publish-opt does.
async fn publish(registry: &Registry, to: &Reference, content: &[u8]) -> Reference {
    let archive = registry.push_blob(to, content).await.unwrap();
    registry.push_blob(to, EMPTY).await.unwrap();
    let artifact = Artifact::opt(archive, Default::default());
    let digest = registry.push_manifest(to, artifact.media_type(), artifact.bytes().unwrap()).await.unwrap();
    to.at(digest)
}

async fn all(registry: &Registry, of: &Reference, blob: &Blob, from: u64) -> Vec<u8> {
    let mut incoming = registry.blob(of, blob, from).await.unwrap();
    assert_eq!(incoming.from, from);
    let mut bytes = Vec::new();
    while let Some(chunk) = incoming.next().await.unwrap() {
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

#[tokio::test]
async fn what_is_pushed_is_pulled_whole_and_in_part() {
    let (server, place) = (DockerRegistry::plain(), tempfile::tempdir().unwrap());
    let registry = Registry::open(&server.host(), &nobody(place.path())).await.unwrap();
    let to = reference(&server, "opt/siem:9.2");
    assert_eq!(registry.resolve(&to).await.unwrap(), None);
    let content = noise(3_000_000);
    std::fs::write(place.path().join("a.tar"), &content).unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let told = sent.clone();
    let tell = move |done| told.store(done, Ordering::SeqCst);
    let blob = registry.push_file(&to, &place.path().join("a.tar"), tell).await.unwrap();
    assert_eq!(blob, Blob::of(&content));
    assert_eq!(sent.load(Ordering::SeqCst), 3_000_000);
    assert!(registry.has(&to, &blob.digest).await.unwrap());
    assert!(!registry.has(&to, &Blob::of(b"other").digest).await.unwrap());

    let pinned = publish(&registry, &to, &content).await;
    assert_eq!(registry.resolve(&to).await.unwrap(), pinned.digest);
    assert_eq!(registry.tags(&to).await.unwrap(), ["9.2"]);
    for name in [&to, &pinned] {
        let manifest = registry.manifest(name).await.unwrap();
        assert_eq!(Some(manifest.digest), pinned.digest);
        let found = Artifact::read(&manifest).unwrap().archive().unwrap();
        assert_eq!(found, blob);
        assert_eq!(all(&registry, name, &found, 0).await, content);
        assert_eq!(all(&registry, name, &found, 2_000_000).await, content[2_000_000..]);
    }
}

#[tokio::test]
async fn what_is_not_there_is_said() {
    let (server, place) = (DockerRegistry::plain(), tempfile::tempdir().unwrap());
    let registry = Registry::open(&server.host(), &nobody(place.path())).await.unwrap();
    let to = reference(&server, "opt/siem:9.2");
    let fault = Fault::of(&registry.manifest(&to).await.unwrap_err());
    assert_eq!(fault.kind, Kind::NotFound, "{fault}");
    assert!(fault.to_string().contains("opt/siem:9.2") && fault.next.is_some(), "{fault}");
    let missing = registry.blob(&to, &Blob::of(b"x"), 0).await.err().unwrap();
    assert_eq!(Fault::of(&missing).kind, Kind::NotFound);
    // A manifest that names what is not there is not taken.
    let artifact = Artifact::opt(Blob::of(b"x"), Default::default());
    let refused = registry.push_manifest(&to, artifact.media_type(), artifact.bytes().unwrap()).await;
    assert!(refused.is_err());
    assert_eq!(registry.resolve(&to).await.unwrap(), None);
}

#[tokio::test]
async fn a_manifest_of_another_digest_is_refused() {
    let (server, place) = (DockerRegistry::plain(), tempfile::tempdir().unwrap());
    let registry = Registry::open(&server.host(), &nobody(place.path())).await.unwrap();
    let to = reference(&server, "opt/siem:9.2");
    let one = publish(&registry, &to, b"one").await;
    let other = publish(&registry, &to, b"other").await;
    // The registry's disk says of one digest what belongs to the other.
    let revisions = |of: &Reference| {
        let hex = of.digest.unwrap().hex();
        server.directory.path().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    };
    std::fs::copy(revisions(&other), revisions(&one)).unwrap();
    assert!(registry.manifest(&one).await.is_err());
    registry.manifest(&other).await.unwrap();
}

#[tokio::test]
async fn dockers_own_login_is_used() {
    let (server, place) = (DockerRegistry::with_login(), tempfile::tempdir().unwrap());
    let to = reference(&server, "opt/siem:9.2");
    let open = async |access: &Access| Registry::open(&server.host(), access).await.unwrap();
    let denied = async |registry: Registry| {
        let fault = Fault::of(&registry.push_blob(&to, b"x").await.unwrap_err());
        assert_eq!(fault.kind, Kind::Denied, "{fault}");
        assert!(fault.next.unwrap().contains("docker login localhost:"));
        let fault = Fault::of(&registry.manifest(&to).await.unwrap_err());
        assert_eq!(fault.kind, Kind::Denied, "{fault}");
    };
    let encoded = |text: &str| {
        let mut command = std::process::Command::new("base64");
        let mut child =
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
    };
    let auth = |password: &str| {
        let auth = encoded(&format!("ann:{password}"));
        format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.host())
    };
    denied(open(&nobody(place.path())).await).await;
    denied(open(&configured(place.path(), "{}")).await).await;
    denied(open(&configured(place.path(), &auth("wrong"))).await).await;
    let registry = open(&configured(place.path(), &auth(PASSWORD))).await;
    publish(&registry, &to, b"x").await;

    // A credential helper is a program in the PATH that reads the host and prints the secret.
    let helper = place.path().join("docker-credential-test");
    let answer = format!(r#"{{"ServerURL":"{}","Username":"ann","Secret":"{PASSWORD}"}}"#, server.host());
    std::fs::write(
        &helper,
        format!(
            "#!/bin/sh\nread host\n[ \"$1 $host\" = 'get {}' ] || exit 1\necho '{answer}'\n",
            server.host()
        ),
    )
    .unwrap();
    std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    // SAFETY: each test is a process of its own, and no other thread of this one reads the environment now.
    #[allow(unsafe_code)]
    unsafe {
        std::env::set_var("PATH", format!("{}:{path}", place.path().display()));
    }
    let registry = open(&configured(place.path(), r#"{"credsStore":"test"}"#)).await;
    registry.manifest(&to).await.unwrap();
    std::fs::write(&helper, "#!/bin/sh\nread host\necho 'the agent is locked'\nexit 1\n").unwrap();
    let error = Registry::open(&server.host(), &configured(place.path(), r#"{"credsStore":"test"}"#)).await;
    let fault = Fault::of(&error.err().unwrap());
    assert!(fault.to_string().contains("the agent is locked"), "{fault}");
    // One that has nothing for this registry is no error.
    std::fs::write(
        &helper,
        "#!/bin/sh\nread host\necho 'credentials not found in native keychain'\nexit 1\n",
    )
    .unwrap();
    denied(open(&configured(place.path(), r#"{"credsStore":"test"}"#)).await).await;
}

#[tokio::test]
async fn certificates_are_checked_against_dockers_authorities() {
    let (server, place) = (DockerRegistry::with_tls(), tempfile::tempdir().unwrap());
    let access = nobody(place.path());
    let to = reference(&server, "opt/siem:9.2");
    let registry = Registry::open(&server.host(), &access).await.unwrap();
    let fault = Fault::of(&registry.manifest(&to).await.unwrap_err());
    assert!(
        fault.next.as_ref().unwrap().contains("/etc/docker/certs.d/localhost:"),
        "{fault} {:?}",
        fault.next
    );
    let of_host = access.certificates.join(server.host());
    std::fs::create_dir_all(&of_host).unwrap();
    std::fs::copy(server.authority(), of_host.join("ca.crt")).unwrap();
    let registry = Registry::open(&server.host(), &access).await.unwrap();
    publish(&registry, &to, b"x").await;
    registry.manifest(&to).await.unwrap();
    std::fs::write(of_host.join("ca.crt"), "no certificate").unwrap();
    assert!(Registry::open(&server.host(), &access).await.is_err());
}

#[tokio::test]
async fn nobody_who_listens_is_said_at_once() {
    let place = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let registry = Registry::open(&host, &nobody(place.path())).await.unwrap();
    let error = registry.manifest(&format!("{host}/a:1").parse().unwrap()).await.unwrap_err();
    let fault = Fault::of(&error);
    assert!(fault.to_string().contains("refused") && fault.to_string().contains(&host), "{fault}");
    // What is in another registry is not asked for here.
    let other = registry.manifest(&"elsewhere.corp/a:1".parse().unwrap()).await.unwrap_err();
    assert!(other.to_string().contains("is not in the registry"));
}
