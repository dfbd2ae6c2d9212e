//! Volumes: what is put in, how they are mounted, removed, and brought back.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use moorage::opt::{Phase, VolumeRequest};
use moorage::report::{Fault, Kind};

use crate::pack::Pack;
use crate::world::{ANN, World, entries, give, person, run_as};

fn base() -> Vec<u8> {
    Pack::new()
        .directory("etc", 0o750)
        .file("etc/config", b"from the archive")
        .symlink("link", "etc")
        .file("plain", b"x")
        .file("src/siem/old", b"old")
        .tar()
}

#[test]
fn layers_stack_and_the_view_shows_them() {
    let world = World::new();
    let low = world.layer(Pack::new().file("a", b"low").file("b", b"low").tar());
    let high = world.layer(Pack::new().file("b", b"high").tar());
    world.volume("siem", &[&low, &high]);
    let view = world.view("siem");
    assert_eq!(std::fs::read(view.join("a")).unwrap(), b"low");
    assert_eq!(std::fs::read(view.join("b")).unwrap(), b"high");
    let options = world.options(&view).unwrap();
    assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
    // It is one filesystem: what is written on one side is there on the other, and the layer keeps its own.
    std::fs::write(world.merged("siem").join("b"), "mine").unwrap();
    assert_eq!(std::fs::read(view.join("b")).unwrap(), b"mine");
    assert_eq!(std::fs::read(world.tree(&high).join("b")).unwrap(), b"high");
    let usage = world.store.usage("siem").unwrap();
    assert_eq!(usage.layers_bytes, 3 + 3 + 4);
    assert!(usage.upper_bytes >= 512, "{usage:?}");
    let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let line = text.lines().find(|line| line.contains("/siem/merged ")).unwrap().to_owned();
    assert!(line.contains("upperdir=") && line.contains("redirect_dir=on"), "{line}");
}

#[test]
fn things_are_put_in_before_the_first_mount() {
    let world = World::new();
    let layer = world.layer(base());
    let upper = world.new_volume("siem", &[&layer]).unwrap();
    upper.write_file("etc/licence", b"secret", 0o600, (ANN, ANN)).unwrap();
    upper.write_file("etc/config", b"ours", 0o644, (0, 0)).unwrap();
    upper.write_file("link2/new/file", b"x", 0o644, (0, 0)).unwrap();
    upper.make_home("home/ann", ANN, ANN).unwrap();
    upper.make_dirs("a/b").unwrap();
    let staging = world.store.staging(&person(ANN)).unwrap();
    let checkout = "mkdir siem && echo new > siem/new && ln -s /etc/shadow siem/link";
    assert_eq!(run_as(ANN, Command::new("sh").arg("-c").arg(checkout).current_dir(staging.path())), "");
    upper.move_checkout(&staging, "siem", "src/siem").unwrap();
    world.store.finish_volume("siem").unwrap();

    let merged = world.merged("siem");
    let look = |name: &str| merged.join(name).symlink_metadata().unwrap();
    assert_eq!((look("etc/licence").uid(), look("etc/licence").mode() & 0o7777), (ANN, 0o600));
    assert_eq!(std::fs::read(merged.join("etc/config")).unwrap(), b"ours");
    // The directory keeps what the archive says of it.
    assert_eq!(look("etc").mode() & 0o7777, 0o750);
    assert_eq!(look("a/b").mode() & 0o7777, 0o755);
    assert_eq!((look("home/ann").uid(), look("home").uid()), (ANN, 0));
    assert_eq!(
        entries(&merged.join("src/siem")),
        [merged.join("src/siem/link"), merged.join("src/siem/new")]
    );
    assert_eq!(look("src/siem/new").uid(), ANN);
}

