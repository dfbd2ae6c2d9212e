//! What a person, or root inside a container, could try against the host.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use moorage::opt::Person;
use moorage::report::Kind;
use moorage::spec::Archive;

use crate::pack::{Pack, gzip};
use crate::world::{ANN, BOB, World, digest, entries, give, person, run_as};

fn at(path: &Path) -> Archive {
    Archive { url: format!("file://{}", path.display()), sha256: None }
}

#[test]
fn an_archive_is_opened_with_the_persons_rights() {
    let world = World::new();
    let bytes = gzip(&Pack::new().file("secret", b"x").tar());
    let archive = world.publish("a.tar.gz", &bytes);
    let path = world.home.join("archives/a.tar.gz");
    give(&path, ANN);
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let fault = world.fetch_as(&archive, &person(BOB)).unwrap_err();
    assert_eq!(fault.kind, Kind::Denied, "{fault}");
    world.assert_untouched();
    world.fetch_as(&archive, &person(ANN)).unwrap();
    // That it is in the store now does not give it to Bob, neither by its digest from somewhere else.
    assert_eq!(world.fetch_as(&archive, &person(BOB)).unwrap_err().kind, Kind::Denied);
    let elsewhere = Archive { url: "http://127.0.0.1:1/".into(), sha256: Some(digest(&bytes)) };
    world.fetch_as(&elsewhere, &person(BOB)).unwrap_err();
    // A supplementary group does.
    let bob = Person { uid: BOB, gid: BOB, groups: vec![ANN] };
    world.fetch_as(&archive, &bob).unwrap();
}

#[test]
fn archives_lie_where_the_host_allows() {
    let world = World::new();
    let bytes = gzip(&Pack::new().file("f", b"x").tar());
    std::fs::write(world.home.join("outside.tar.gz"), &bytes).unwrap();
    let archives = world.home.join("archives");
    let outside = world.home.join("outside.tar.gz");
    std::os::unix::fs::symlink(&outside, archives.join("link")).unwrap();
    std::os::unix::fs::symlink(&world.home, archives.join("up")).unwrap();
    let denied = |path: &Path, words: &str| {
        let fault = world.fetch(&at(path)).unwrap_err();
        assert_eq!(fault.kind, Kind::Denied, "{fault}");
        assert!(fault.to_string().contains(words), "{fault}");
    };
    denied(&outside, "outside");
    denied(&outside, archives.to_str().unwrap());
    denied(&archives.join("../outside.tar.gz"), "`..`");
    denied(&archives.join("link"), "symbolic link");
    denied(&archives.join("up/outside.tar.gz"), "symbolic link");
    denied(Path::new("/etc/shadow"), "outside");
    assert_eq!(world.fetch(&at(&archives.join("missing"))).unwrap_err().kind, Kind::NotFound);
    assert_eq!(world.fetch(&at(&archives)).unwrap_err().kind, Kind::Usage);
    // A FIFO would hold a thread for ever.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        archives.join("fifo"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    assert_eq!(world.fetch(&at(&archives.join("fifo"))).unwrap_err().kind, Kind::Usage);
}

#[test]
fn setuid_means_nothing_in_the_view() {
    let world = World::new();
    let id = std::fs::read("/usr/bin/id").unwrap();
    let layer = world.layer(Pack::new().file_mode("id", &id, 0o4755).tar());
    world.volume("siem", &[&layer]);
    // Root inside makes one, too.
    std::fs::copy("/usr/bin/id", world.merged("siem").join("id2")).unwrap();
    std::fs::set_permissions(world.merged("siem").join("id2"), PermissionsExt::from_mode(0o6755)).unwrap();
    for name in ["id", "id2"] {
        let said = run_as(ANN, Command::new(world.view("siem").join(name)).arg("-u"));
        assert_eq!(said, ANN.to_string());
    }
    // The same file without nosuid does give root: the test would notice.
    let plain = world.home.join("plain");
    std::fs::create_dir(&plain).unwrap();
    rustix::mount::mount_bind(world.merged("siem"), &plain).unwrap();
    assert_eq!(run_as(ANN, Command::new(plain.join("id")).arg("-u")), "0");
}

