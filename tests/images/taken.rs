//! The engine takes a base in while mmdebstrap writes it: what of that is left, and said, where either does not come to its end.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};

use crate::rebuild::Place;
use crate::relay::Relay;

const MAKE: [&str; 2] = ["make-base-image", "local-1"];

/// What somebody is about to make a base of, or was.
fn taken(place: &Place) -> Vec<String> {
    let said = place.engine.docker(&["images", "--quiet", "--no-trunc", "--filter", "label=moorage.taker"]);
    said.lines().map(str::to_owned).collect()
}

/// The directories that are worked in, or were.
fn directories(place: &Place) -> usize {
    let named = std::fs::read_dir(&place.engine.temporary).unwrap().map(|entry| entry.unwrap().file_name());
    named.filter(|name| name.to_str().unwrap().starts_with("moorage-base-")).count()
}

fn is_made(place: &Place) -> bool {
    !place.engine.docker(&["images", "--quiet", "moorage/local-1"]).is_empty()
}

/// Somebody who has the root filesystem in the engine, and has not given it its name yet.
fn before_its_name(place: &Place, number: usize) -> Child {
    let engine = place.engine.directory.path();
    let relay =
        Relay::holding(&engine.join("socket"), &engine.join(format!("taken{number}")), "/images/load", 0);
    let site = place.site.path().to_str().unwrap();
    let mut command = place.engine.command(&[&["--site", site], &MAKE[..]].concat());
    command.env("DOCKER_HOST", &relay.socket).stdout(Stdio::null()).stderr(Stdio::null());
    let running = command.spawn().unwrap();
    relay.until_held();
    running
}

#[test]
#[ignore = "needs the package mirror and minutes: scripts/test --soak"]
fn what_a_killed_make_has_taken_in_goes_and_what_another_has_stays() {
    let place = Place::new();
    let mut killed = before_its_name(&place, 1);
    killed.kill().unwrap();
    killed.wait().unwrap();
    let left = taken(&place);
    assert_eq!((left.len(), is_made(&place)), (1, false));

    let mut another = before_its_name(&place, 2);
    let of_another = taken(&place);
    assert!(of_another.len() == 1 && of_another != left, "{of_another:?} after {left:?}");
    place.ok(&MAKE);
    assert_eq!(taken(&place), of_another, "only what nobody is about to use goes");
    assert_eq!(directories(&place), 1, "that of who is about to");
    let made = place.id("local-1");

    another.kill().unwrap();
    another.wait().unwrap();
    // Somebody looks into what was left.
    place.engine.docker(&["create", "--name", "looks", "--network", "none", &of_another[0], "true"]);
    place.ok(&[&MAKE[..], &["--refresh"]].concat());
    assert_eq!((taken(&place), directories(&place)), (of_another, 0), "a container needs it");
    place.engine.docker(&["rm", "looks"]);
    place.ok(&[&MAKE[..], &["--refresh"]].concat());
    assert_eq!((taken(&place), place.id("local-1")), (Vec::new(), made));
    assert_eq!(place.hello("local-1"), "1.0");
}

#[test]
#[ignore = "needs the package mirror and minutes: scripts/test --soak"]
fn what_is_not_whole_is_not_taken_in() {
    let place = Place::new();
    // All is written, and then it fails.
    let wrong = place.site.path().join("wrong");
    let script = "#!/bin/sh\nPATH=${PATH#*:} mmdebstrap \"$@\"\necho 'E: the disk is on fire' >&2\nexit 1\n";
    place.write("wrong/mmdebstrap", script);
    let program = wrong.join("mmdebstrap");
    std::fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let site = place.site.path().to_str().unwrap();
    let mut command = place.engine.command(&[&["--site", site], &MAKE[..]].concat());
    let path = format!("{}:{}", wrong.display(), std::env::var("PATH").unwrap());
    let output = command.env("PATH", path).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("mmdebstrap could not make local-1") && told.contains("on fire"), "{told}");
    let here = place.engine.docker(&["images", "--all", "--quiet"]);
    assert_eq!(here.lines().count(), 1, "only what it began with: {here}");
    place.ok(&MAKE);
    assert_eq!(taken(&place), Vec::<String>::new());
}

#[test]
#[ignore = "needs the package mirror and minutes: scripts/test --soak"]
fn an_engine_that_goes_away_is_named() {
    let place = Place::new();
    let site = place.site.path().to_str().unwrap();
    let words = [&["--site", site, "--progress", "json"], &MAKE[..]].concat();
    let mut command = place.engine.command(&words);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(running.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains(r#""unit":"bytes""#)), "nothing was taken in");
    let pid = std::fs::read_to_string(place.engine.directory.path().join("pid")).unwrap();
    let pid = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let told: Vec<String> = lines.collect();
    assert_eq!(running.wait().unwrap().code(), Some(3), "{told:?}");
    let told = told.join("\n");
    assert!(told.contains("cannot take in a layer") && told.contains("went away"), "{told}");
}

#[test]
#[ignore = "needs the package mirror and minutes: scripts/test --soak"]
fn an_engine_that_keeps_a_layer_takes_nothing_from_the_base() {
    let place = Place::new();
    let engine = place.engine.directory.path();
    let relay = Relay::hanging_up(&engine.join("socket"), &engine.join("keeps"), "DELETE /images/");
    let site = place.site.path().to_str().unwrap();
    let mut command = place.engine.command(&[&["--site", site], &MAKE[..]].concat());
    command.env("DOCKER_HOST", &relay.socket).stdout(Stdio::null()).stderr(Stdio::piped());
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{told}");
    assert!(told.contains("stays until the next make-base-image"), "{told}");
    assert_eq!((taken(&place).len(), is_made(&place)), (1, true));
    place.ok(&[&MAKE[..], &["--refresh"]].concat());
    assert_eq!(taken(&place), Vec::<String>::new());
}
