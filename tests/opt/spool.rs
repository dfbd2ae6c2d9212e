//! Transfers that go on where they were, and what is kept of archives that nothing needs.

use moorage::opt::Needs;
use moorage::report::{Event, Reporter};
use moorage::spec::ByteSize;
use tokio::sync::mpsc;

use crate::pack::{Pack, gzip, noise, zstd};
use crate::server::Server;
use crate::world::{World, digest, entries, person};

fn content() -> Vec<u8> {
    zstd(&Pack::new().file("noise", &noise(20_000_000)).tar())
}

impl World {
    fn spooled(&self) -> Vec<std::path::PathBuf> {
        entries(&self.storage().join(".store/spool"))
    }

    /// Begins to fetch from a server that hangs in the middle, and goes away when all that it sent is spooled.
    async fn begin(&self, server: &Server) {
        server.ranged.state().hangs = true;
        let (progress, mut progressed) = mpsc::unbounded_channel();
        let reporter = Reporter::new(move |event| {
            if let Event::Progress { .. } = event {
                let _ = progress.send(());
            }
        });
        let ann = person(12345);
        let archive = server.archive("ranged");
        let mut fetch = Box::pin(self.store.fetch(&archive, &ann, &reporter));
        let file = self.storage().join(".store/spool").join(archive.sha256.unwrap().hex());
        loop {
            tokio::select! {
                _ = &mut fetch => panic!("the server hangs"),
                _ = progressed.recv() => {}
            }
            let sent = server.ranged.state().sent as u64;
            // Progress is reported every 4 MiB of what was read from the spool; the rest of what was sent may still come.
            if file.metadata().unwrap().len() + (8 << 20) > sent {
                break;
            }
        }
        drop(fetch);
        // Its thread has the store for a moment more.
        while std::sync::Arc::strong_count(&self.store) > 1 {
            std::thread::yield_now();
        }
        server.ranged.state().hangs = false;
    }
}

