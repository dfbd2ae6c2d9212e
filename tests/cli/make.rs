//! `make-dev-container` and the other verbs that read the site, with a site of the test's own and the real git.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::Path;
use axum::routing::post;
use axum::{Json, Router};
use moorage::api::{MakeRequest, SourceDone};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::checkout::git;
use crate::world::{MOORAGE, World, container};

/// A site whose project `siem` has its source in this world.
fn with_site(world: World, repo: &str) -> World {
    let projects = world.path("site/dockeruser/projects");
    std::fs::create_dir_all(&projects).unwrap();
    let file = format!(
        "description = \"events\"\n[defaults]\nimage = \"demo\"\nopt = \"file:///srv/siem.tar.zst\"\n\
         [[defaults.source]]\nrepo = \"{repo}\"\nref = \"release/{{branch}}\"\n[[branch]]\nmatch = \"9.*\"\n"
    );
    std::fs::write(projects.join("siem.toml"), file).unwrap();
    world
}

fn with_repository(world: World) -> World {
    let repository = world.path("siem.git");
    std::fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "--quiet"]);
    git(&repository, &["commit", "--quiet", "--allow-empty", "-m", "first"]);
    git(&repository, &["branch", "release/9.2"]);
    let repo = repository.display().to_string();
    with_site(world, &repo)
}

fn with_key(world: World) -> World {
    std::fs::create_dir(world.path(".ssh")).unwrap();
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIILEKiNFaXDxS4KXvZpDB5qTbkXYpnAHkDyP9wcpJxyF ann@desk\n";
    std::fs::write(world.path(".ssh/id_ed25519.pub"), key).unwrap();
    world
}

fn result(request: &MakeRequest) -> Value {
    json!({
        "container": container(request.spec.name.as_str(), "running"), "existed": false, "user": "ann",
        "host_key": "ssh-ed25519 AAAA", "opt_directory": "/opt/containers/x/opt", "log": "/opt/containers/logs/x.log",
        "shared_bytes": 1 << 30, "new_bytes": 5 << 20,
    })
}

/// What the CLI told its daemon.
#[derive(Default)]
struct Told {
    request: Option<MakeRequest>,
    source: Option<SourceDone>,
}

/// Asks for the source while the image is pulled, and goes on when it has been told.
fn making(world: World) -> (World, Arc<Mutex<Told>>) {
    let told = Arc::new(Mutex::new(Told::default()));
    let staging = world.path("staging");
    std::fs::create_dir(&staging).unwrap();
    let (source_done, waiting) = mpsc::channel::<SourceDone>(1);
    let waiting = Arc::new(tokio::sync::Mutex::new(waiting));

    let seen = told.clone();
    let make = move |Json(request): Json<MakeRequest>| async move {
        seen.lock().unwrap().request = Some(request.clone());
        let (events, stream) = mpsc::channel::<Result<Bytes, &str>>(8);
        let say = async move |event: Value| events.send(Ok(format!("{event}\n").into())).await.unwrap();
        tokio::spawn(async move {
            say(json!({ "event": "begin", "step": "image", "text": "pull the image" })).await;
            say(json!({ "event": "staging", "operation": "7", "directory": staging })).await;
            let done = waiting.lock().await.recv().await.unwrap();
            seen.lock().unwrap().source = Some(done.clone());
            say(json!({ "event": "end", "step": "image", "text": "pulled" })).await;
            match done {
                SourceDone::Ready => say(json!({ "event": "done", "result": result(&request) })).await,
                SourceDone::Failed(fault) => say(json!({ "event": "failed", "fault": fault })).await,
            }
        });
        Body::from_stream(ReceiverStream::new(stream))
    };
    let source = move |Path(operation): Path<String>, Json(done): Json<SourceDone>| async move {
        assert_eq!(operation, "7");
        source_done.send(done).await.unwrap();
        Json(json!({}))
    };
    let routes =
        Router::new().route("/v1/containers", post(make)).route("/v1/operations/{id}/source", post(source));
    (world.serve(routes), told)
}

fn site(world: &World) -> String {
    world.path("site").display().to_string()
}