#[test]
fn links_and_files_of_the_archive_are_not_followed() {
    let world = World::new();
    let outside = world.home.join("outside");
    std::fs::create_dir(&outside).unwrap();
    let tar = Pack::new()
        .symlink("out", outside.to_str().unwrap())
        .symlink("lic", "/etc/shadow")
        .file("plain", b"x");
    let layer = world.layer(tar.tar());
    let upper = world.new_volume("siem", &[&layer]).unwrap();
    let refused = |result: anyhow::Result<()>, words: &str| {
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains(words), "{error}");
    };
    refused(upper.write_file("out/planted", b"x", 0o644, (0, 0)), "symbolic link");
    refused(upper.make_dirs("out"), "symbolic link");
    refused(upper.make_dirs("out/deep"), "symbolic link");
    refused(upper.make_home("plain/ann", ANN, ANN), "a file");
    refused(upper.make_dirs("../outside/x"), "`..`");
    refused(upper.make_dirs("/etc"), "absolute");
    refused(upper.write_file(".", b"x", 0o644, (0, 0)), "name");
    // A link in place of the file itself gives way.
    upper.write_file("lic", b"mine", 0o644, (0, 0)).unwrap();
    world.store.finish_volume("siem").unwrap();
    assert!(world.merged("siem").join("lic").symlink_metadata().unwrap().is_file());
    assert_eq!(entries(&outside), [] as [std::path::PathBuf; 0]);
}

#[test]
fn a_planted_link_is_no_checkout() {
    let world = World::new();
    let upper = world.new_volume("siem", &[]).unwrap();
    let staging = world.store.staging(&person(ANN)).unwrap();
    symlink("/etc", staging.path().join("siem")).unwrap();
    symlink("/", staging.path().join("root")).unwrap();
    upper.move_checkout(&staging, "siem", "src/siem").unwrap_err();
    upper.move_checkout(&staging, "root/etc", "src/siem").unwrap_err();
    upper.move_checkout(&staging, "../siem", "src/siem").unwrap_err();
    upper.move_checkout(&staging, "missing", "src/siem").unwrap_err();
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn removal_takes_everything_and_repeats() {
    let world = World::new();
    let layer = world.layer(base());
    world.volume("siem", &[&layer]);
    std::fs::create_dir_all(world.view("siem").join("a/b/c")).unwrap();
    std::fs::write(world.storage().join("siem/notes"), "Ann's own").unwrap();
    // A shell that stands in the view does not keep it.
    let mut shell = Command::new("cat")
        .current_dir(world.view("siem"))
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    world.store.remove_volume("siem").unwrap();
    world.store.remove_volume("siem").unwrap();
    drop(shell.stdin.take());
    shell.wait().unwrap();
    assert!(!world.storage().join("siem").exists());
    assert!(!world.merged("siem").parent().unwrap().exists());
    assert_eq!(world.partial(), [] as [std::path::PathBuf; 0]);
    assert!(world.store.volumes().unwrap().is_empty());
    assert!(world.tree(&layer).join("etc/config").exists());
    assert_eq!(world.options(&world.merged("siem")), None);
    world.volume("siem", &[&layer]);
}

#[test]
fn a_volume_in_use_is_not_removed() {
    let world = World::new();
    world.volume("siem", &[]);
    std::fs::write(world.merged("siem").join("data"), "precious").unwrap();
    // What a container is to the volume: another mount namespace with the volume mounted in it.
    let mut container = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-c"])
        .arg(format!("mount --bind {} /mnt && echo ready && cat", world.merged("siem").display()))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(container.stdout.take().unwrap()), &mut line)
        .unwrap();
    assert_eq!(line, "ready\n");
    let fault = Fault::of(&world.store.remove_volume("siem").unwrap_err());
    assert!(fault.to_string().contains("in use"), "{fault}");
    assert_eq!(std::fs::read(world.view("siem").join("data")).unwrap(), b"precious");
    drop(container.stdin.take());
    container.wait().unwrap();
    world.store.remove_volume("siem").unwrap();
}

#[test]
fn a_reboot_brings_volumes_and_views_back() {
    let world = World::new();
    let layer = world.layer(base());
    world.volume("siem", &[&layer]);
    std::fs::write(world.view("siem").join("data"), "kept").unwrap();
    world.unmount_all();
    assert!(!world.view("siem").join("data").exists());
    let world = world.reopen();
    assert_eq!(std::fs::read(world.view("siem").join("data")).unwrap(), b"kept");
    assert!(world.options(&world.view("siem")).unwrap().contains("nosuid"));
    // A restart of the daemon alone leaves the mounts as they are.
    let before = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    let world = world.reopen();
    assert_eq!(std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap(), before);
    drop(world);
}

