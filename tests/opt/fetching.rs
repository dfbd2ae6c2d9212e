//! What a good archive becomes; fetching once, cancelling, taking up again; a full disk.

use std::os::linux::fs::MetadataExt as _;
use std::sync::atomic::Ordering;

use moorage::report::{Event, Fault, Kind, Reporter};
use rustix::fs::XattrFlags;
use tokio::sync::mpsc;
use tower::ServiceExt as _;

use crate::pack::{Pack, gzip, noise, xz, zstd};
use crate::server::Server;
use crate::world::{World, config, digest, entries, fetched, listening, person, tmpfs};

fn sample() -> Pack {
    Pack::new()
        .directory("./", 0o750)
        .directory("bin", 0o555)
        .file_mode("bin/tool", b"#!/bin/sh\n", 0o755)
        .file_mode("bin/suid", b"x", 0o4755)
        .owned("owned", 1001, 1002, 0o640)
        .owned("owned-suid", 1001, 1002, 0o6750)
        .file("implied/deep/file", b"content")
        .symlink("bin/link", "/etc/passwd")
        .hard_link("bin/same", "bin/tool")
        .sparse("sparse")
        .file("twice", b"first")
        .file("twice", b"second")
}

#[test]
fn the_tree_is_what_the_archive_says() {
    let world = World::new();
    let layer = world.layer(sample().tar());
    let tree = world.tree(&layer);
    let look = |name: &str| tree.join(name).symlink_metadata().unwrap();
    assert_eq!(look(".").st_mode() & 0o7777, 0o750);
    assert_eq!(look("bin").st_mode() & 0o7777, 0o555);
    assert_eq!(look("bin").st_mtime(), 1_700_000_000);
    assert_eq!(look("bin/tool").st_mode() & 0o7777, 0o755);
    assert_eq!(look("bin/suid").st_mode() & 0o7777, 0o4755);
    assert_eq!((look("owned").st_uid(), look("owned").st_gid()), (1001, 1002));
    assert_eq!(look("owned").st_mode() & 0o7777, 0o640);
    assert_eq!(look("owned-suid").st_mode() & 0o7777, 0o6750);
    assert_eq!(look("implied/deep").st_mode() & 0o7777, 0o755);
    assert_eq!(look("implied/deep/file").st_mtime(), 1_700_000_000);
    assert_eq!(std::fs::read_link(tree.join("bin/link")).unwrap().to_str(), Some("/etc/passwd"));
    assert_eq!(look("bin/link").st_mtime(), 1_700_000_000);
    assert_eq!(look("bin/same").st_ino(), look("bin/tool").st_ino());
    assert_eq!(std::fs::read(tree.join("twice")).unwrap(), b"second");
    let sparse = std::fs::read(tree.join("sparse")).unwrap();
    assert_eq!(sparse.len(), 1 << 20);
    assert!(sparse[..sparse.len() - 512].iter().all(|b| *b == 0));
    assert!(sparse[sparse.len() - 512..].iter().all(|b| *b == 7));
    assert!(look("sparse").st_blocks() * 512 < 1 << 20);
    assert_eq!(layer.files, 10);
}

