//! Checkouts with the real git, from real repositories.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use moorage::checkout;
use moorage::report::{Event, Fault, Kind, Reporter};
use moorage::spec::SourceSpec;
use tokio::io::AsyncReadExt as _;

pub fn git(directory: &Path, args: &[&str]) {
    let identity =
        ["-c", "user.name=Ann", "-c", "user.email=ann@example.org", "-c", "init.defaultBranch=main"];
    let status = Command::new("git").current_dir(directory).args(identity).args(args).output().unwrap();
    assert!(status.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&status.stderr));
}

/// A repository with `file` on `main`, `release/9.2` and the tag `v1`, each with its own content.
fn repository(directory: &Path) -> PathBuf {
    let repository = directory.join("siem.git");
    std::fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "--quiet"]);
    for (content, then) in
        [("v1", &["tag", "v1"][..]), ("9.2", &["branch", "release/9.2"]), ("main", &["status"])]
    {
        std::fs::write(repository.join("file"), content).unwrap();
        git(&repository, &["add", "file"]);
        git(&repository, &["commit", "--quiet", "-m", content]);
        git(&repository, then);
    }
    repository
}

fn source(repo: &str, reference: Option<&str>) -> SourceSpec {
    SourceSpec { repo: repo.into(), reference: reference.map(str::to_owned), to: "src".into() }
}

async fn fault(source: SourceSpec, staging: &Path) -> Fault {
    Fault::of(&checkout::all(&[source], staging, &Reporter::silent()).await.unwrap_err())
}

#[tokio::test]
async fn each_source_has_its_directory_and_its_reference() {
    let directory = tempfile::tempdir().unwrap();
    let repository = repository(directory.path());
    let bundle = directory.path().join("siem.bundle");
    git(&repository, &["bundle", "create", "--quiet", bundle.to_str().unwrap(), "--all"]);
    let (path, url) = (repository.to_str().unwrap(), format!("file://{}", repository.display()));
    let sources = [
        source(&url, Some("release/9.2")),
        source(path, Some("v1")),
        source(path, None),
        source(bundle.to_str().unwrap(), Some("release/9.2")),
    ];
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let staging = directory.path().join("staging");
    std::fs::create_dir(&staging).unwrap();
    let reporter = Reporter::new(move |event| sink.lock().unwrap().push(event));
    checkout::all(&sources, &staging, &reporter).await.unwrap();

    for (index, content) in ["9.2", "v1", "main", "9.2"].iter().enumerate() {
        let checkout = staging.join(index.to_string());
        assert_eq!(std::fs::read_to_string(checkout.join("file")).unwrap(), *content);
        // Nothing is shared with the repository: the checkout is given away.
        for entry in walkdir::WalkDir::new(checkout.join(".git")) {
            use std::os::unix::fs::MetadataExt as _;
            let entry = entry.unwrap();
            assert!(entry.file_type().is_dir() || entry.metadata().unwrap().nlink() == 1, "{entry:?}");
        }
        assert!(!checkout.join(".git/objects/info/alternates").exists());
    }
    let seen = seen.lock().unwrap();
    assert!(
        matches!(seen.first(), Some(Event::Begin { .. })) && matches!(seen.last(), Some(Event::End { .. }))
    );
    let furthest = seen.iter().filter_map(|event| match event {
        Event::Progress { done, total, .. } => Some((*done, *total)),
        _ => None,
    });
    let (done, total) = furthest.max().unwrap();
    assert!(done > 0 && total == Some(400), "{done} of {total:?}");
}

#[tokio::test]
async fn a_reference_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let repository = repository(directory.path());
    let fault = fault(source(repository.to_str().unwrap(), Some("release/9.3")), directory.path()).await;
    assert_eq!(fault.kind, Kind::NotFound);
    assert!(fault.what.ends_with("has no branch or tag \"release/9.3\""), "{fault:?}");
    assert!(fault.next.unwrap().starts_with("git ls-remote"));
}

#[tokio::test]
async fn what_cannot_be_reached_is_explained_in_gits_words() {
    let directory = tempfile::tempdir().unwrap();
    let missing = fault(source("/nowhere/siem.git", None), directory.path()).await;
    assert_eq!(missing.kind, Kind::Failed);
    assert!(missing.why.iter().any(|line| line.contains("does not exist")), "{missing:?}");
    // Nobody listens on port 1 of this host.
    let refused = fault(source("git://127.0.0.1:1/siem.git", Some("main")), directory.path()).await;
    assert_eq!(refused.kind, Kind::Failed);
    assert!(refused.why.iter().any(|line| line.contains("Connection refused")), "{refused:?}");
}

#[tokio::test]
async fn a_repository_cannot_be_a_command_or_an_option() {
    let directory = tempfile::tempdir().unwrap();
    let proof = directory.path().join("proof");
    let command = format!("ext::touch {}", proof.display());
    let refused = fault(source(&command, None), directory.path()).await;
    assert!(refused.why.iter().any(|line| line.contains("not allowed")), "{refused:?}");
    let option = format!("--upload-pack=touch {}", proof.display());
    fault(source(&option, None), directory.path()).await;
    fault(source("/nowhere", Some(&option)), directory.path()).await;
    assert!(!proof.exists());
}

#[tokio::test]
async fn dropping_it_ends_git() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let sources = [source(&format!("git://{address}/siem.git"), None)];
    let silent = Reporter::silent();
    let checkout = checkout::all(&sources, directory.path(), &silent);
    let asked = async {
        let mut connection = listener.accept().await.unwrap().0;
        let mut request = Vec::new();
        while !String::from_utf8_lossy(&request).contains("git-upload-pack") {
            assert_ne!(connection.read_buf(&mut request).await.unwrap(), 0, "git asked {request:?} and left");
        }
        connection
    };
    let mut connection = tokio::select! {
        connection = asked => connection,
        ended = checkout => panic!("git did not wait: {ended:?}"),
    };
    // The end of git is the end of its connection; nothing else closes it.
    let ended = connection.read(&mut [0; 256]).await;
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
}