#[tokio::test]
async fn from_a_branch_to_where_it_is() {
    let (world, told) = making(with_key(with_repository(World::new())));
    let site = site(&world);
    let said = world.run(&["make-dev-container", "siem", "9.2", "--site", &site]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let me = nix::unistd::User::from_uid(nix::unistd::geteuid()).unwrap().unwrap().name;
    insta::assert_snapshot!(said.out.replace(&format!("siem-9-2-{me}"), "siem-9-2-ME"), @r"
    name     siem-9-2-ME
    state    running
    address  10.0.0.5
    ssh      ssh ann@10.0.0.5
    files    /opt/containers/x/opt
    opt      1 GiB shared, 5 MiB new
    log      /opt/containers/logs/x.log
    ");
    assert!(
        said.err.contains("source: checked out ") && said.err.contains("image: pulled\n"),
        "{}",
        said.err
    );

    let told = told.lock().unwrap();
    assert_eq!(told.source, Some(SourceDone::Ready));
    assert!(world.path("staging/0/.git").is_dir());
    let request = told.request.as_ref().unwrap();
    assert!(request.wait);
    assert_eq!(request.spec.owner.to_string(), me);
    assert!(request.spec.authorized_keys[&me][0].ends_with("ann@desk"));
}

#[tokio::test]
async fn the_result_as_json_and_no_waiting() {
    let (world, told) = making(with_repository(World::new()));
    let args =
        ["make-dev-container", "siem", "9.2", "--no-wait", "--mount", "/srv:/opt/srv:ro", "--format", "json"];
    let said = world.run(&[&args[..], &["--site", &site(&world)]].concat()).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("warning: there is no public key of yours"), "{}", said.err);
    let json = said.json();
    assert_eq!((&json["schema"], &json["container"]["address"]), (&1.into(), &"10.0.0.5".into()));
    let told = told.lock().unwrap();
    let request = told.request.as_ref().unwrap();
    assert!(!request.wait && request.spec.mounts[0].read_only);
}

#[tokio::test]
async fn a_source_that_cannot_be_had_fails_the_operation() {
    let (world, told) = making(with_key(with_repository(World::new())));
    let said = world.run(&["make-dev-container", "siem", "9.9", "--site", &site(&world)]).await;
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.err.contains("has no branch or tag \"release/9.9\""), "{}", said.err);
    assert!(matches!(told.lock().unwrap().source, Some(SourceDone::Failed(_))));
}

#[tokio::test]
async fn an_interrupt_ends_the_checkout_too() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let repo = format!("git://{}/siem.git", listener.local_addr().unwrap());
    let (world, told) = making(with_key(with_site(World::new(), &repo)));
    let args = ["make-dev-container", "siem", "9.2", "--site", &site(&world)];
    let mut child = world.program(MOORAGE, &args).spawn().unwrap();
    let mut connection = listener.accept().await.unwrap().0;
    kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::TERM).unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    // git is gone: its connection ends (after what it had asked).
    let _ = connection.read_to_end(&mut Vec::new()).await;
    assert!(told.lock().unwrap().source.is_none());
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut last = String::new();
    while let Some(line) = lines.next_line().await.unwrap() {
        last = line;
    }
    assert_eq!(last, "  next: moorage list-containers");
}

#[tokio::test]
async fn a_plan_as_steps_and_as_commands() {
    let plan = json!({ "steps": [
        { "stage": 1, "step": "image", "text": "pull demo", "bytes": 400 << 20, "shell": ["docker pull demo"] },
        { "stage": 1, "step": "opt", "text": "fetch /opt", "shell": ["curl x", "tar x"] },
        { "stage": 2, "step": "start", "text": "start", "shell": ["docker start x"] },
    ]});
    let world =
        with_repository(World::new()).serve(Router::new().route("/v1/plan", post(|| async { Json(plan) })));
    let site = site(&world);
    let make = ["make-dev-container", "siem", "9.2", "--site", &site];
    let plan = world.run(&[&make[..], &["--dry-run"]].concat()).await;
    assert_eq!(plan.out, "1. pull demo (400 MiB)\n1. fetch /opt\n2. start\n");
    let shell = world.run(&[&make[..], &["--as-shell"]].concat()).await;
    assert_eq!(shell.out, "docker pull demo\ncurl x\ntar x\ndocker start x\n");
    let json = world.run(&[&make[..], &["--dry-run", "--format", "json"]].concat()).await.json();
    assert_eq!((&json["schema"], json["steps"].as_array().unwrap().len()), (&1.into(), 3));
}

