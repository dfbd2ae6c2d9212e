//! `enter-container`: a real terminal, signals, exit codes.

use std::io::Write as _;
use std::process::Stdio;

use crate::support::{Following, Outcome, Scene, ann};

#[test]
fn the_childs_exit_code_and_streams_are_passed_on() {
    let scene = Scene::new("codes");
    let made = scene.make(&ann(), &[]);
    let name = made.name();
    let said = ann()
        .moorage(&["enter-container", &name, "--", "sh", "-c", "echo out; echo err >&2; exit 42"])
        .ends(42);
    assert_eq!((said.stdout.as_str(), said.stderr.as_str()), ("out\n", "err\n"));
    ann().moorage(&["enter-container", &name, "--", "id", "-un"]).ok().says("ann");
    ann().moorage(&["enter-container", &name, "--", "no-such-program"]).ends(127).says("no-such-program");
    ann().moorage(&["enter-container", &name, "--", "sh", "-c", "kill -9 $$"]).ends(137);
    // Words stay words: no shell on the way.
    ann()
        .moorage(&["enter-container", &name, "--", "printf", "%s|", "a b", "$HOME", "*"])
        .ok()
        .says("a b|$HOME|*|");
}

#[test]
fn input_goes_in_byte_by_byte_and_ends() {
    let scene = Scene::new("input");
    let made = scene.make(&ann(), &[]);
    let bytes: Vec<u8> = (0..=255u8).cycle().take(300_000).collect();
    let mut child = ann()
        .command("moorage")
        .args(["enter-container", &made.name(), "--", "sha256sum"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    let expected = crate::support::archive::sha256(&bytes);
    Outcome::from_output("sha256sum".into(), &output).ok().says(&expected);
}

/// script(1) gives the command a terminal of its own.
#[test]
fn on_a_terminal_it_is_a_terminal_of_the_same_size() {
    let scene = Scene::new("tty");
    let made = scene.make(&ann(), &[]);
    let line = format!(
        "stty rows 33 cols 99; moorage enter-container {} -- sh -c 'tty; stty size; echo $TERM'",
        made.name()
    );
    let mut script = ann().command("script");
    let said = Outcome::of(script.env("TERM", "xterm").args(["-qec", &line, "/dev/null"])).ok();
    assert!(said.stdout.contains("/dev/pts/") && said.stdout.contains("33 99"), "{}", said.whole());
    assert!(said.stdout.contains("xterm"), "{}", said.whole());
}

#[test]
fn without_a_command_it_is_the_login_shell() {
    let scene = Scene::new("shell");
    let made = scene.make(&ann(), &[]);
    let mut child = ann()
        .command("moorage")
        .args(["enter-container", &made.name()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"hostname; pwd; exit 3\n").unwrap();
    let output = child.wait_with_output().unwrap();
    Outcome::from_output("enter-container".into(), &output).ends(3).says(&made.name()).says("/opt/home/ann");
}

#[test]
fn a_signal_reaches_the_process_inside() {
    let scene = Scene::new("signal");
    let made = scene.make(&ann(), &[]);
    let mut command = ann().command("moorage");
    command.args(["enter-container", &made.name(), "--"]);
    command.args(["sh", "-c", "trap 'echo caught; exit 7' INT; echo ready; while :; do read x || :; done"]);
    command.stdin(Stdio::piped());
    let mut inside = Following::command(&mut command);
    inside.until("the process inside", |line| line == "ready");
    inside.signal(rustix::process::Signal::INT);
    inside.until("the signal inside", |line| line == "caught");
}

#[test]
fn who_may_not_is_told_so() {
    let scene = Scene::new("strangers");
    let made = scene.make(&ann(), &[]);
    for verb in ["enter-container", "stop-container", "start-container", "restart-container", "show-logs"] {
        crate::support::carol().moorage(&[verb, &made.name()]).ends(6).helps();
    }
    crate::support::carol().moorage(&["remove-container", &made.name(), "--yes"]).ends(6).helps();
    crate::support::dave().moorage(&["stop-container", &made.name()]).ok();
}
