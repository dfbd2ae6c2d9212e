//! Bad input and faults: a clear error, nothing lost, nothing half-made.

use crate::support::archive::{self, Archive};
use crate::support::web::{Manner, Web};
use crate::support::{Outcome, Person, Scene, ann, root};

/// `make-dev-container` fails like this and leaves nothing; the same with a good file works.
#[track_caller]
fn refused(scene: &Scene, code: i32, word: &str) -> Outcome {
    let said = scene.try_make(&ann(), &[]).ends(code).says(word).helps();
    scene.nothing_left();
    said
}

#[test]
fn an_unknown_project_or_branch_names_the_nearest() {
    let scene = Scene::new("unknown");
    let ann = ann();
    ann.public_key();
    let mistyped = scene.project.replace("unknown", "unkown");
    ann.moorage(&["make-dev-container", &mistyped, "main", "--site", scene.site()])
        .ends(4)
        .says(&scene.project)
        .helps();
    ann.moorage(&["make-dev-container", &scene.project, "mian", "--site", scene.site()])
        .ends(4)
        .says("main")
        .helps();
    scene.nothing_left();
}

#[test]
fn an_unknown_image_names_the_command_that_makes_it() {
    let scene = Scene::new("noimage");
    scene.raw("[defaults]\nimage = \"no-such-image\"\n[[branch]]\nmatch = \"main\"\n");
    refused(&scene, 4, "no-such-image");
}

#[test]
fn an_unknown_key_names_the_file_the_line_and_the_nearest() {
    let scene = Scene::new("badkey");
    scene.raw("[defaults]\nimage = \"demo\"\nulimit = { nofile = 1024 }\n[[branch]]\nmatch = \"main\"\n");
    let said = refused(&scene, 2, "ulimits");
    said.says(&format!("{}.toml", scene.project)).says("3");
    scene.raw("this is no TOML");
    refused(&scene, 2, &scene.project);
}

#[test]
fn a_site_that_is_none_is_refused() {
    ann().moorage(&["list-projects", "--site", "/no/such/site"]).ends(4).says("/no/such/site").helps();
}

/// What is wrong with an archive, its bytes, and a word that the error has to say.
fn hostile() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let good = || Archive::product("x");
    vec![
        ("outside.tar.zst", good().file("../escaped", 0o644, b"x").zst(), ".."),
        ("inner.tar.zst", good().file("product/../../escaped", 0o644, b"x").zst(), ".."),
        ("absolute.tar.zst", good().file("/escaped", 0o644, b"x").zst(), "/escaped"),
        ("link-out.tar.zst", good().hard_link("product/shadow", "/etc/shadow").zst(), "shadow"),
        ("link-up.tar.zst", good().hard_link("product/shadow", "../../etc/shadow").zst(), "shadow"),
        ("device.tar.zst", good().device("product/mem").zst(), "product/mem"),
        (
            "through-link.tar.zst",
            good().symlink("product/etc", "/etc").file("product/etc/escaped", 0o644, b"x").zst(),
            "product/etc",
        ),
    ]
}

#[test]
fn a_hostile_archive_cannot_write_outside_its_directory() {
    let scene = Scene::new("hostile");
    for (name, bytes, word) in hostile() {
        let url = scene.archive(name, &bytes);
        scene.write(&format!("opt = \"{url}\""));
        refused(&scene, 1, word).says(name);
        for escaped in ["/etc/escaped", "/escaped", "/var/lib/escaped", "/var/lib/moorage/escaped"] {
            assert!(!std::path::Path::new(escaped).exists(), "{name} wrote {escaped}");
        }
    }
}

