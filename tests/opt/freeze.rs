//! Freezing, sharing, flattening, restoring: nobody sees a difference, and nothing is used twice.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use moorage::opt::{LayerId, Needs};
use moorage::report::Fault;

use crate::pack::Pack;
use crate::world::{World, entries};

/// What the archive of these volumes has.
fn archive() -> Vec<u8> {
    Pack::new()
        .directory("product", 0o750)
        .file("product/config", b"as published")
        .file("product/gone", b"to be removed")
        .file("product/old/a", b"a")
        .file("product/old/b", b"b")
        .file("product/replaced/inner", b"below")
        .file("product/tree/deep/file", b"deep")
        .symlink("link", "product/config")
        .tar()
}

fn sh(directory: &Path, script: &str) {
    let status = Command::new("sh").args(["-euc", script]).current_dir(directory).status().unwrap();
    assert!(status.success(), "{script}");
}

/// Everything that an overlay can make a difficulty of.
fn change(merged: &Path, round: usize) {
    if round == 0 {
        sh(
            merged,
            "rm product/gone
             mv product/old product/renamed
             echo more >product/renamed/c
             rm -r product/replaced; mkdir product/replaced; echo new >product/replaced/own
             rm -r product/tree; echo 'a file now' >product/tree
             echo one >product/one; ln product/one product/two; ln -s one product/three
             mkfifo product/fifo
             truncate -s 1M product/sparse; printf x | dd of=product/sparse bs=1 seek=524288 conv=notrunc status=none
             cp /bin/true product/capable; setcap cap_net_raw+ep product/capable
             echo x >product/attributes; setfattr -n user.note -v kept product/attributes
             mkdir product/marked; setfattr -n user.note -v directory product/marked; chmod 2770 product/marked
             chown 4242:4343 product/marked
             touch -d 2001-02-03T04:05:06.789 product/marked
             setfattr -n user.root -v yes .",
        );
    }
    sh(
        merged,
        &format!(
            "echo {round} >>product/config; echo {round} >product/round-{round}; rm -f product/round-{}",
            round.wrapping_sub(2)
        ),
    );
}

/// What somebody sees of a tree: each path with its kind, rights, size, times, content or target, attributes, and which
/// other names it has.
fn seen(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut seen = BTreeMap::new();
    let mut links: BTreeMap<u64, PathBuf> = BTreeMap::new();
    for entry in walkdir::WalkDir::new(top).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(top).unwrap().to_owned();
        let meta = entry.path().symlink_metadata().unwrap();
        let kind = meta.file_type();
        let content = match () {
            () if kind.is_symlink() => format!("{:?}", std::fs::read_link(entry.path()).unwrap()),
            () if kind.is_file() => crate::world::digest(&std::fs::read(entry.path()).unwrap()).to_string(),
            () => String::new(),
        };
        let attributes: Vec<_> = match kind.is_symlink() || kind.is_fifo() {
            true => Vec::new(),
            false => xattr::list(entry.path())
                .unwrap()
                .map(|name| (name.clone(), xattr::get(entry.path(), &name).unwrap()))
                .collect(),
        };
        let same = match meta.nlink() > 1 && !kind.is_dir() {
            true => links.entry(meta.ino()).or_insert_with(|| path.clone()).display().to_string(),
            false => String::new(),
        };
        let size = if kind.is_dir() { 0 } else { meta.len() };
        let text = format!(
            "{:o} {}:{} {size} {}.{:09} {content} {attributes:?} {same}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.mtime(),
            meta.mtime_nsec()
        );
        seen.insert(path, text);
    }
    seen
}

/// The same of a volume, as its container has it.
fn seen_in(world: &World, name: &str) -> BTreeMap<PathBuf, String> {
    seen(&world.merged(name))
}