#[test]
fn extended_attributes_and_times_of_the_pax_header() {
    let world = World::new();
    // cap_net_raw+ep as vfs_cap_data (capabilities(7)), little endian.
    let capability: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Pack::new()
        .pax(&[
            ("SCHILY.xattr.user.note", b"hello"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.security.selinux", b"label"),
            ("mtime", b"1600000000.5"),
        ])
        .file_mode("ping", b"x", 0o755)
        .pax(&[("SCHILY.xattr.user.note", b"on a directory")])
        .directory("d", 0o755)
        .tar();
    let (reporter, heard) = listening();
    let archive = world.publish("x.tar", &tar);
    let layer = world.block_on(world.store.fetch(&archive, &person(0), &reporter)).unwrap();
    let tree = world.tree(&layer);
    let mut value = [0; 64];
    let n = rustix::fs::getxattr(tree.join("ping"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..n], b"hello");
    let n = rustix::fs::getxattr(tree.join("ping"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(&value[..n], capability);
    let n = rustix::fs::getxattr(tree.join("d"), "user.note", &mut value[..]).unwrap();
    assert_eq!(&value[..n], b"on a directory");
    let time = tree.join("ping").metadata().unwrap();
    assert_eq!((time.st_mtime(), time.st_mtime_nsec()), (1_600_000_000, 500_000_000));
    let warned =
        |event: &Event| matches!(event, Event::Warning { text } if text.contains("security.selinux"));
    assert!(heard.lock().unwrap().iter().any(warned));
    // Setting what is there shows that the filesystem could have refused.
    rustix::fs::setxattr(tree.join("ping"), "user.note", b"again", XattrFlags::REPLACE).unwrap();
}

#[test]
fn every_format_gives_the_same_tree() {
    let world = World::new();
    let tar = sample().tar();
    let packed = [("gz", gzip(&tar)), ("xz", xz(&tar)), ("zst", zstd(&tar)), ("tar", tar.clone())];
    for (name, bytes) in packed {
        let layer = world.fetch(&world.publish(name, &bytes)).unwrap();
        assert_eq!(layer.digest, digest(&bytes));
        assert_eq!(std::fs::read(world.tree(&layer).join("implied/deep/file")).unwrap(), b"content");
    }
    // Members behind one another are one stream.
    let (a, b) = tar.split_at(tar.len() / 2);
    for (name, bytes) in [("gz2", [gzip(a), gzip(b)].concat()), ("zst2", [zstd(a), zstd(b)].concat())] {
        world.fetch(&world.publish(name, &bytes)).unwrap();
    }
}

#[test]
fn two_at_once_are_one_transfer_with_progress() {
    let world = World::new();
    let content = zstd(&Pack::new().file("noise", &noise(9_000_000)).tar());
    let size = content.len() as u64;
    world.block_on(async {
        let server = Server::start(content).await;
        let archive = server.archive("held");
        let (reporter, heard) = listening();
        let (second, mut waited) = waits();
        let open = async {
            waited.recv().await.unwrap();
            server.gate.add_permits(1);
        };
        let ann = person(12345);
        let (one, two, ()) = tokio::join!(
            world.store.fetch(&archive, &ann, &reporter),
            world.store.fetch(&archive, &ann, &second),
            open
        );
        assert_eq!(fetched(&one.unwrap()), fetched(&two.unwrap()));
        world.store.fetch(&archive, &ann, &reporter).await.unwrap();
        assert_eq!(server.asked.load(Ordering::SeqCst), 1);
        let last = |event: &Event| match event {
            Event::Progress { done, .. } => Some(*done),
            _ => None,
        };
        let heard = heard.lock().unwrap();
        let steps: Vec<u64> = heard.iter().filter_map(last).collect();
        assert_eq!(steps.last(), Some(&size));
        assert!(steps.len() >= 3 && steps.is_sorted(), "{steps:?}");
    });
}

#[test]
fn different_archives_come_in_parallel() {
    let world = World::new();
    world.block_on(async {
        let one = Server::start(gzip(&Pack::new().file("one", b"1").tar())).await;
        let two = Server::start(gzip(&Pack::new().file("two", b"2").tar())).await;
        let ann = person(12345);
        let silent = Reporter::silent();
        let (held, other) = (one.archive("held"), two.archive("plain"));
        let mut first = Box::pin(world.store.fetch(&held, &ann, &silent));
        // The first hangs until the second is done.
        tokio::select! {
            _ = &mut first => panic!("the gate is shut"),
            second = world.store.fetch(&other, &ann, &silent) => { second.unwrap(); }
        }
        one.gate.add_permits(1);
        first.await.unwrap();
    });
}

/// A reporter, and what comes each time that somebody waits.
fn waits() -> (Reporter, mpsc::UnboundedReceiver<()>) {
    let (waiting, waits) = mpsc::unbounded_channel();
    let reporter = Reporter::new(move |event| {
        if matches!(&event, Event::Begin { text, .. } if text.contains("waiting")) {
            let _ = waiting.send(());
        }
    });
    (reporter, waits)
}

async fn servers(count: usize) -> Vec<Server> {
    let mut servers = Vec::new();
    for n in 0..count {
        servers.push(Server::start(gzip(&Pack::new().file("n", n.to_string().as_bytes()).tar())).await);
    }
    servers
}

#[test]
fn two_slow_archives_of_one_person_leave_room_for_the_others() {
    let world = World::new();
    world.block_on(async {
        let servers = servers(5).await;
        let (ann, bob) = (person(12345), person(12346));
        let silent = Reporter::silent();
        let known = world.store.fetch(&servers[4].archive("plain"), &ann, &silent).await.unwrap();
        let (reporter, mut waited) = waits();
        let held: Vec<_> = servers.iter().map(|server| server.archive("held")).collect();
        let plain: Vec<_> = servers.iter().map(|server| server.archive("plain")).collect();
        let first = world.store.fetch(&held[0], &ann, &silent);
        let second = world.store.fetch(&held[1], &ann, &silent);
        let others = async {
            {
                let third = world.store.fetch(&plain[2], &ann, &reporter);
                tokio::select! {
                    _ = third => panic!("two of Ann's go on already"),
                    _ = waited.recv() => {}
                }
                // And she goes away: her place is free again.
            }
            let third = world.store.fetch(&plain[2], &ann, &reporter);
            let theirs = async {
                waited.recv().await.unwrap();
                world.store.fetch(&plain[3], &bob, &silent).await.unwrap();
                // What is here needs no turn.
                let again = world.store.fetch(&plain[4], &ann, &silent).await.unwrap();
                assert_eq!(fetched(&again), fetched(&known));
                assert_eq!(servers[2].asked.load(Ordering::SeqCst), 0);
                servers[0].gate.add_permits(1);
            };
            let (third, ()) = tokio::join!(third, theirs);
            third.unwrap();
            servers[1].gate.add_permits(1);
        };
        let (first, second, ()) = tokio::join!(first, second, others);
        first.unwrap();
        second.unwrap();
    });
}

#[test]
fn so_many_fetches_at_a_time() {
    let world = World::new();
    world.block_on(async {
        let servers = servers(9).await;
        let silent = Reporter::silent();
        let held: Vec<_> = servers.iter().map(|server| server.archive("held")).collect();
        let people: Vec<_> = (0..9).map(|n| person(12345 + n / 2)).collect();
        let eight = (0..8).map(|n| world.store.fetch(&held[n], &people[n], &silent));
        let (reporter, mut waited) = waits();
        let last = servers[8].archive("plain");
        let others = async {
            let mut ninth = Box::pin(world.store.fetch(&last, &people[8], &reporter));
            tokio::select! {
                _ = &mut ninth => panic!("eight go on already"),
                _ = waited.recv() => {}
            }
            assert_eq!(servers[8].asked.load(Ordering::SeqCst), 0);
            servers.iter().for_each(|server| server.gate.add_permits(1));
            ninth.await.unwrap();
        };
        let eight = futures_util::future::try_join_all(eight);
        let (eight, ()) = tokio::join!(eight, others);
        assert_eq!(eight.unwrap().len(), 8);
    });
}

#[test]
fn a_slow_archive_takes_no_thread_from_docker() {
    let world = World::new();
    world.volume("siem", &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    runtime.unwrap().block_on(async {
        let server = Server::start(zstd(&Pack::new().file("noise", &noise(20_000_000)).tar())).await;
        let archive = server.archive("held");
        let (progress, mut progressed) = mpsc::unbounded_channel();
        let reporter = Reporter::new(move |event| {
            if let Event::Progress { .. } = event {
                let _ = progress.send(());
            }
        });
        let ann = person(12345);
        let mount = async {
            progressed.recv().await.unwrap();
            let call = axum::http::Request::post("/VolumeDriver.Mount")
                .body(axum::body::Body::from(r#"{"Name":"siem","ID":"a"}"#));
            // The time is there for the failure only.
            let answer = world.store.router().oneshot(call.unwrap());
            tokio::time::timeout(std::time::Duration::from_secs(20), answer).await.unwrap().unwrap()
        };
        tokio::select! {
            _ = world.store.fetch(&archive, &ann, &reporter) => panic!("the gate is shut"),
            answer = mount => assert!(answer.status().is_success()),
        }
        // It waits for the thread that was given up.
        server.gate.add_permits(2);
        world.store.fetch(&archive, &ann, &Reporter::silent()).await.unwrap();
    });
}

#[test]
fn a_dropped_fetch_leaves_nothing() {
    let world = World::new();
    world.block_on(async {
        let server = Server::start(zstd(&Pack::new().file("noise", &noise(20_000_000)).tar())).await;
        let archive = server.archive("held");
        let (progress, mut progressed) = mpsc::unbounded_channel();
        let reporter = Reporter::new(move |event| {
            if let Event::Progress { .. } = event {
                let _ = progress.send(());
            }
        });
        let ann = person(12345);
        tokio::select! {
            _ = world.store.fetch(&archive, &ann, &reporter) => panic!("the gate is shut"),
            _ = progressed.recv() => {}
        }
        // The next fetch of the same waits until the first has cleaned up, and fails before it makes anything.
        let mut missing = server.archive("missing");
        missing.sha256 = archive.sha256;
        let fault = Fault::of(&world.store.fetch(&missing, &ann, &Reporter::silent()).await.unwrap_err());
        assert_eq!(fault.kind, Kind::NotFound);
        world.assert_untouched();
        // And the archive can still be had.
        server.gate.add_permits(2);
        world.store.fetch(&archive, &ann, &Reporter::silent()).await.unwrap();
    });
}

#[test]
fn a_broken_transfer_is_taken_up_where_it_broke() {
    let world = World::new();
    world.block_on(async {
        let server = Server::start(zstd(&Pack::new().file("noise", &noise(3_000_000)).tar())).await;
        let archive = server.archive("broken");
        let layer = world.store.fetch(&archive, &person(12345), &Reporter::silent()).await.unwrap();
        assert_eq!(layer.bytes, 3_000_000);
        assert_eq!(server.asked.load(Ordering::SeqCst), 2);
    });
}

#[test]
fn no_server_is_a_clear_error() {
    let world = World::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/a.tar.gz", listener.local_addr().unwrap());
    drop(listener);
    let archive = moorage::spec::Archive { url: url.clone(), sha256: Some(digest(b"x")) };
    let fault = world.fetch(&archive).unwrap_err();
    assert!(fault.to_string().contains(&url), "{fault}");
    assert!(fault.to_string().to_lowercase().contains("connection refused"), "{fault}");
    world.assert_untouched();
}

#[test]
fn a_file_without_digest_is_read_once() {
    let world = World::new();
    let mut archive = world.publish("a.tar.gz", &gzip(&Pack::new().file("f", b"one").tar()));
    archive.sha256 = None;
    let path = world.home.join("archives/a.tar.gz");
    // Times of a file move in ticks: one that has just been written is not known by them. Nothing tells when the
    // tick is over, so the clock is asked.
    let age = || path.metadata().unwrap().modified().unwrap().elapsed().unwrap().as_millis();
    while age() < 150 {
        std::thread::yield_now();
    }
    let first = world.fetch(&archive).unwrap();
    // The second finds it by what stat(2) says: a progress report would mean that it was read.
    let (reporter, heard) = listening();
    let second = world.block_on(world.store.fetch(&archive, &person(0), &reporter)).unwrap();
    assert_eq!(fetched(&first), fetched(&second));
    assert!(!heard.lock().unwrap().iter().any(|event| matches!(event, Event::Progress { .. })));
    assert_eq!(world.store.find(&archive).as_ref().map(fetched), Some(fetched(&first)));
    // Another content of the same size is another layer.
    world.publish("a.tar.gz", &gzip(&Pack::new().file("f", b"two").tar()));
    let third = world.fetch(&archive).unwrap();
    assert_ne!(third.digest, first.digest);
    assert_eq!(std::fs::read(world.tree(&third).join("f")).unwrap(), b"two");
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    let world = World::at(|home| tmpfs(&home.join("storage"), "size=8m"));
    let archive = world.publish("big.tar.zst", &zstd(&Pack::new().file("zeros", &vec![1; 30_000_000]).tar()));
    let fault = world.fetch(&archive).unwrap_err();
    assert!(fault.to_string().contains("full"), "{fault}");
    assert!(fault.next.is_some());
    world.assert_untouched();
    // One that cannot fit is not even begun.
    let archive = world.publish("noise.tar", &Pack::new().file("noise", &noise(10_000_000)).tar());
    let fault = world.fetch(&archive).unwrap_err();
    assert!(fault.to_string().contains("free"), "{fault}");
    world.fetch(&world.publish("small.tar", &Pack::new().file("f", b"x").tar())).unwrap();
}

#[test]
fn what_a_crash_left_is_cleared() {
    let world = World::new();
    let layer = world.layer(Pack::new().file("f", b"x").tar());
    let store = world.storage().join(".store");
    std::fs::create_dir_all(store.join("partial/1234/a/b")).unwrap();
    std::fs::write(store.join("partial/1234/a/f"), "x").unwrap();
    std::fs::create_dir(store.join("layers/0123456789ab")).unwrap();
    std::fs::create_dir_all(world.storage().join("staging/dead/checkout")).unwrap();
    let staging = world.store.staging(&person(12345)).unwrap();
    let staged = staging.path().to_owned();
    std::fs::create_dir(staged.join("checkout")).unwrap();
    std::mem::forget(staging);
    let world = world.reopen();
    assert_eq!(world.options(&staged), None);
    assert_eq!(entries(&store.join("staging")), [] as [std::path::PathBuf; 0]);
    assert_eq!(world.partial(), [] as [std::path::PathBuf; 0]);
    assert!(!store.join("layers/0123456789ab").exists());
    assert_eq!(entries(&world.storage().join("staging")), [] as [std::path::PathBuf; 0]);
    assert!(world.tree(&layer).join("f").exists());
    assert_eq!(entries(&store.join("layers")).len(), 2);
}

#[test]
fn one_daemon_a_store() {
    let world = World::new();
    let error = moorage::opt::Store::open(config(&world.home)).err().unwrap();
    assert!(format!("{error:#}").contains("another daemon"), "{error:#}");
}