#[test]
fn a_damaged_archive_is_refused_and_the_mended_one_taken() {
    let scene = Scene::new("damaged");
    let good = Archive::product(&scene.project).file("product/more", 0o644, &[7; 100_000]).gz();
    for (name, bytes) in [
        ("truncated.tar.gz", good[..good.len() / 2].to_vec()),
        ("junk.tar.gz", b"this is no archive at all, whatever its name says".to_vec()),
        ("empty.tar.gz", vec![]),
        // A format that there is, and that is not ours: bzip2.
        ("other.tar.bz2", b"BZh91AY&SY\x94$|\x0e\x00\x00\x00\x81\x00\x03@".to_vec()),
    ] {
        let url = scene.archive(name, &bytes);
        scene.write(&format!("opt = \"{url}\""));
        refused(&scene, 1, name);
    }
    let url = scene.archive("truncated.tar.gz", &good);
    scene.write(&format!("opt = \"{url}\""));
    scene.make(&ann(), &[]);
}

#[test]
fn an_archive_from_the_network_is_what_its_digest_says_or_nothing() {
    let scene = Scene::new("digest");
    let bytes = Archive::product(&scene.project).zst();
    let wrong = archive::sha256(b"something else");
    let good = Web::serving(bytes.clone(), Manner::Well);
    let setting = |web: &Web, sha256: &str| {
        scene.write(&format!("opt = {{ url = \"{}\", sha256 = \"{sha256}\" }}", web.url("product.tar.zst")));
    };
    setting(&good, &wrong);
    refused(&scene, 1, &wrong[..8]);
    scene.write(&format!("opt = \"{}\"", good.url("product.tar.zst")));
    refused(&scene, 2, "sha256");
    let right = archive::sha256(&bytes);
    for (manner, code) in [(Manner::NotFound, 4), (Manner::HangsUpAt(bytes.len() / 2), 1)] {
        setting(&Web::serving(bytes.clone(), manner), &right);
        refused(&scene, code, "product.tar.zst");
    }
    setting(&good, &right);
    scene.make(&ann(), &[]);
}

#[test]
fn a_missing_archive_is_named() {
    let scene = Scene::new("missing");
    scene.write("opt = \"file:///usr/local/share/moorage/no-such.tar.zst\"");
    refused(&scene, 4, "no-such.tar.zst");
}

#[test]
fn an_archive_outside_the_allowed_directories_is_refused() {
    let scene = Scene::new("outside");
    scene.write("opt = \"file:///etc/shadow\"");
    refused(&scene, 6, "/etc/shadow").never_says("root:");
}

#[test]
fn a_source_that_cannot_be_fetched_says_gits_words() {
    let scene = Scene::new("nosource");
    scene.write("[[defaults.source]]\nrepo = \"/no/such/repository\"");
    refused(&scene, 1, "/no/such/repository");
    let source = scene.repository(&[("README", 0o644, "x\n")]);
    scene.write(&format!("[[defaults.source]]\nrepo = \"{source}\"\nref = \"no-such-branch\""));
    refused(&scene, 4, "no-such-branch");
}

#[test]
fn a_failing_set_up_step_keeps_the_container_and_the_same_command_retries() {
    let scene = Scene::new("setup");
    scene.write("setup = [\"echo one >>~/ran\", \"echo sorry >&2; test -e ~/mended\"]");
    scene.try_make(&ann(), &[]).ends(1).says("sorry").helps();
    let listed = scene.containers();
    assert_eq!(listed.len(), 1, "the container has to stay");
    assert_eq!(listed[0]["state"], "setup-failed");
    let name = listed[0]["name"].as_str().unwrap();
    scene.inside(&ann(), name, "touch ~/mended").ok();
    scene.make(&ann(), &[]);
    assert_eq!(scene.containers()[0]["state"], "running");
    // Done is done.
    scene.make(&ann(), &[]);
    let ran = scene.inside(&ann(), name, "cat ~/ran").ok().stdout;
    assert!(ran == "one\n" || ran == "one\none\n", "the first step ran again after all was done: {ran}");
}