#[track_caller]
fn same(one: &BTreeMap<PathBuf, String>, two: &BTreeMap<PathBuf, String>) {
    let paths: std::collections::BTreeSet<_> = one.keys().chain(two.keys()).collect();
    let differences: Vec<_> = paths
        .into_iter()
        .filter(|path| one.get(*path) != two.get(*path))
        .map(|path| format!("{}:\n  {:?}\n  {:?}", path.display(), one.get(path), two.get(path)))
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

fn freeze(world: &World, name: &str) -> Vec<LayerId> {
    let lowers = world.store.layers_of(name).unwrap();
    world.store.freeze(name, &LayerId::unused(), lowers).unwrap()
}

fn fork(world: &World, name: &str, layers: &[LayerId]) {
    let request = moorage::opt::VolumeRequest { name: name.into(), layers: layers.to_vec(), view: None };
    world.store.new_volume(request).unwrap();
    world.store.finish_volume(name).unwrap();
}

#[test]
fn a_frozen_volume_and_its_clone_show_what_was_there() {
    let world = World::new();
    world.volume("siem", &[&world.layer(archive())]);
    change(&world.merged("siem"), 0);
    let before = seen_in(&world, "siem");
    let layers = freeze(&world, "siem");
    fork(&world, "clone", &layers);
    same(&before, &seen_in(&world, "siem"));
    same(&before, &seen_in(&world, "clone"));
    same(&before, &seen(&world.view("siem")));
    // Each has its own from now on.
    std::fs::write(world.merged("clone").join("product/config"), "the clone's").unwrap();
    std::fs::write(world.merged("siem").join("product/mine"), "the source's").unwrap();
    std::fs::remove_dir_all(world.merged("clone").join("product/renamed")).unwrap();
    assert!(!world.merged("clone").join("product/mine").exists());
    assert!(world.merged("siem").join("product/renamed/c").exists());
    let expected = "as published0\n";
    assert_eq!(std::fs::read_to_string(world.merged("siem").join("product/config")).unwrap(), expected);
    // A sparse file stays one, and takes no place of the volume's own.
    let sparse = world.merged("clone").join("product/sparse").metadata().unwrap();
    assert!(sparse.blocks() * 512 < 64 << 10, "{} blocks", sparse.blocks());
    assert!(world.store.usage("clone").unwrap().upper_bytes < 1 << 20);
}

#[test]
fn upper_and_work_directories_are_never_used_twice() {
    let world = World::new();
    world.volume("siem", &[]);
    let used = |world: &World| {
        let home = world.merged("siem").parent().unwrap().to_owned();
        let names = entries(&home).into_iter().filter_map(|p| p.file_name()?.to_str().map(str::to_owned));
        names.filter(|name| name.contains('-')).collect::<Vec<_>>()
    };
    assert_eq!(used(&world), ["upper-1", "work-1"]);
    let first = freeze(&world, "siem");
    assert_eq!(used(&world), ["upper-2", "work-2"]);
    world.store.restack("siem", first).unwrap();
    assert_eq!(used(&world), ["upper-3", "work-3"]);
}

#[test]
fn a_stack_is_made_shorter_and_nobody_sees_it() {
    let world = World::new();
    let (low, high) = (world.layer(archive()), world.layer(Pack::new().file("product/high", b"high").tar()));
    world.volume("siem", &[&low, &high]);
    for round in 0..4 {
        change(&world.merged("siem"), round);
        freeze(&world, "siem");
    }
    let (before, layers) = (seen_in(&world, "siem"), world.store.layers_of("siem").unwrap());
    let (flat, held) = world.store.flatten("siem", &layers).unwrap();
    assert_eq!((layers.len(), flat.len()), (6, 3));
    // Nobody has the new one yet.
    assert_eq!(world.store.collect(|| Ok(Needs::default()), true).unwrap(), 0);
    // The archives stay shared.
    assert_eq!(flat[..2], [low.id(), high.id()]);
    assert_eq!(world.partial(), [] as [PathBuf; 0]);
    fork(&world, "flat", &flat);
    same(&before, &seen_in(&world, "flat"));
    drop(held);
    // Under an upper directory that was made over the high stack.
    change(&world.merged("siem"), 4);
    let before = seen_in(&world, "siem");
    let stack = world.store.freeze("siem", &LayerId::unused(), flat).unwrap();
    assert_eq!(stack.len(), 4);
    same(&before, &seen_in(&world, "siem"));
    // Again and again.
    for round in 5..8 {
        change(&world.merged("siem"), round);
        let before = seen_in(&world, "siem");
        let layers = freeze(&world, "siem");
        let (flat, _held) = world.store.flatten("siem", &layers).unwrap();
        world.store.restack("siem", flat).unwrap();
        same(&before, &seen_in(&world, "siem"));
    }
}

#[test]
fn a_stack_without_an_archive_is_made_shorter_too() {
    let world = World::new();
    world.volume("siem", &[]);
    std::fs::create_dir(world.merged("siem").join("product")).unwrap();
    for round in 1..4 {
        change(&world.merged("siem"), round);
        freeze(&world, "siem");
    }
    let (before, layers) = (seen_in(&world, "siem"), world.store.layers_of("siem").unwrap());
    let (flat, _held) = world.store.flatten("siem", &layers).unwrap();
    assert_eq!(flat.len(), 1);
    world.store.restack("siem", flat).unwrap();
    same(&before, &seen_in(&world, "siem"));
}

#[test]
fn a_restored_volume_is_what_it_was() {
    let world = World::new();
    world.volume("siem", &[&world.layer(archive())]);
    change(&world.merged("siem"), 0);
    let before = seen_in(&world, "siem");
    let layers = freeze(&world, "siem");
    change(&world.merged("siem"), 1);
    std::fs::remove_dir_all(world.merged("siem").join("product")).unwrap();
    freeze(&world, "siem");
    world.store.restack("siem", layers).unwrap();
    same(&before, &seen_in(&world, "siem"));
    assert_eq!(world.partial(), [] as [PathBuf; 0]);
}

#[test]
fn whoever_stands_in_the_view_sees_the_old_state_and_changes_nothing() {
    let world = World::new();
    world.volume("siem", &[]);
    std::fs::write(world.view("siem").join("file"), "old").unwrap();
    let mut shell = Command::new("cat")
        .current_dir(world.view("siem"))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let old = PathBuf::from(format!("/proc/{}/cwd", shell.id()));
    freeze(&world, "siem");
    std::fs::write(world.view("siem").join("file"), "new").unwrap();
    assert_eq!(std::fs::read(old.join("file")).unwrap(), b"old");
    let refused = std::fs::write(old.join("file"), "through the old mount").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(30), "{refused}");
    drop(shell.stdin.take());
    shell.wait().unwrap();
}