#[tokio::test]
async fn what_is_wrong_is_said_before_the_daemon_is_asked() {
    let world = with_repository(World::new());
    let site = site(&world);
    let code = async |args: &[&str]| world.run(&[args, &["--site", &site]].concat()).await.code;
    assert_eq!(code(&["make-dev-container", "siam", "9.2"]).await, Some(4));
    assert_eq!(code(&["make-dev-container", "siem", "8.0"]).await, Some(4));
    assert_eq!(code(&["make-dev-container", "siem", "9.2", "--patch", "p9"]).await, Some(4));
    assert_eq!(code(&["make-dev-container", "siem", "9.2", "--owner", "@no-such-group-here"]).await, Some(4));
    assert_eq!(code(&["make-dev-container", "siem", "9.2", "--owner", "a:b"]).await, Some(2));
    assert_eq!(code(&["make-dev-container", "siem", "9.2", "--mount", "data:/opt/data"]).await, Some(2));
    assert_eq!(code(&["make-os-container", "no-such-os"]).await, Some(4));
    assert_eq!(code(&["make-dev-container", "siem", "9.2"]).await, Some(3));
    assert_eq!(code(&["make-os-container", "debian-12"]).await, Some(3));
}

#[tokio::test]
async fn projects_and_what_is_here() {
    let present = |Json(question): Json<Value>| async move {
        let count = |key: &str| question[key].as_array().unwrap().len();
        Json(
            json!({ "images": vec![400 << 20; count("images")], "archives": vec![Value::Null; count("archives")] }),
        )
    };
    let world = with_repository(World::new());
    let site = site(&world);
    let unknown = world.run(&["list-projects", "--site", &site]).await;
    assert_eq!(unknown.code, Some(0), "{unknown:?}");
    assert!(unknown.err.contains("warning: what is here already is not known: the daemon is not running"));

    let world = world.serve(Router::new().route("/v1/present", post(present)));
    // What it would take to fetch it is asked of the very archive.
    let archive = world.path("siem.tar.zst");
    let published = archive.display().to_string();
    let file = world.path("site/dockeruser/projects/siem.toml");
    let text = std::fs::read_to_string(&file).unwrap().replace("/srv/siem.tar.zst", &published);
    assert!(text.contains(&published), "{text}");
    std::fs::write(&file, text).unwrap();
    std::fs::write(&archive, vec![0; 5 << 20]).unwrap();
    let known = world.run(&["list-projects", "--site", &site]).await;
    let line = known.out.lines().find(|line| line.starts_with("siem ")).unwrap();
    assert!(line.contains("400 MiB  ") && line.contains("  not here (5 MiB packed)  "), "{line}");
    assert!(line.ends_with("events"), "{line}");
    let json = world.run(&["list-projects", "--site", &site, "--format", "json"]).await.json();
    let siem = json["projects"].as_array().unwrap().iter().find(|project| project["name"] == "siem").unwrap();
    assert_eq!(siem["branches"][0]["image"]["bytes"], 400 << 20);
    assert_eq!(siem["branches"][0]["opt"][0]["here"], false);
    assert_eq!(siem["branches"][0]["opt"][0]["bytes"], Value::Null);
    assert_eq!(siem["branches"][0]["opt"][0]["packed_bytes"], 5 << 20);
}

#[tokio::test]
async fn the_shell_completes_projects() {
    let world = with_repository(World::new());
    let asked = world
        .program(MOORAGE, &["--", "make-dev-container", "si"])
        .env("MOORAGE_COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "1")
        .env("MOORAGE_SITE", world.path("site"))
        .output();
    assert_eq!(String::from_utf8_lossy(&asked.await.unwrap().stdout), "siem");
}