#[test]
fn a_device_in_the_upper_opens_nothing() {
    let world = World::new();
    world.volume("siem", &[]);
    let made = world.storage().join(".store/volumes/siem/upper-1/null");
    world.unmount_all();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &made,
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    let world = world.reopen();
    let said = run_as(ANN, Command::new("cat").arg(world.view("siem").join("null")));
    assert!(said.contains("Permission denied"), "{said}");
}

#[test]
fn only_the_owner_enters_and_nobody_the_store() {
    let world = World::new();
    world.volume("siem", &[&world.layer(Pack::new().file("f", b"hello").tar())]);
    let read = |uid, path: &Path| run_as(uid, Command::new("cat").arg(path));
    assert_eq!(read(ANN, &world.view("siem").join("f")), "hello");
    assert!(read(BOB, &world.view("siem").join("f")).contains("Permission denied"));
    assert!(read(ANN, &world.merged("siem").join("f")).contains("Permission denied"));
    let meta = world.storage().join("siem").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (ANN, ANN, 0o700));
}

#[test]
fn a_groups_container_is_for_its_members() {
    let world = World::new();
    let view = Some(moorage::opt::ViewOwner { uid: 0, gid: 777, group_readable: true });
    let request = moorage::opt::VolumeRequest { name: "shared".into(), layers: vec![], view };
    world.store.new_volume(request).unwrap().write_file("f", b"hello", 0o644, (0, 0)).unwrap();
    world.store.finish_volume("shared").unwrap();
    let meta = world.storage().join("shared").metadata().unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (0, 777, 0o750));
    let file = world.view("shared").join("f");
    assert!(run_as(ANN, Command::new("cat").arg(&file)).contains("Permission denied"));
    let member = Command::new("cat").arg(&file).uid(ANN).gid(777).output().unwrap();
    assert_eq!(member.stdout, b"hello");
}

#[test]
fn a_view_is_never_mounted_through_what_the_owner_put_there() {
    let world = World::new();
    world.volume("siem", &[]);
    let decoy = world.home.join("decoy");
    std::fs::create_dir(&decoy).unwrap();
    world.unmount_all();
    // Ann owns <root>/siem: with nothing mounted she can replace `opt` in it.
    let container = world.storage().join("siem");
    let swap = format!("rmdir opt && ln -s {} opt", decoy.display());
    assert_eq!(run_as(ANN, Command::new("sh").arg("-c").arg(swap).current_dir(&container)), "");
    let world = world.reopen();
    assert_eq!(world.options(&decoy), None);
    assert_eq!(world.options(&world.view("siem")), None);
    // The container is not kept from starting by it.
    assert!(world.options(&world.merged("siem")).is_some());
    std::fs::remove_file(container.join("opt")).unwrap();
    world.store.finish_volume("siem").unwrap();
    assert!(world.options(&world.view("siem")).unwrap().contains("nosuid"));
}

#[test]
fn a_staging_directory_is_the_persons_alone() {
    let world = World::new();
    let staging = world.store.staging(&person(ANN)).unwrap();
    let path = staging.path().to_owned();
    let meta = path.metadata().unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (ANN, 0o700));
    assert_eq!(run_as(ANN, Command::new("mkdir").arg(path.join("checkout"))), "");
    assert!(run_as(BOB, Command::new("ls").arg(&path)).contains("Permission denied"));
    assert!(run_as(BOB, Command::new("ls").arg(path.parent().unwrap())).contains("Permission denied"));
    drop(staging);
    assert!(!path.exists());
}

