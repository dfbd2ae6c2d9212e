//! Host paths mounted into containers.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use moorage::opt::Person;
use moorage::report::{Fault, Kind};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::json;

use crate::driver::Docker;
use crate::world::{ANN, BOB, World, give, person};

fn case(world: &World) -> PathBuf {
    let case = world.home.join("data/case");
    std::fs::create_dir(&case).unwrap();
    std::fs::write(case.join("f"), "evidence").unwrap();
    give(&case, ANN);
    std::fs::set_permissions(&case, PermissionsExt::from_mode(0o700)).unwrap();
    case
}

/// The case on a mount that has these flags too.
fn remount(case: &Path, flags: MountFlags) {
    rustix::mount::mount_bind(case, case).unwrap();
    rustix::mount::mount_remount(case, MountFlags::BIND | flags, c"").unwrap();
}

fn place(world: &World, name: &str) -> PathBuf {
    world.storage().join(".store/binds").join(name)
}

#[test]
fn a_bind_is_mounted_when_docker_asks_and_unmounted_after_its_last_use() {
    let world = World::new();
    let case = case(&world);
    world.store.new_bind("siem-case", &case, &person(ANN), true).unwrap();
    world.store.new_bind("siem-case", &case, &person(ANN), true).unwrap();
    let place = place(&world, "siem-case");
    assert!(!place.exists());
    let docker = Docker::new(&world);
    let mounted = docker.ok("Mount", json!({"Name": "siem-case", "ID": "a"}));
    assert_eq!(mounted["Mountpoint"], json!(place));
    docker.ok("Mount", json!({"Name": "siem-case", "ID": "b"}));
    assert_eq!(std::fs::read(place.join("f")).unwrap(), b"evidence");
    let options = world.options(&place).unwrap();
    for flag in ["ro", "nosuid", "nodev"] {
        assert!(options.split(',').any(|option| option == flag), "{options}");
    }
    std::fs::write(place.join("g"), "x").unwrap_err();
    docker.ok("Unmount", json!({"Name": "siem-case", "ID": "a"}));
    assert!(world.options(&place).is_some());
    docker.ok("Unmount", json!({"Name": "siem-case", "ID": "b"}));
    docker.ok("Unmount", json!({"Name": "siem-case", "ID": "b"}));
    assert_eq!(world.options(&place), None);
    world.store.remove_volume("siem-case").unwrap();
    assert!(!place.exists());
    assert!(case.join("f").exists());
}

#[test]
fn a_file_and_a_writable_directory() {
    let world = World::new();
    let case = case(&world);
    give(&case.join("f"), ANN);
    remount(&case, MountFlags::NOSUID);
    world.store.new_bind("file", &case.join("f"), &person(ANN), false).unwrap();
    world.store.new_bind("dir", &case, &person(ANN), false).unwrap();
    let docker = Docker::new(&world);
    docker.ok("Mount", json!({"Name": "file", "ID": "a"}));
    docker.ok("Mount", json!({"Name": "dir", "ID": "a"}));
    std::fs::write(place(&world, "file"), "changed").unwrap();
    std::fs::write(place(&world, "dir").join("new"), "x").unwrap();
    assert_eq!(std::fs::read(case.join("f")).unwrap(), b"changed");
    assert!(case.join("new").exists());
}

#[test]
fn what_the_person_or_the_host_does_not_allow() {
    let world = World::new();
    let case = case(&world);
    let data = world.home.join("data");
    symlink("/etc", data.join("etc")).unwrap();
    let kind = |path: &Path, uid, read_only| {
        let error = world.store.new_bind("b", path, &person(uid), read_only).unwrap_err();
        let fault = Fault::of(&error);
        (fault.kind, fault.to_string())
    };
    let (denied, text) = kind(Path::new("/etc"), ANN, true);
    assert_eq!(denied, Kind::Denied);
    assert!(text.contains(data.to_str().unwrap()), "it says what is allowed: {text}");
    assert_eq!(kind(Path::new("/"), 0, true).0, Kind::Denied);
    assert_eq!(kind(&data.join("../archives"), 0, true).0, Kind::Denied);
    assert_eq!(kind(&data.join("etc"), 0, true).0, Kind::Denied);
    assert_eq!(kind(&data.join("etc/ssh"), 0, true).0, Kind::Denied);
    assert_eq!(kind(Path::new("data/case"), ANN, true).0, Kind::Denied);
    assert_eq!(kind(&data.join("missing"), ANN, true).0, Kind::NotFound);
    assert_eq!(kind(&case, BOB, true).0, Kind::Denied);
    // Reading is not writing: the file is root's, and so is the directory above.
    assert_eq!(kind(&case.join("f"), ANN, false).0, Kind::Denied);
    assert_eq!(kind(&data, ANN, false).0, Kind::Denied);
    world.store.new_bind("b", &data, &person(ANN), true).unwrap();
    assert_eq!(
        Fault::of(&world.store.new_bind("b", &case, &person(ANN), true).unwrap_err()).kind,
        Kind::Differs
    );
    assert!(world.store.new_bind("../b", &data, &person(ANN), true).is_err());
}

