//! Operations: their events, their end, their cancelling.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use crate::terminal::{cooked, on, shown, terminal};
use crate::world::{MOORAGE, World, detail};

fn events(events: &[Value]) -> Response {
    let lines: String = events.iter().map(|event| format!("{event}\n")).collect();
    lines.into_response()
}

fn done(name: &str, state: &str) -> Value {
    json!({ "event": "done", "result": { "name": name, "state": state, "changed": true } })
}

/// Stops what is called `good-…`.
async fn stop(Path(typed): Path<String>) -> Response {
    if !typed.starts_with("good") {
        let fault = json!({ "kind": "not-found", "what": format!("there is no container {typed:?}") });
        return (StatusCode::NOT_FOUND, Json(fault)).into_response();
    }
    let begin = json!({ "event": "begin", "step": "stop", "text": "tell init to end" });
    let output = json!({ "event": "output", "step": "stop", "line": "\u{1b}[1mbye" });
    let end = json!({ "event": "end", "step": "stop", "text": "stopped" });
    events(&[begin, output, end, done(&typed, "stopped")])
}

fn stopping() -> Router {
    Router::new().route("/v1/containers/{typed}/stop", post(stop))
}

#[tokio::test]
async fn events_are_lines_and_the_result_is_data() {
    let world = World::new().serve(stopping());
    let said = world.run(&["stop-container", "good"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "NAME  STATE\ngood  stopped\n"));
    assert_eq!(said.err, "stop: tell init to end\nstop | \\u{1b}[1mbye\nstop: stopped\n");

    let said = world.run(&["stop-container", "good", "--progress", "json", "--format", "json"]).await;
    let seen: Vec<Value> = said.err.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        seen.iter().map(|e| e["event"].as_str().unwrap()).collect::<Vec<_>>(),
        ["begin", "output", "end"]
    );
    assert_eq!(
        said.json(),
        json!({ "schema": 1, "containers": [
            { "name": "good", "state": "stopped", "changed": true }
        ]})
    );
    assert_eq!(world.run(&["stop-container", "good", "--progress", "none"]).await.err, "");
}

#[tokio::test]
async fn of_several_names_all_are_tried() {
    let world = World::new().serve(stopping());
    let some = world.run(&["stop-container", "good-1", "bad", "good-2", "good-1"]).await;
    assert_eq!(some.code, Some(7));
    assert_eq!(some.out, "NAME    STATE\ngood-1  stopped\ngood-2  stopped\n");
    assert!(some.err.contains("error: there is no container \"bad\"\n"), "{}", some.err);
    let last = "error: 1 of 3 containers not stopped\n  why: bad\n  next: see what is said of each of them\n";
    assert!(some.err.ends_with(last), "{}", some.err);

    let json = world.run(&["stop-container", "good", "bad", "--format", "json"]).await;
    assert_eq!(json.json()["containers"][1]["error"]["kind"], "not-found");
    assert_eq!(json.fault()["code"], 7);

    assert_eq!(world.run(&["stop-container", "bad"]).await.code, Some(4));
    let none = world.run(&["stop-container", "bad", "worse", "--progress", "json"]).await;
    assert_eq!((none.code, none.out.as_str(), none.err.lines().count()), (Some(4), "", 3));
}

#[tokio::test]
async fn a_failed_operation_is_its_fault() {
    let fault = json!({ "kind": "timed-out", "what": "x does not stop", "why": ["init ignores it"],
        "remains": ["the container"], "next": "docker kill x" });
    let failing = move || async move { events(&[json!({ "event": "failed", "fault": fault })]) };
    let world = World::new().serve(Router::new().route("/v1/containers/x/stop", post(failing)));
    let said = world.run(&["stop-container", "x"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(8), ""));
    insta::assert_snapshot!(said.err, @r"
    error: x does not stop
      why: init ignores it
      remains: the container
      next: docker kill x
    ");
}

#[tokio::test]
async fn a_daemon_that_goes_away_in_the_middle_is_said() {
    let cut = || async {
        let begin = format!("{}\n", json!({ "event": "begin", "step": "stop", "text": "x" }));
        let chunks: [Result<Bytes, &str>; 2] = [Ok(begin.into()), Err("the daemon was killed")];
        Body::from_stream(tokio_stream::iter(chunks))
    };
    let routes = Router::new()
        .route("/v1/containers/cut/stop", post(cut))
        .route("/v1/containers/short/stop", post(|| async { events(&[]) }));
    let world = World::new().serve(routes);
    for name in ["cut", "short"] {
        let fault = world.run(&["stop-container", name, "--progress", "json"]).await.fault();
        assert_eq!(fault["what"], "the daemon went away in the middle");
        assert_eq!((&fault["code"], &fault["next"]), (&1.into(), &"moorage list-containers".into()));
    }
}

/// A body that begins with this and goes on for ever; tells when its reader has gone.
fn endless(first: String, gone: Arc<Notify>) -> Body {
    let (sender, receiver) = mpsc::channel::<Result<Bytes, &str>>(1);
    tokio::spawn(async move {
        sender.send(Ok(first.into())).await.unwrap();
        sender.closed().await;
        gone.notify_one();
    });
    Body::from_stream(ReceiverStream::new(receiver))
}

#[tokio::test]
async fn an_interrupt_closes_the_connection() {
    let gone = Arc::new(Notify::new());
    let begin = format!("{}\n", json!({ "event": "begin", "step": "stop", "text": "wait for ever" }));
    let (stop, logs) = (gone.clone(), gone.clone());
    let routes = Router::new()
        .route("/v1/containers/x/stop", post(|| async { endless(begin, stop) }))
        .route("/v1/containers/x/logs", get(|| async { endless("wait for ever\n".into(), logs) }));
    let world = World::new().serve(routes);
    // Ending a log that is followed is no error.
    let goes_on = "error: interrupted; what the daemon was asked for already, it does to the end";
    for (verb, error) in [("stop-container", Some(goes_on)), ("show-logs", None)] {
        let mut child = world.program(MOORAGE, &[verb, "x"]).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut data = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = tokio::select! {
            Ok(Some(line)) = errors.next_line() => line,
            Ok(Some(line)) = data.next_line() => line,
        };
        assert!(first.ends_with("wait for ever"), "{first}");
        kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::INT).unwrap();
        gone.notified().await;
        assert_eq!(child.wait().await.unwrap().code(), Some(130));
        assert_eq!(errors.next_line().await.unwrap().as_deref(), error);
    }
}

