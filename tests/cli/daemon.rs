//! What the daemon answers, as the person sees it.

use axum::extract::{Path, RawQuery};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::world::{MOORAGE, World, container, detail};

fn listing(containers: serde_json::Value) -> Router {
    Router::new().route("/v1/containers", get(|| async { Json(containers) }))
}

#[tokio::test]
async fn containers_as_a_table_and_as_json() {
    let mut evil = container("siem-9-2-ann", "running");
    evil["image"] = "x\u{1b}]0;owned\u{7}".into();
    let world = World::new().serve(listing(json!([evil, container("demo-main-ann", "setup-failed")])));

    let table = world.run(&["list-containers"]).await;
    assert_eq!((table.code, table.err.as_str()), (Some(0), ""));
    let lines: Vec<&str> = table.out.lines().collect();
    assert!(lines[0].starts_with("NAME           OWNER  STATE"), "{}", table.out);
    assert!(lines[1].starts_with("siem-9-2-ann   ann    running"), "{}", table.out);
    assert!(lines[1].contains(r"x\u{1b}]0;owned\u{7}") && !table.out.contains('\x1b'), "{}", table.out);

    let all = world.run(&["list-containers", "--format", "json"]).await.json();
    assert_eq!(all["schema"], 1);
    assert_eq!(all["containers"].as_array().unwrap().len(), 2);
    let some = world.run(&["list-containers", "--format=json", "--filter", "state=running"]).await.json();
    assert_eq!(some["containers"][0]["name"], "siem-9-2-ann");
    assert_eq!(some["containers"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn nothing_is_an_empty_list_and_no_error() {
    let world = World::new().serve(listing(json!([])));
    let table = world.run(&["list-containers"]).await;
    assert_eq!((table.code, table.out.as_str(), table.err.as_str()), (Some(0), "", "no containers\n"));
    let json = world.run(&["list-containers", "--format", "json"]).await;
    assert_eq!((json.code, json.out.as_str()), (Some(0), "{\"schema\":1,\"containers\":[]}\n"));
}

#[tokio::test]
async fn head_may_stop_reading() {
    let many: Vec<_> = (0..2000).map(|n| container(&format!("siem-{n}-ann"), "running")).collect();
    let world = World::new().serve(listing(many.into()));
    let script = format!("set -o pipefail; {MOORAGE} list-containers | head -n 1");
    let said = world.program("bash", &["-c", &script]).output().await.unwrap();
    assert_eq!(said.status.code(), Some(0), "{said:?}");
    assert_eq!(String::from_utf8_lossy(&said.stderr), "");
}

#[tokio::test]
async fn another_version_of_the_daemon_is_shown_as_it_says() {
    let refuse = |headers: HeaderMap| async move {
        assert_eq!(headers["moorage-api"], "1");
        let fault =
            json!({ "kind": "failed", "what": "the daemon speaks 2, you speak 1", "next": "restart it" });
        (StatusCode::UPGRADE_REQUIRED, Json(fault))
    };
    let world = World::new().serve_only(Router::new().fallback(refuse));
    let said = world.run(&["list-containers"]).await;
    assert_eq!(said.code, Some(1));
    assert_eq!(said.err, "error: the daemon speaks 2, you speak 1\n  next: restart it\n");
}

#[tokio::test]
async fn a_fault_keeps_its_kind_and_what_is_no_fault_is_quoted() {
    let missing = || async {
        (StatusCode::NOT_FOUND, Json(json!({ "kind": "not-found", "what": "there is no container \"x\"" })))
    };
    let broken = || async { (StatusCode::INTERNAL_SERVER_ERROR, "\x1b[31mpanic") };
    let routes = Router::new()
        .route("/v1/containers/x", get(missing))
        .route("/v1/containers/y", get(broken))
        .route("/v1/containers/z", get(|| async { "[]" }));
    let world = World::new().serve(routes);
    let said = world.run(&["show-container", "x"]).await;
    assert_eq!((said.code, said.err.as_str()), (Some(4), "error: there is no container \"x\"\n"));
    let said = world.run(&["show-container", "y"]).await;
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains(r"why: \u{1b}[31mpanic"), "{}", said.err);
    let said = world.run(&["show-container", "z"]).await;
    assert!(said.err.starts_with("error: the daemon answered something else"), "{}", said.err);
}

#[tokio::test]
async fn one_container_in_full() {
    let show = |Path(typed): Path<String>| async move {
        assert!(["siem-feature/x", "siem-9.2"].contains(&typed.as_str()), "{typed}");
        Json(detail("siem-9-2-ann", "running"))
    };
    let routes = Router::new().route("/v1/containers/{typed}", get(show));
    let world = World::new().serve(routes);
    let said = world.run(&["show-container", "siem-feature/x"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let shown: String =
        said.out.lines().filter(|line| !line.starts_with("created")).map(|l| format!("{l}\n")).collect();
    insta::assert_snapshot!(shown, @r"
    name      siem-9-2-ann
    owner     ann
    state     running
    project   siem
    branch    9.2
    address   10.0.0.5
    IPv6      fd00::5
    MAC       02:00:00:00:00:01
    network   lan
    ssh       ssh ann@10.0.0.5
    host key  ssh-ed25519 AAAA
    image     moorage/siem:latest
    opt       file:///srv/siem.tar.zst
    sources   ssh://git@git/siem.git release/9.2 in /opt/src/siem
    mounts    /data:/opt/data:ro
    limits    memory 32 GiB, pids 4096
    files     /opt/containers/siem-9-2-ann/opt (3 GiB of its own)
    logs      /opt/containers/logs/siem-9-2-ann
    ");
    let json = world.run(&["show-container", "siem-9.2", "--format", "json"]).await.json();
    assert_eq!((&json["schema"], &json["container"]["mac"]), (&1.into(), &"02:00:00:00:00:01".into()));
}

#[tokio::test]
async fn leases() {
    let lease = json!([{
        "network": "lan", "parent": "eth0", "mac": "02:00:00:00:00:01", "hostname": "siem-9-2-ann", "state": "bound",
        "address": "10.0.0.5", "server": "10.0.0.1", "expires": null,
        "attached": false, "last_event": "bound to 10.0.0.5",
    }]);
    let world = World::new().serve(Router::new().route("/v1/leases", get(|| async { Json(lease) })));
    insta::assert_snapshot!(world.run(&["list-leases"]).await.out, @r"
    ADDRESS   MAC                CONTAINER     NETWORK  STATE          SERVER    EXPIRES  LAST
    10.0.0.5  02:00:00:00:00:01  siem-9-2-ann  lan      bound, parked  10.0.0.1  never    bound to 10.0.0.5
    ");
    let json = world.run(&["list-leases", "--format", "json"]).await.json();
    assert_eq!(
        (&json["leases"][0]["state"], &json["leases"][0]["attached"]),
        (&"bound".into(), &false.into())
    );
}

#[tokio::test]
async fn logs_cannot_act_on_the_terminal() {
    let logs = |RawQuery(query): RawQuery| async move {
        assert_eq!(query.as_deref(), Some("follow=false&lines=2"));
        "one\r\n\x1b[2Jtwo"
    };
    let world = World::new().serve(Router::new().route("/v1/containers/x/logs", get(logs)));
    let said = world.run(&["show-logs", "x", "--lines", "2"]).await;
    assert_eq!((said.code, said.out.as_str()), (Some(0), "one\n\\u{1b}[2Jtwo\n"));
}