#[test]
fn one_lost_layer_does_not_keep_the_others_away() {
    let world = World::new();
    let lost = world.layer(Pack::new().file("lost", b"x").tar());
    world.volume("one", &[&lost]);
    world.volume("two", &[&world.layer(base())]);
    world.unmount_all();
    std::fs::remove_dir_all(world.tree(&lost)).unwrap();
    let world = world.reopen();
    assert_eq!(world.options(&world.merged("one")), None);
    assert!(world.options(&world.view("two")).is_some());
    // Fetched again, it is the same layer.
    let again = world.layer(Pack::new().file("lost", b"x").tar());
    assert_eq!(again.digest, lost.digest);
    world.store.finish_volume("one").unwrap();
    assert!(world.view("one").join("lost").exists());
}

#[test]
fn an_unfinished_volume_is_undone_and_a_removal_goes_on() {
    let world = World::new();
    world.new_volume("half", &[]).unwrap().make_dirs("a").unwrap();
    world.volume("going", &[]);
    world.volume("staying", &[]);
    let path = world.home.join("state/volumes/going.json");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("\"ready\"", "\"removing\"")).unwrap();
    let world = world.reopen();
    let names: Vec<_> = world.store.volumes().unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["staying"]);
    assert!(!world.storage().join("going").exists());
    assert_eq!(entries(&world.storage().join(".store/volumes")).len(), 1);
}

#[test]
fn an_unfinished_volume_is_replaced_and_a_finished_one_is_not() {
    let world = World::new();
    world.new_volume("siem", &[]).unwrap().make_dirs("first").unwrap();
    world.new_volume("siem", &[]).unwrap().make_dirs("second").unwrap();
    world.store.finish_volume("siem").unwrap();
    world.store.finish_volume("siem").unwrap();
    assert_eq!(entries(&world.merged("siem")), [world.merged("siem").join("second")]);
    let fault = Fault::of(&world.new_volume("siem", &[]).err().unwrap());
    assert_eq!(fault.kind, Kind::Differs);
    assert_eq!(world.store.volumes().unwrap()[0].1.phase, Phase::Ready);
}

#[test]
fn bad_requests_make_nothing() {
    let world = World::new();
    let refused = |name: &str, layers: Vec<moorage::opt::LayerId>| {
        let request = VolumeRequest { name: name.into(), layers, view: None };
        Fault::of(&world.store.new_volume(request).err().unwrap()).kind
    };
    for name in ["", ".store", "../x", "a/b", "staging", "logs", "a:b", "-x"] {
        assert_eq!(refused(name, vec![]), Kind::Usage, "{name}");
    }
    assert_eq!(refused("siem", vec![moorage::opt::LayerId::unused()]), Kind::NotFound);
    assert!(world.store.volumes().unwrap().is_empty());
    assert_eq!(Fault::of(&world.store.finish_volume("none").unwrap_err()).kind, Kind::NotFound);
}

#[test]
fn more_layers_than_a_page_of_options_holds() {
    let world = World::new();
    let layer = |n: usize| world.layer(Pack::new().file(&format!("f{n}"), n.to_string().as_bytes()).tar());
    let layers: Vec<_> = (0..20).map(layer).collect();
    // 20 different ones work, each seen; the same named 200 times is too much for the page.
    world.volume("many", &layers.iter().collect::<Vec<_>>());
    assert_eq!(entries(&world.view("many")).len(), 20);
    let repeated: Vec<_> = layers.iter().cycle().take(200).collect();
    let fault = Fault::of(&world.new_volume("more", &repeated).err().unwrap());
    assert!(fault.to_string().contains("too many"), "{fault}");
    assert_eq!(world.store.volumes().unwrap().len(), 1);
}

#[test]
fn a_store_without_its_disk_is_refused() {
    let mut world = World::at(|home| crate::world::tmpfs(&home.join("storage"), "size=64m"));
    world.volume("siem", &[]);
    world.unmount_all();
    let fault = Fault::of(&world.try_reopen().unwrap_err());
    assert_eq!(fault.kind, Kind::Missing);
    assert!(fault.to_string().contains("not mounted"), "{fault}");
    assert_eq!(entries(&world.storage()), [] as [std::path::PathBuf; 0]);
}