#[test]
fn a_file_that_is_open_for_writing_on_the_host_is_an_answer() {
    let world = World::new();
    world.volume("siem", &[]);
    let file = std::fs::File::create(world.view("siem").join("file")).unwrap();
    let fault = Fault::of(&world.store.freeze("siem", &LayerId::unused(), vec![]).unwrap_err());
    assert!(fault.to_string().contains("writes below") && fault.next.is_some(), "{fault}");
    // All is as before, and goes on.
    file.write_at(b"still writing", 0).unwrap();
    drop(file);
    freeze(&world, "siem");
    assert_eq!(std::fs::read(world.view("siem").join("file")).unwrap(), b"still writing");
}

/// The volume's record as a daemon would leave it that was killed in the middle of a freeze.
fn killed_freezing(world: &World, layer: &LayerId) {
    let path = world.home.join("state/volumes/siem.json");
    let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    record["phase"] = serde_json::json!({"freezing": {"layer": layer, "lowers": []}});
    std::fs::write(path, record.to_string()).unwrap();
}

#[test]
fn an_interrupted_freeze_is_undone_or_completed() {
    for renamed in [false, true] {
        let world = World::new();
        world.volume("siem", &[]);
        std::fs::write(world.merged("siem").join("data"), "precious").unwrap();
        let before = seen_in(&world, "siem");
        world.unmount_all();
        let (layer, home) = (LayerId::unused(), world.storage().join(".store/volumes/siem"));
        killed_freezing(&world, &layer);
        for name in ["upper-2", "work-2"] {
            std::fs::create_dir(home.join(name)).unwrap();
        }
        std::fs::set_permissions(home.join("upper-2"), PermissionsExt::from_mode(0o755)).unwrap();
        let frozen = serde_json::json!({"of": "siem", "when": jiff::Timestamp::now()});
        let store = world.storage().join(".store");
        std::fs::write(store.join(format!("frozen/{layer}.json")), frozen.to_string()).unwrap();
        if renamed {
            std::fs::rename(home.join("upper-1"), store.join(format!("layers/{layer}"))).unwrap();
        }
        let world = world.reopen();
        assert_eq!(std::fs::read(world.view("siem").join("data")).unwrap(), b"precious");
        assert_eq!(world.store.layers_of("siem").unwrap().len(), usize::from(renamed));
        assert_eq!(entries(&home).len(), 4, "{:?}", entries(&home));
        freeze(&world, "siem");
        if !renamed {
            same(&before, &seen_in(&world, "siem"));
        }
        drop(world);
    }
}