#[tokio::test]
async fn a_dry_run_tries_all_names_too() {
    let show = |Path(typed): Path<String>| async move {
        match typed.starts_with("good") {
            true => Json(detail(&typed, "running")).into_response(),
            false => {
                let fault =
                    json!({ "kind": "not-found", "what": format!("there is no container {typed:?}") });
                (StatusCode::NOT_FOUND, Json(fault)).into_response()
            }
        }
    };
    let world = World::new().serve(Router::new().route("/v1/containers/{typed}", get(show)));
    let said = world.run(&["stop-container", "--dry-run", "good-1", "bad", "good-2"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(7), "1. stop good-1\n2. stop good-2\n"));
    assert!(said.err.contains("error: there is no container \"bad\"\n"), "{}", said.err);
    assert!(said.err.contains("error: 1 of 3 containers cannot be stopped\n  why: bad\n"), "{}", said.err);

    let said = world.run(&["stop-container", "--dry-run", "good-1", "bad", "--format", "json"]).await;
    assert_eq!(said.json()["steps"][0]["text"], "stop good-1");
    assert_eq!(said.json()["errors"][0]["name"], "bad");
    assert_eq!(said.json()["errors"][0]["error"]["kind"], "not-found");
    assert_eq!((said.code, &said.fault()["code"]), (Some(7), &7.into()));

    let said = world.run(&["stop-container", "--dry-run", "bad"]).await;
    assert_eq!((said.code, said.out.as_str(), said.err.matches("error").count()), (Some(4), "", 1));
}

fn removing() -> World {
    let remove = |Path(typed): Path<String>| async move { events(&[done(&typed, "removed")]) };
    let routes = Router::new()
        .route("/v1/containers/{typed}", get(|| async { Json(detail("siem-9-2-ann", "running")) }))
        .route("/v1/containers/{typed}/remove", post(remove));
    World::new().serve(routes)
}

#[tokio::test]
async fn on_a_terminal_the_person_is_asked() {
    let world = removing();
    for (keys, code, last) in [
        ("y\n", 0, "siem  removed\r\n"),
        ("n\n", 130, "error:\u{1b}[0m not confirmed, nothing was done\r\n"),
        ("\x03", 130, "error:\u{1b}[0m interrupted"),
    ] {
        let (master, slave) = terminal();
        let mut child = on(&slave, world.program("setsid", &["--ctty", MOORAGE, "remove-container", "siem"]));
        shown(&master, "[y/N]").await;
        rustix::io::write(&master, keys.as_bytes()).unwrap();
        shown(&master, last).await;
        assert_eq!(child.wait().await.unwrap().code(), Some(code), "{keys:?}");
        assert!(cooked(&slave));
    }
}

#[tokio::test]
async fn a_signal_in_the_question_leaves_the_terminal_as_it_was() {
    let world = removing();
    let (master, slave) = terminal();
    let mut child = on(&slave, world.program("setsid", &["--ctty", MOORAGE, "remove-container", "siem"]));
    shown(&master, "[y/N]").await;
    kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::TERM).unwrap();
    shown(&master, "interrupted").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    assert!(cooked(&slave));
}

#[tokio::test]
async fn bars_on_a_terminal_leave_what_was_done() {
    let world = World::new().serve(stopping());
    let (master, slave) = terminal();
    let mut child = on(&slave, world.program(MOORAGE, &["stop-container", "good"]));
    let screen = shown(&master, "good  stopped\r\n").await;
    assert_eq!(child.wait().await.unwrap().code(), Some(0));
    assert!(screen.contains("\u{1b}[2K"), "a bar was drawn over: {screen:?}");
    assert!(screen.contains("stop |") && screen.contains("\\u{1b}[1mbye"), "{screen:?}");
    assert!(!screen.contains("\u{1b}[1mbye"), "{screen:?}");
}

#[tokio::test]
async fn removing_needs_a_yes() {
    let world = removing();
    let said = world.run(&["remove-container", "siem"]).await;
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("3 GiB of its own files in /opt/containers/siem-9-2-ann/opt"), "{}", said.err);
    assert!(said.err.contains("its address 10.0.0.5"), "{}", said.err);
    assert!(said.err.contains("next: the same command with --yes"), "{}", said.err);

    let said = world.run(&["remove-container", "--yes", "siem"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "NAME  STATE\nsiem  removed\n"));

    let said = world.run(&["remove-container", "--dry-run", "siem"]).await;
    assert_eq!(said.code, Some(0));
    assert!(
        said.out.starts_with("1. stop siem-9-2-ann\n2. remove siem-9-2-ann with its root"),
        "{}",
        said.out
    );
}
