//! How big archives are that are not here yet: asked as the person.

use std::time::Duration;

use super::asked::each_within;
use crate::oci::{Access, Artifact, Registry};
use crate::spec::Archive;
use crate::spec::archive::Scheme;

/// The bytes of each archive as it is published, in their order; none for one whose size nobody says in time.
pub async fn sizes(archives: &[&Archive], patience: Duration) -> Vec<Option<u64>> {
    let client = client();
    each_within(patience, archives, |archive| size(archive, client.as_ref())).await
}

fn client() -> Option<reqwest::Client> {
    // Another part of the process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().user_agent(concat!("moorage/", env!("CARGO_PKG_VERSION"))).build().ok()
}

async fn size(archive: &Archive, client: Option<&reqwest::Client>) -> Option<u64> {
    match archive.scheme().ok()? {
        Scheme::File => {
            let path = archive.url.strip_prefix("file://")?.to_owned();
            // A disk that is away holds only its own thread up.
            let metadata = tokio::task::spawn_blocking(|| std::fs::metadata(path)).await.ok()?.ok()?;
            metadata.is_file().then_some(metadata.len())
        }
        Scheme::Http => {
            let answer = client?.head(&archive.url).send().await.ok()?.error_for_status().ok()?;
            // Not `content_length()`, which is that of the body, and a HEAD has none.
            answer.headers().get(reqwest::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
        }
        Scheme::Oci => {
            let of = archive.reference().ok()?;
            let registry = Registry::open(&of.registry, &Access::of_docker()).await.ok()?;
            let manifest = registry.manifest(&of).await.ok()?;
            Some(Artifact::read(&manifest).ok()?.archive().ok()?.size)
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;
    use crate::spec::Digest;

    #[tokio::test]
    async fn files_are_looked_at_and_servers_asked_but_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("a.tar");
        std::fs::write(&file, [0; 700]).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let routes = Router::new().route("/b.tar", get(|| async { vec![0u8; 900] }));
        tokio::spawn(async move { axum::serve(server, routes).await });
        // Its queue takes connections, and nobody answers them.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();

        let of_web = |url: String| Archive { url, sha256: Some(Digest([7; 32])) };
        let of_file =
            |path: &std::path::Path| Archive { url: format!("file://{}", path.display()), sha256: None };
        let archives = [
            of_web(format!("http://{}/slow.tar", silent.local_addr().unwrap())),
            of_file(&file),
            of_web(format!("http://{address}/b.tar")),
            of_web(format!("http://{address}/missing.tar")),
            of_file(&directory.path().join("missing.tar")),
            of_file(directory.path()),
            Archive { url: "ftp://h/x.tar".into(), sha256: None },
        ];
        let found = sizes(&archives.iter().collect::<Vec<_>>(), Duration::from_millis(500)).await;
        assert_eq!(found, [None, Some(700), Some(900), None, None, None, None]);
    }
}