#[test]
fn an_interrupted_set_up_step_does_not_run_on() {
    use rustix::process::Signal;
    let scene = Scene::new("setupstop");
    // It says where it is, and that it was told to end.
    // A shell that hears of a signal just before it waits would wait on: it waits for its child, which is told, too.
    let step = "if [ ! -e ~/again ]; then trap 'touch ~/told; exit 1' TERM; echo waiting; while :; do sleep 1; done; fi";
    scene.write(&format!("setup = [\"{step}\"]"));
    let ann = ann();
    ann.public_key();
    scene.knows(&ann);
    let mut running = crate::support::Running::start(&ann, &scene.words(&[]));
    assert!(running.event("the step's word", |event| event["line"] == "waiting"), "the step never began");
    running.signal(Signal::INT);
    running.end().ends(130);
    let name = scene.containers()[0]["name"].as_str().unwrap().to_owned();
    scene.inside(&ann, &name, "timeout 30 sh -c 'until [ -e ~/told ]; do :; done'; touch ~/again").ok();
    scene.make(&ann, &[]);
}

#[test]
fn a_mapped_path_has_to_exist_and_be_allowed() {
    let scene = Scene::new("mounts");
    let make = |mount: &str| scene.try_make(&ann(), &["--mount", mount]);
    make("/opt/reference/no-such:/opt/x").ends(4).says("/opt/reference/no-such").helps();
    assert!(!std::path::Path::new("/opt/reference/no-such").exists(), "it was made");
    make("/etc:/opt/x:ro").ends(6).says("/etc").helps();
    make("/opt/reference/../../etc:/opt/x:ro").helps();
    std::os::unix::fs::symlink("/etc", "/opt/reference/planted").ok();
    let through = make("/opt/reference/planted:/opt/x:ro");
    assert_ne!(through.code, 0, "a link led out of the allowed directory: {}", through.whole());
    make("relative:/opt/x").ends(2).helps();
    scene.nothing_left();
}

#[test]
fn without_a_terminal_nothing_waits_for_an_answer() {
    let scene = Scene::new("prompt");
    let made = scene.make(&ann(), &[]);
    ann().moorage(&["remove-container", &made.name()]).ends(2).says("--yes").helps();
    assert_eq!(scene.containers().len(), 1);
}

#[test]
fn limits_beyond_what_the_kernel_gives_fail_cleanly() {
    let scene = Scene::new("limits");
    scene.write("limits = { memory = \"1MB\" }");
    let said = scene.try_make(&ann(), &[]);
    assert_ne!(said.code, 0, "a machine of one megabyte: {}", said.whole());
    said.helps();
    scene.remove_all();
    scene.nothing_left();
}

/// Every part of the work, so that each step has something to do.
fn whole(word: &str) -> Scene {
    let scene = Scene::new(word);
    let url = scene.archive("product.tar.zst", &Archive::product(&scene.project).zst());
    let source = scene.repository(&[("README", 0o644, "source\n")]);
    scene.write(&format!(
        "opt = \"{url}\"\nsetup = [\"echo set up\"]\nready = \"true\"\n[[defaults.source]]\nrepo = \"{source}\""
    ));
    scene
}

/// The steps of a make, in order (`spec::plan::Step::step`). The image is here already.
const STEPS: [&str; 7] = ["opt", "address", "source", "create", "start", "setup", "ready"];

/// Starts a make and stops it with `stop` as soon as `step` begins.
fn stopped_at(
    scene: &Scene,
    person: &Person,
    step: &str,
    stop: impl FnOnce(&crate::support::Running),
) -> Outcome {
    person.public_key();
    scene.knows(person);
    let mut running = crate::support::Running::start(person, &scene.words(&[]));
    let reached = running.reaches(step);
    if reached {
        stop(&running);
    }
    let end = running.end();
    assert!(reached, "the step {step} never began: {}", end.whole());
    end
}

#[test]
fn ctrl_c_in_every_step_undoes_everything() {
    use rustix::process::Signal;
    let scene = whole("ctrlc");
    for step in STEPS {
        let end = stopped_at(&scene, &ann(), step, |running| running.signal(Signal::INT));
        // A step that was over before the signal came is done and stays.
        if end.code == 130 {
            // Once set-up has begun the container stays, as with a step that fails.
            if !["setup", "ready"].contains(&step) {
                scene.undone();
                scene.nothing_left();
            }
        } else {
            end.ok();
        }
        scene.remove_all();
        scene.nothing_left();
    }
}