#[test]
fn what_has_come_is_not_asked_for_again_by_the_next_daemon() {
    let world = World::new();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(content()));
    runtime.block_on(world.begin(&server));
    let world = world.reopen();
    let spooled = world.spooled();
    assert_eq!(spooled.len(), 1, "{spooled:?}");
    let archive = server.archive("ranged");
    let layer = runtime.block_on(world.store.fetch(&archive, &person(12345), &Reporter::silent())).unwrap();
    assert_eq!(layer.bytes, 20_000_000);
    let state = server.ranged.state();
    let (range, if_range) = state.asked[1].clone();
    let from: u64 =
        range.unwrap().strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse().unwrap();
    assert!(from >= 4 << 20, "only {from} bytes were kept");
    assert_eq!(if_range.as_deref(), Some("\"one\""));
    assert_eq!(state.asked.len(), 2);
    // The layer is there: what was spooled is of no use.
    assert_eq!(world.spooled(), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_server_without_ranges_sends_it_again_and_the_beginning_is_left_out() {
    let world = World::new();
    world.block_on(async {
        let server = Server::start(content()).await;
        world.begin(&server).await;
        server.ranged.state().whole = true;
        let archive = server.archive("ranged");
        let layer = world.store.fetch(&archive, &person(12345), &Reporter::silent()).await.unwrap();
        assert_eq!(layer.bytes, 20_000_000);
        assert_eq!(server.ranged.state().asked.len(), 2);
    });
}

#[test]
fn what_the_server_has_replaced_is_fetched_as_a_whole() {
    let world = World::new();
    world.block_on(async {
        let server = Server::start(content()).await;
        let old = zstd(&Pack::new().file("old", &noise(18_000_000)).tar());
        server.ranged.state().instead = Some((old.into(), "\"old\""));
        world.begin(&server).await;
        server.ranged.state().instead = None;
        let archive = server.archive("ranged");
        let layer = world.store.fetch(&archive, &person(12345), &Reporter::silent()).await.unwrap();
        assert_eq!(layer.digest, archive.sha256.unwrap());
        // If-Range made the server send all of it at once.
        let state = server.ranged.state();
        assert_eq!(state.asked[1].1.as_deref(), Some("\"old\""));
        assert_eq!(state.asked.len(), 2);
    });
}

#[test]
fn a_spool_that_was_damaged_costs_another_transfer_and_no_more() {
    let world = World::new();
    world.block_on(async {
        let server = Server::start(content()).await;
        let archive = server.archive("ranged");
        let file = world.storage().join(".store/spool").join(archive.sha256.unwrap().hex());
        for junk in [vec![0; 5_000_000], vec![7; 100], vec![1; 30_000_000]] {
            std::fs::write(&file, junk).unwrap();
            server.ranged.state().asked.clear();
            let layer = world.store.fetch(&archive, &person(12345), &Reporter::silent()).await.unwrap();
            assert_eq!(layer.digest, archive.sha256.unwrap());
            assert!(!server.ranged.state().asked.is_empty());
            drop(layer);
            world.store.collect(|| Ok(Needs::default()), true).unwrap();
        }
        assert_eq!(world.spooled(), [] as [std::path::PathBuf; 0]);
    });
}

#[test]
fn all_of_it_was_here_when_the_daemon_was_killed() {
    let world = World::new();
    world.block_on(async {
        let bytes = content();
        let server = Server::start(bytes.clone()).await;
        let archive = server.archive("ranged");
        let file = world.storage().join(".store/spool").join(archive.sha256.unwrap().hex());
        let (ann, silent) = (person(12345), Reporter::silent());
        let fetch = || world.store.fetch(&archive, &ann, &silent);
        std::fs::write(&file, &bytes).unwrap();
        assert_eq!(fetch().await.unwrap().bytes, 20_000_000);
        let sent = || {
            let state = server.ranged.state();
            (state.sent, state.asked.len())
        };
        assert_eq!(sent(), (0, 1));
        // A server without ranges would send it all: who knows that it is whole does not ask.
        world.store.collect(|| Ok(Needs::default()), true).unwrap();
        server.ranged.state().whole = true;
        std::fs::write(&file, &bytes).unwrap();
        let length = bytes.len().to_string();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(&file, "trusted.moorage.length", length.as_bytes(), flags).unwrap();
        assert_eq!(fetch().await.unwrap().bytes, 20_000_000);
        assert_eq!(sent(), (0, 1));
    });
}

#[test]
fn a_busy_server_is_asked_again() {
    let world = World::new();
    world.block_on(async {
        let server = Server::start(content()).await;
        server.ranged.state().busy = 2;
        let archive = server.archive("ranged");
        world.store.fetch(&archive, &person(12345), &Reporter::silent()).await.unwrap();
        assert_eq!(server.ranged.state().asked.len(), 3);
    });
}

#[test]
fn a_wrong_archive_leaves_nothing_to_go_on_with() {
    let world = World::new();
    world.block_on(async {
        let server = Server::start(content()).await;
        let mut archive = server.archive("ranged");
        archive.sha256 = Some(digest(b"another"));
        world.store.fetch(&archive, &person(12345), &Reporter::silent()).await.unwrap_err();
        assert_eq!(world.spooled(), [] as [std::path::PathBuf; 0]);
        world.assert_untouched();
    });
}

#[test]
fn what_nobody_has_wanted_for_longest_makes_room() {
    let world = World::new();
    let fetch = |name: &str| {
        let tar = gzip(&Pack::new().file(name, &noise(1_000_000)).file("name", name.as_bytes()).tar());
        world.fetch(&world.publish(name, &tar)).unwrap()
    };
    let [oldest, needed, older, newest, held] = ["1", "2", "3", "4", "5"].map(fetch);
    world.volume("siem", &[&needed]);
    // Wanted again, so it is not the oldest any more.
    let hour = |ago: u64| std::time::SystemTime::now() - std::time::Duration::from_secs(ago * 3600);
    for (layer, ago) in [(&oldest, 4), (&needed, 5), (&older, 3), (&newest, 2), (&held, 9)] {
        let record = world.storage().join(".store/layers").join(format!("{}.json", layer.id()));
        std::fs::File::open(record).unwrap().set_modified(hour(ago)).unwrap();
    }
    let archive = |name: &str| {
        let path = world.home.join("archives").join(name);
        moorage::spec::Archive { url: format!("file://{}", path.display()), sha256: None }
    };
    drop(world.fetch(&archive("1")).unwrap());
    let ids = [&oldest, &needed, &older, &newest, &held].map(|layer| layer.id());
    let is_here = |n: usize| world.storage().join(".store/layers").join(ids[n].as_str()).exists();
    drop((oldest, needed, older, newest));
    let evict = |limit| world.store.evict(|| Ok(Needs::default()), limit).unwrap();
    assert_eq!(evict(None), 0);
    assert_eq!(evict(Some(ByteSize(2_500_000))), 1);
    assert_eq!([0, 1, 2, 3, 4].map(is_here), [true, true, false, true, true]);
    assert_eq!(evict(Some(ByteSize(0))), 2);
    assert_eq!([0, 1, 2, 3, 4].map(is_here), [false, true, false, false, true]);
    drop(held);
    assert_eq!(evict(Some(ByteSize(0))), 1);
}