#[test]
fn what_is_writable_inside_gives_no_setuid_programs_to_the_host() {
    let world = World::new();
    let case = case(&world);
    give(&case.join("f"), ANN);
    for source in [&case, &case.join("f")] {
        let fault = Fault::of(&world.store.new_bind("b", source, &person(ANN), false).unwrap_err());
        assert_eq!(fault.kind, Kind::Denied, "{fault}");
        let next = fault.next.unwrap();
        assert!(next.contains("nosuid") && next.contains(":ro"), "{next}");
    }
    world.store.new_bind("ro", &case, &person(ANN), true).unwrap();
    remount(&case, MountFlags::NOSUID);
    world.store.new_bind("b", &case, &person(ANN), false).unwrap();
}

#[test]
fn root_inside_reads_all_below_so_a_directory_is_the_persons_or_for_all() {
    let world = World::new();
    let shared = world.home.join("data/shared");
    std::fs::create_dir(&shared).unwrap();
    std::fs::write(shared.join("f"), "x").unwrap();
    remount(&shared, MountFlags::NOSUID);
    let map = |path: &Path, person: &Person, read_only: bool| {
        let made = world.store.new_bind("b", path, person, read_only).map_err(|e| Fault::of(&e));
        made.and_then(|()| world.store.remove_volume("b").map_err(|e| Fault::of(&e)))
    };
    let set = |uid: u32, gid: u32, mode: u32| {
        std::os::unix::fs::chown(&shared, Some(uid), Some(gid)).unwrap();
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(mode)).unwrap();
    };
    let ann = Person { uid: ANN, gid: ANN, groups: vec![777] };
    let denied = |read_only| {
        let fault = map(&shared, &ann, read_only).unwrap_err();
        assert_eq!(fault.kind, Kind::Denied, "{fault}");
        assert!(fault.to_string().contains("belong"), "{fault}");
    };
    // Bob lets all list his directory, and its files may be his alone.
    set(BOB, BOB, 0o755);
    denied(true);
    // Ann's group may enter, the others may not.
    set(0, 777, 0o770);
    denied(true);
    denied(false);
    set(0, 777, 0o775);
    map(&shared, &ann, true).unwrap();
    map(&shared, &ann, false).unwrap();
    // As in /tmp: each their own files.
    set(0, 0, 0o1777);
    denied(true);
    denied(false);
    set(ANN, ANN, 0o700);
    map(&shared, &ann, false).unwrap();
    // A file has nothing below it.
    set(BOB, BOB, 0o755);
    let file = shared.join("f");
    std::os::unix::fs::chown(&file, Some(BOB), Some(777)).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o660)).unwrap();
    map(&file, &ann, true).unwrap();
    // But root inside could give it to somebody else.
    assert_eq!(map(&file, &ann, false).unwrap_err().kind, Kind::Denied);
    map(&shared, &person(BOB), false).unwrap();
}

#[test]
fn a_source_that_is_gone_is_an_error_and_not_a_new_directory() {
    let world = World::new();
    let case = case(&world);
    world.store.new_bind("b", &case, &person(ANN), true).unwrap();
    std::fs::rename(&case, world.home.join("elsewhere")).unwrap();
    let docker = Docker::new(&world);
    let error = docker.error("Mount", json!({"Name": "b", "ID": "a"}));
    assert!(error.contains("does not exist"), "{error}");
    assert!(!case.exists());
    // Or replaced by a link to what the person may not see.
    symlink("/root", &case).unwrap();
    let error = docker.error("Mount", json!({"Name": "b", "ID": "a"}));
    assert!(error.contains("symbolic link"), "{error}");
    assert_eq!(world.options(&place(&world, "b")), None);
}

#[test]
fn a_bind_works_after_a_reboot_and_a_read_only_source_stays_so() {
    let world = World::new();
    let case = case(&world);
    remount(&case, MountFlags::NOSUID);
    world.store.new_bind("b", &case, &person(ANN), false).unwrap();
    let docker = Docker::new(&world);
    docker.ok("Mount", json!({"Name": "b", "ID": "a"}));
    world.unmount_all();
    rustix::mount::unmount(&case, UnmountFlags::empty()).unwrap();
    // The check comes again with each mount.
    let error = docker.error("Mount", json!({"Name": "b", "ID": "a"}));
    assert!(error.contains("nosuid"), "{error}");
    remount(&case, MountFlags::NOSUID | MountFlags::NOEXEC);
    docker.ok("Mount", json!({"Name": "b", "ID": "a"}));
    let options = world.options(&place(&world, "b")).unwrap();
    assert!(options.contains("rw") && options.contains("noexec"), "{options}");
}
