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
    assert!(some.err.ends_with("error: 1 of 3 containers not stopped\n  why: bad\n"), "{}", some.err);

    let json = world.run(&["stop-container", "good", "bad", "--format", "json"]).await;
    assert_eq!(json.json()["containers"][1]["error"]["kind"], "not-found");
    assert_eq!(json.fault()["code"], 7);

    assert_eq!(world.run(&["stop-container", "bad"]).await.code, Some(4));
    assert_eq!(world.run(&["stop-container", "bad", "worse"]).await.code, Some(4));
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

#[tokio::test]
async fn an_interrupt_closes_the_connection() {
    let gone = Arc::new(Notify::new());
    let told = gone.clone();
    let hanging = move || async move {
        let (sender, receiver) = mpsc::channel::<Result<Bytes, &str>>(1);
        let begin = format!("{}\n", json!({ "event": "begin", "step": "stop", "text": "wait for ever" }));
        sender.send(Ok(begin.into())).await.unwrap();
        tokio::spawn(async move {
            sender.closed().await;
            told.notify_one();
        });
        Body::from_stream(ReceiverStream::new(receiver))
    };
    let world = World::new().serve(Router::new().route("/v1/containers/x/stop", post(hanging)));
    let mut child = world.program(MOORAGE, &["stop-container", "x"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "stop: wait for ever");

    kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::INT).unwrap();
    gone.notified().await;
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    assert!(lines.next_line().await.unwrap().unwrap().starts_with("error: interrupted"));
}

#[tokio::test]
async fn removing_needs_a_yes() {
    let remove = |Path(typed): Path<String>| async move { events(&[done(&typed, "removed")]) };
    let routes = Router::new()
        .route("/v1/containers/{typed}", get(|| async { Json(detail("siem-9-2-ann", "running")) }))
        .route("/v1/containers/{typed}/remove", post(remove));
    let world = World::new().serve(routes);
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