#[test]
fn a_client_that_is_killed_in_any_step_is_undone_or_the_next_run_converges() {
    use rustix::process::Signal;
    let scene = whole("killcli");
    for step in STEPS {
        stopped_at(&scene, &ann(), step, |running| running.signal(Signal::KILL));
        let made = scene.make(&ann(), &[]);
        scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
        scene.remove_all();
        scene.nothing_left();
    }
}

/// These stop daemons, or the LAN.
mod alone {
    use super::*;
    use crate::support::machine::{self, Daemons, world};
    use crate::support::small::Small;

    #[test]
    fn a_daemon_that_is_killed_in_any_step_finishes_or_undoes_when_it_is_back() {
        let scene = whole("killdaemon");
        let _daemons = Daemons;
        for step in STEPS {
            let end = stopped_at(&scene, &ann(), step, |_| world("kill9", "daemon"));
            assert_ne!(end.code, 0, "{}", end.whole());
            world("start", "daemon");
            let made = scene.make(&ann(), &[]);
            scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
            scene.remove_all();
            scene.nothing_left();
        }
    }

    #[test]
    fn a_set_up_step_that_a_killed_daemon_left_has_ended_when_the_next_begins() {
        let scene = Scene::new("setupleft");
        let _daemons = Daemons;
        // Its child holds a lock for as long as it lives; the next attempt must get it at once.
        let step = "exec 9>~/lock; flock -n 9 || exit 1; if [ ! -e ~/again ]; then touch ~/again; mkfifo ~/never; echo waiting; read x <>~/never; fi";
        scene.write(&format!("setup = [\"{step}\"]"));
        let ann = ann();
        ann.public_key();
        scene.knows(&ann);
        let mut running = crate::support::Running::start(&ann, &scene.words(&[]));
        let began = running.event("the step's word", |event| event["line"] == "waiting");
        assert!(began, "the step never began: {}", running.end().whole());
        world("kill9", "daemon");
        running.end().ends(1).says("daemon went away");
        world("start", "daemon");
        scene.make(&ann, &[]);
    }

    #[test]
    fn an_engine_that_is_killed_in_the_middle_leaves_nothing_that_hinders() {
        let scene = whole("killengine");
        let _daemons = Daemons;
        for step in ["create", "start"] {
            stopped_at(&scene, &ann(), step, |_| world("kill9", "dockerd"));
            world("start", "dockerd");
            let made = scene.make(&ann(), &[]);
            scene.ssh(&ann(), &made, "/opt/product/say").ok().says(&scene.project);
            scene.remove_all();
            scene.nothing_left();
        }
    }

    /// Its cable is pulled when this exists, and plugged in again when it goes.
    struct Unplugged(String);

    impl Unplugged {
        fn lab() -> Unplugged {
            let name = machine::lab_namespaces().into_iter().next().expect("the lab has a network namespace");
            // Whatever the lab's interfaces are called: all of them but the loopback.
            root().shell(&format!("for i in $(ip -n {name} -br link | awk '!/^lo / {{ sub(\"@.*\", \"\", $1); print $1 }}'); do ip -n {name} link set $i down; done")).ok();
            Unplugged(name)
        }
    }

    impl Drop for Unplugged {
        fn drop(&mut self) {
            let name = &self.0;
            root().shell(&format!("for i in $(ip -n {name} -br link | awk '!/^lo / {{ sub(\"@.*\", \"\", $1); print $1 }}'); do ip -n {name} link set $i up; done")).ok();
            // The lab's router advertises and its addresses come back with the command that made it.
            root().moorage(&["scripthacker", "start-lab", "--no-ping"]).ok();
        }
    }

    #[test]
    fn without_a_dhcp_answer_people_are_told_and_nothing_is_left() {
        let scene = Scene::with_product("nodhcp");
        {
            let _unplugged = Unplugged::lab();
            let said = scene.try_make(&ann(), &[]);
            assert!(said.code != 0, "made without an address: {}", said.whole());
            said.says("DHCP").helps();
            scene.nothing_left();
        }
        scene.make(&ann(), &[]);
    }

