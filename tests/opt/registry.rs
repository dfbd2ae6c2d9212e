//! Archives in a real registry: what was published is what is extracted, once, and as safely as from anywhere else.

#[path = "../support/docker_registry.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod docker_registry;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use moorage::image::publish::opt;
use moorage::oci::{Artifact, Blob, EMPTY, OPT_DIGEST, Registry};
use moorage::opt::Layer;
use moorage::report::{Event, Fault, Kind, Reporter};
use moorage::spec::{Archive, Digest, Reference};

use crate::pack::{Pack, noise, zstd};
use crate::world::{World, config, fetched, listening, person};
use docker_registry::{DockerRegistry, PASSWORD};

fn archive(of: impl std::fmt::Display) -> Archive {
    Archive { url: format!("oci://{of}"), sha256: None }
}

fn product(root: &Path) {
    std::fs::create_dir_all(root.join("product/bin")).unwrap();
    std::fs::write(root.join("product/bin/run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(root.join("product/bin/run"), PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::hard_link(root.join("product/bin/run"), root.join("product/bin/same")).unwrap();
    std::os::unix::fs::symlink("/nowhere", root.join("product/link")).unwrap();
    for number in 0..40 {
        std::fs::write(root.join(format!("product/{number}")), noise(50_000 + number)).unwrap();
    }
}

impl World {
    async fn open(&self, host: &str) -> Registry {
        Registry::open(host, &config(&self.home).docker).await.unwrap()
    }

    /// Publishes these blobs as the pieces of one archive, which has the digest that is said.
    async fn pieces(&self, to: &Reference, pieces: &[&[u8]], digest: Digest) {
        let registry = self.open(&to.registry).await;
        let mut blobs = Vec::new();
        for piece in pieces {
            blobs.push(registry.push_blob(to, piece).await.unwrap());
        }
        registry.push_blob(to, EMPTY).await.unwrap();
        let annotations = BTreeMap::from([(OPT_DIGEST.to_owned(), digest.to_string())]);
        let artifact = Artifact::opt_pieces(blobs, annotations);
        registry.push_manifest(to, artifact.media_type(), artifact.bytes().unwrap()).await.unwrap();
    }

    async fn get(&self, of: &Archive) -> Result<Layer, Fault> {
        let fetched = self.store.fetch(of, &person(12345), &Reporter::silent()).await;
        fetched.map_err(|e| Fault::of(&e))
    }
}

#[test]
fn a_published_tree_is_the_layer_and_is_transferred_once() {
    let (world, server) = (World::new(), DockerRegistry::plain());
    let to: Reference = format!("{}/opt/siem:9.2", server.host()).parse().unwrap();
    let source = tempfile::tempdir().unwrap();
    product(source.path());
    world.block_on(async {
        let registry = world.open(&server.host()).await;
        let silent = Reporter::silent();
        let published = opt::publish(&registry, &to, source.path(), &silent).await.unwrap();
        assert!(published.blobs > 3, "{published:?}");
        let (reporter, heard) = listening();
        let layer = world.store.fetch(&archive(&to), &person(12345), &reporter).await.unwrap();
        let whole = |event: &Event| matches!(event, Event::Progress { done, total, .. } if *total == Some(*done) && *done == published.packed_bytes);
        assert!(heard.lock().unwrap().iter().any(whole), "the progress has no end");
        let tree = world.tree(&layer);
        for name in ["product/0", "product/39", "product/bin/run"] {
            assert_eq!(
                std::fs::read(tree.join(name)).unwrap(),
                std::fs::read(source.path().join(name)).unwrap()
            );
        }
        let look = |name: &str| tree.join(name).symlink_metadata().unwrap();
        assert_eq!(look("product/bin/run").mode() & 0o7777, 0o755);
        assert_eq!(look("product/bin/run").ino(), look("product/bin/same").ino());
        assert!(look("product/link").is_symlink());
        assert_eq!(world.store.find(&archive(&to)).as_ref().map(fetched), Some(fetched(&layer)));

        // The same under its digest, and under another name.
        let pinned = archive(to.at(published.digest));
        assert_eq!(fetched(&world.get(&pinned).await.unwrap()), fetched(&layer));
        // Another tree under the tag is another layer; the digest still means the first.
        std::fs::write(source.path().join("product/7"), "new").unwrap();
        let after = opt::publish(&registry, &to, source.path(), &silent).await.unwrap();
        assert!(after.sent_blobs < after.blobs, "{after:?}");
        let second = world.get(&archive(&to)).await.unwrap();
        assert_ne!(second.digest, layer.digest);
        assert_eq!(std::fs::read(world.tree(&second).join("product/7")).unwrap(), b"new");
        assert_eq!(fetched(&world.get(&pinned).await.unwrap()), fetched(&layer));
        // What a digest means is known without the registry; what a tag means is not.
        drop(server);
        assert_eq!(fetched(&world.get(&pinned).await.unwrap()), fetched(&layer));
        let gone = world.get(&archive(&to)).await.unwrap_err();
        assert_eq!(gone.kind, Kind::Failed);
        assert!(gone.to_string().contains(&to.registry) && gone.next.is_some(), "{gone:?}");
    });
}

#[test]
fn the_hosts_login_is_used() {
    let (world, server) = (World::new(), DockerRegistry::with_login());
    let to: Reference = format!("{}/opt/siem:9.2", server.host()).parse().unwrap();
    let tar = zstd(&Pack::new().file("word", b"x").tar());
    world.block_on(async {
        let refused = world.get(&archive(&to)).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Denied, "{refused:?}");
        world.assert_untouched();
        let auth = {
            use base64::Engine as _;
            base64::engine::general_purpose::STANDARD.encode(format!("ann:{PASSWORD}"))
        };
        let login = format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, server.host());
        std::fs::write(world.home.join("docker.json"), login).unwrap();
        world.pieces(&to, &[&tar], Blob::of(&tar).digest).await;
        let layer = world.get(&archive(&to)).await.unwrap();
        assert_eq!(std::fs::read(world.tree(&layer).join("word")).unwrap(), b"x");
    });
}