#[test]
fn what_was_opened_in_staging_gives_no_rights_once_the_checkout_is_in_the_volume() {
    let world = World::new();
    let upper = world.new_volume("siem", &[]).unwrap();
    let staging = world.store.staging(&person(ANN)).unwrap();
    let options = world.options(staging.path()).unwrap();
    assert!(options.contains("nosuid") && options.contains("nodev"), "{options}");
    // Ann stays where the checkout is, and keeps it open.
    let stay = "mkdir 0 && cd 0 && exec 3<. && echo ready && read go && \
                ./id -u && /proc/self/fd/3/id -u; ls ..; ls /proc/self/fd/3/..; mv id ../id";
    let mut ann = Command::new("sh")
        .args(["-c", stay])
        .current_dir(staging.path())
        .uid(ANN)
        .gid(ANN)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(ann.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    upper.move_checkout(&staging, "0", "src/siem").unwrap();
    world.store.finish_volume("siem").unwrap();
    drop(staging);
    // Root inside makes a program that gives root.
    let made = world.merged("siem").join("src/siem/id");
    std::fs::copy("/usr/bin/id", &made).unwrap();
    std::fs::set_permissions(&made, PermissionsExt::from_mode(0o6755)).unwrap();
    ann.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    ann.wait().unwrap();
    assert_eq!(rest, format!("{ANN}\n{ANN}\n"), "it is found there, means nothing, and nothing is above it");
    // Without nosuid it does give root: the test would notice.
    let plain = world.home.join("plain");
    std::fs::create_dir(&plain).unwrap();
    rustix::mount::mount_bind(world.merged("siem"), &plain).unwrap();
    assert_eq!(run_as(ANN, Command::new(plain.join("src/siem/id")).arg("-u")), "0");
    let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    assert!(!mounts.contains("staging"), "{mounts}");
    for place in ["staging", ".store/staging"] {
        assert_eq!(entries(&world.storage().join(place)), [] as [std::path::PathBuf; 0]);
    }
}

#[test]
fn a_thread_with_a_persons_rights_is_not_the_persons() {
    let world = World::new();
    let secret = world.home.join("secret");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o640)).unwrap();
    let ann = Person { uid: ANN, gid: BOB, groups: vec![777] };
    let signal = || {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        run_as(
            ANN,
            Command::new("sh").arg("-c").arg(format!("kill -0 {thread}; prlimit --nofile=9 --pid {thread}")),
        )
    };
    let look =
        || (std::fs::read_to_string("/proc/thread-self/status").unwrap(), std::fs::File::open(&secret));
    let (status, opened) = ann.run(look).unwrap();
    let said = std::thread::spawn(move || ann.run(signal).unwrap()).join().unwrap();
    assert_eq!(opened.unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    let line = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    // Real, effective, saved, filesystem (proc_pid_status(5)).
    assert_eq!(line("Uid:"), ["0", "0", "0", &ANN.to_string()]);
    assert_eq!(line("Gid:"), ["0", "0", "0", &BOB.to_string()]);
    assert_eq!(line("Groups:"), ["777"]);
    // CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID (capabilities(7)).
    let effective = u64::from_str_radix(&line("CapEff:")[0], 16).unwrap();
    assert_eq!(effective & 0b1_1111, 0);
    assert_eq!(said.matches("not permitted").count(), 2, "{said}");
    // What is given to the group is the person's, too.
    std::os::unix::fs::chown(&secret, None, Some(777)).unwrap();
    let ann = Person { uid: ANN, gid: ANN, groups: vec![777] };
    ann.run(|| std::fs::File::open(&secret)).unwrap().unwrap();
}

#[test]
fn a_link_in_staging_is_not_followed_by_its_removal() {
    let world = World::new();
    let staging = world.store.staging(&person(ANN)).unwrap();
    let kept = world.home.join("kept");
    std::fs::create_dir(&kept).unwrap();
    std::fs::write(kept.join("f"), "x").unwrap();
    std::os::unix::fs::symlink(&kept, staging.path().join("link")).unwrap();
    staging.discard().unwrap();
    assert!(kept.join("f").exists());
}