#[test]
fn what_nothing_needs_is_collected_and_nothing_else() {
    let world = World::new();
    let (used, unused) = (world.layer(archive()), world.layer(Pack::new().file("x", &[7; 10_000]).tar()));
    world.volume("siem", &[&used]);
    change(&world.merged("siem"), 0);
    let snapshot = freeze(&world, "siem");
    change(&world.merged("siem"), 1);
    let middle = freeze(&world, "siem");
    fork(&world, "clone", &middle);
    let before = seen_in(&world, "clone");
    world.store.remove_volume("siem").unwrap();
    let needs = Needs::default();
    // Somebody holds the archive that no volume has.
    assert!(world.store.unneeded(&needs).unwrap().is_empty());
    let (digest, id) = (unused.digest, unused.id());
    drop(unused);
    let found = world.store.unneeded(&needs).unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].layer == id.as_str() && found[0].is_archive && found[0].bytes >= 10_000, "{found:?}");
    let pinned = moorage::spec::Archive { url: found[0].of.clone(), sha256: Some(digest) };
    let pins = Needs { archives: vec![pinned], ..Needs::default() };
    assert_eq!(world.store.collect(|| Ok(pins.clone()), true).unwrap(), 0);
    assert_eq!(world.store.collect(|| Ok(needs.clone()), false).unwrap(), 0);
    assert_eq!(world.store.collect(|| Ok(needs.clone()), true).unwrap(), 1);
    assert!(!world.storage().join(".store/layers").join(id.as_str()).exists());
    same(&before, &seen_in(&world, "clone"));
    // The clone goes, a snapshot stays: its layers stay, the one above goes.
    drop(used);
    world.store.remove_volume("clone").unwrap();
    let needs = Needs { layers: snapshot.iter().cloned().collect(), ..Needs::default() };
    assert_eq!(world.store.collect(|| Ok(needs.clone()), true).unwrap(), 1);
    fork(&world, "again", &snapshot);
    assert!(world.merged("again").join("product/renamed/c").exists());
    world.store.remove_volume("again").unwrap();
    assert_eq!(world.store.collect(|| Ok(Needs::default()), true).unwrap(), 2);
    let world = world.reopen();
    assert_eq!(entries(&world.storage().join(".store/layers")), [] as [PathBuf; 0]);
    assert_eq!(entries(&world.storage().join(".store/frozen")), [] as [PathBuf; 0]);
}