#[test]
fn what_is_wrong_is_refused_and_leaves_nothing() {
    let (world, server) = (World::new(), DockerRegistry::plain());
    let at = |name: &str| format!("{}/opt/{name}:1", server.host()).parse::<Reference>().unwrap();
    let good = zstd(&Pack::new().file("word", b"x").tar());
    let escaping = zstd(&Pack::new().file("../escaped", b"x").tar());
    world.block_on(async {
        world.pieces(&at("digest"), &[&good], Digest([7; 32])).await;
        let fault = world.get(&archive(at("digest"))).await.unwrap_err();
        assert!(fault.to_string().contains("another digest"), "{fault}");
        world.pieces(&at("escaping"), &[&escaping], Blob::of(&escaping).digest).await;
        let fault = world.get(&archive(at("escaping"))).await.unwrap_err();
        assert!(fault.to_string().contains(".."), "{fault}");
        let (head, tail) = good.split_at(good.len() / 2);
        world.pieces(&at("cut"), &[head], Blob::of(head).digest).await;
        world.get(&archive(at("cut"))).await.unwrap_err();
        world.pieces(&at("turned"), &[tail, head], Blob::of(&good).digest).await;
        world.get(&archive(at("turned"))).await.unwrap_err();
        // The archive's own digest may be asked for, too.
        world.pieces(&at("good"), &[head, tail], Blob::of(&good).digest).await;
        let other = Archive { sha256: Some(Digest([9; 32])), ..archive(at("good")) };
        let fault = world.get(&other).await.unwrap_err();
        assert!(fault.to_string().contains("another digest"), "{fault}");
        let fault = world.get(&archive(at("absent"))).await.unwrap_err();
        assert_eq!(fault.kind, Kind::NotFound, "{fault}");
        world.assert_untouched();
        // What the registry's disk has in place of a piece is not what was published.
        let hex = Blob::of(&good).digest.hex();
        world.pieces(&at("whole"), &[&good], Blob::of(&good).digest).await;
        let data = format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
        let mut bytes = good.clone();
        *bytes.last_mut().unwrap() ^= 1;
        std::fs::write(server.directory.path().join(data), bytes).unwrap();
        let fault = world.get(&archive(at("whole"))).await.unwrap_err();
        assert!(fault.to_string().contains("sends sha256:"), "{fault}");
        world.assert_untouched();
    });
}

#[test]
fn a_transfer_that_breaks_off_is_taken_up_where_it_was() {
    let (world, server) = (World::new(), DockerRegistry::plain());
    let content = zstd(&Pack::new().file("noise", &noise(30_000_000)).tar());
    assert!(content.len() > 25 << 20, "it is to be streamed");
    let direct: Reference = format!("{}/opt/siem:1", server.host()).parse().unwrap();
    let cable = Cable::that_breaks_after(8_000_000, server.port);
    world.block_on(async {
        let registry = world.open(&server.host()).await;
        let blob = registry.push_blob(&direct, &content).await.unwrap();
        registry.push_blob(&direct, EMPTY).await.unwrap();
        let artifact = Artifact::opt(blob, BTreeMap::new());
        let bytes = artifact.bytes().unwrap();
        registry.push_manifest(&direct, artifact.media_type(), bytes).await.unwrap();
        let through = archive(format!("localhost:{}/opt/siem:1", cable.port));
        let layer = world.get(&through).await.unwrap();
        assert_eq!(layer.digest, blob.digest);
        assert!(cable.broken.load(Ordering::SeqCst), "it never broke");
    });
}

/// A way to the registry that breaks once, after so many bytes of one connection.
struct Cable {
    port: u16,
    broken: std::sync::Arc<AtomicBool>,
}

impl Cable {
    fn that_breaks_after(bytes: usize, registry: u16) -> Cable {
        let listener = TcpListener::bind("localhost:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let broken = std::sync::Arc::new(AtomicBool::new(false));
        let shared = broken.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let server = TcpStream::connect(("localhost", registry)).unwrap();
                let broken = shared.clone();
                std::thread::spawn(move || relay(client, server, bytes, &broken));
            }
        });
        Cable { port, broken }
    }
}

fn relay(mut client: TcpStream, mut server: TcpStream, bytes: usize, broken: &AtomicBool) -> Option<()> {
    let (mut from, mut to) = (client.try_clone().ok()?, server.try_clone().ok()?);
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let (mut passed, mut chunk) = (0, [0; 16 << 10]);
    loop {
        let count = server.read(&mut chunk).ok().filter(|count| *count > 0)?;
        passed += count;
        if passed > bytes && !broken.swap(true, Ordering::SeqCst) {
            client.shutdown(std::net::Shutdown::Both).ok()?;
            return None;
        }
        client.write_all(&chunk[..count]).ok()?;
    }
}