    #[test]
    fn a_parent_that_is_gone_is_named() {
        let scene = Scene::with_product("noparent");
        let parent = machine::parent();
        root().run("ip", &["link", "set", &parent, "down"]).ok();
        let said = scene.try_make(&ann(), &[]);
        root().run("ip", &["link", "set", &parent, "up"]).ok();
        root().moorage(&["scripthacker", "start-lab", "--no-ping"]).ok();
        assert_ne!(said.code, 0, "{}", said.whole());
        said.says(&parent).helps();
        scene.nothing_left();
        scene.make(&ann(), &[]);
    }

    #[test]
    fn a_fetch_that_a_killed_daemon_began_goes_on_where_it_was() {
        let scene = Scene::new("killfetch");
        let bytes = Archive::new().file("noise", 0o644, &noise(32 << 20)).zst();
        let web = Web::serving(bytes.clone(), Manner::StallsAfter(24 << 20));
        let (url, digest) = (web.url("product.tar.zst"), archive::sha256(&bytes));
        scene.write(&format!("opt = {{ url = \"{url}\", sha256 = \"{digest}\" }}"));
        ann().public_key();
        scene.knows(&ann());
        let _daemons = Daemons;
        let mut running = crate::support::Running::start(&ann(), &scene.words(&[]));
        let reached = running.event("20 MiB of the archive", |event| {
            event["event"] == "progress" && event["step"] == "opt" && event["done"].as_u64() >= Some(20 << 20)
        });
        world("kill9", "daemon");
        let end = running.end();
        assert!(reached, "{}", end.whole());
        world("start", "daemon");
        let made = scene.make(&ann(), &[]);
        assert!(web.begun() >= 16 << 20, "it began at byte {} of {}", web.begun(), bytes.len());
        scene.ssh(&ann(), &made, "stat -c %s /opt/noise").ok().says("33554432");
    }

    #[test]
    fn a_full_store_is_said_and_nothing_is_half_made() {
        let archive = Scene::new("full");
        // A store that is too small, for one daemon's life.
        let big = Archive::new().file("big", 0o644, &noise(64 << 20)).zst();
        let url = archive.archive("big.tar.zst", &big);
        archive.write(&format!("opt = \"{url}\""));
        let source = Scene::new("fullsource");
        let repository = source.repository(&[("big", 0o644, &"much of the same\n".repeat(8 << 20))]);
        source.write(&format!("source = [{{ repo = \"{repository}\" }}]"));
        let _daemons = Daemons;
        world("stop", "daemon");
        let _small = Small::mounted("/opt/containers");
        world("start", "daemon");
        for scene in [&archive, &source] {
            scene.try_make(&ann(), &[]).ends(1).says("space").helps();
            scene.nothing_left();
        }
        world("stop", "daemon");
    }

    #[test]
    fn without_room_for_a_record_nothing_is_made() {
        let scene = Scene::with_product("fullrecords");
        let _daemons = Daemons;
        world("stop", "daemon");
        // In memory, where full means full at once.
        let records = "/var/lib/moorage";
        let _small = Small::over(records);
        root()
            .shell(&format!(
                "mkdir -p /run/records && mount -t tmpfs -o size=4m tmpfs /run/records && \
                 cp -a {records}/. /run/records && mount --move /run/records {records}"
            ))
            .ok();
        world("start", "daemon");
        let rest = "/var/lib/moorage/rest";
        root().shell(&format!("cat /dev/zero >{rest}"));
        scene.try_make(&ann(), &[]).ends(1).says("space").helps();
        std::fs::remove_file(rest).unwrap();
        scene.make(&ann(), &[]);
        scene.remove_all();
        world("stop", "daemon");
    }

    /// Bytes that no compressor makes smaller (xorshift64).
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        std::iter::repeat_with(|| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .flatten()
        .take(length)
        .collect()
    }
}