#[test]
fn an_overlay_cannot_hold_a_store() {
    let world = World::new();
    world.volume("siem", &[]);
    let mut config = crate::world::config(&world.home);
    config.storage = world.merged("siem").join("nested");
    config.state = world.home.join("state2");
    let fault = Fault::of(&moorage::opt::Store::open(config).err().unwrap());
    assert_eq!(fault.kind, Kind::Missing);
    assert!(fault.to_string().contains("overlay"), "{fault}");
}

#[test]
fn the_empty_root_belongs_to_root_and_all_may_read_it() {
    let world = World::new();
    world.volume("siem", &[]);
    let meta = world.view("siem").metadata().unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (0, 0o755));
    give(&world.home.join("data"), ANN);
    std::fs::set_permissions(world.home.join("data"), PermissionsExt::from_mode(0o700)).unwrap();
}

/// Everything the store keeps for volumes.
fn kept(world: &World) -> Vec<std::path::PathBuf> {
    let store = world.storage().join(".store");
    ["layers", "frozen", "volumes"].iter().flat_map(|place| entries(&store.join(place))).collect()
}

#[test]
fn a_volume_whose_record_is_lost_costs_nobody_a_layer() {
    let world = World::new();
    for name in ["siem", "other"] {
        world.volume(name, &[]);
        world.store.freeze(name, &moorage::opt::LayerId::unused(), vec![]).unwrap();
    }
    let before = kept(&world);
    let record = world.home.join("state/volumes/siem.json");
    std::fs::rename(&record, world.home.join("lost.json")).unwrap();
    let world = world.reopen();
    let nothing = || Ok(moorage::opt::Needs::default());
    let fault = Fault::of(&world.store.collect(nothing, true).unwrap_err());
    assert!(fault.to_string().contains("siem has no record") && fault.next.is_some(), "{fault}");
    assert!(world.store.unneeded(&moorage::opt::Needs::default()).is_err());
    assert_eq!(kept(&world), before);
    std::fs::rename(world.home.join("lost.json"), record).unwrap();
    assert_eq!(world.store.collect(nothing, true).unwrap(), 0);
    // Another that is being removed does not stand in the way.
    world.store.remove_volume("other").unwrap();
    assert_eq!(world.store.collect(nothing, true).unwrap(), 1);
}

#[test]
fn a_store_is_opened_with_its_own_records_only() {
    let mut world = World::new();
    world.volume("siem", &[]);
    world.store.freeze("siem", &moorage::opt::LayerId::unused(), vec![]).unwrap();
    let before = kept(&world);
    let (state, away) = (world.home.join("state"), world.home.join("away"));
    // Their disk is not mounted; then another one's are there.
    std::fs::rename(&state, &away).unwrap();
    let fault = Fault::of(&world.try_reopen().unwrap_err());
    assert_eq!(fault.kind, Kind::Missing);
    assert!(fault.to_string().contains("not those of the store"), "{fault}");
    std::fs::write(state.join("store-id"), "0123456789abcdef").unwrap();
    assert!(Fault::of(&world.try_reopen().unwrap_err()).to_string().contains("0123456789abcdef"));
    assert_eq!(kept(&world), before);
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(&away, &state).unwrap();
    world.try_reopen().unwrap();
    // A store of a version that wrote no ids gets one.
    for id in [state.join("store-id"), world.storage().join(".store/.moorage-store")] {
        std::fs::write(id, "").unwrap();
    }
    world.try_reopen().unwrap();
    let ids = [state.join("store-id"), world.storage().join(".store/.moorage-store")];
    let [of_records, of_store] = ids.map(|id| std::fs::read_to_string(id).unwrap());
    assert!(of_store == of_records && of_store.len() == 16, "{of_store:?} {of_records:?}");
    // One that holds nothing that could be lost takes any.
    world.store.remove_volume("siem").unwrap();
    world.store.collect(|| Ok(moorage::opt::Needs::default()), true).unwrap();
    std::fs::remove_dir_all(&state).unwrap();
    world.try_reopen().unwrap();
    assert_eq!(std::fs::read_to_string(state.join("store-id")).unwrap(), of_store);
}
