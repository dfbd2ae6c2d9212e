//! An HTTP server on the loopback that counts what it is asked for.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use moorage::spec::Archive;
use tokio::sync::Semaphore;

use crate::world::digest;

pub struct Server {
    address: std::net::SocketAddr,
    content: Bytes,
    pub asked: Arc<AtomicUsize>,
    /// What `/held` waits for in the middle of its answer, once a request.
    pub gate: Arc<Semaphore>,
}

#[derive(Clone)]
struct Site {
    content: Bytes,
    asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Server {
    pub async fn start(content: Vec<u8>) -> Server {
        let content = Bytes::from(content);
        let asked = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let site = Site { content: content.clone(), asked: asked.clone(), gate: gate.clone() };
        let router =
            Router::new().route("/held", get(held)).route("/broken", get(broken)).route("/plain", get(plain));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router.with_state(site)).into_future());
        Server { address, content, asked, gate }
    }

    pub fn archive(&self, path: &str) -> Archive {
        Archive { url: format!("http://{}/{path}", self.address), sha256: Some(digest(&self.content)) }
    }
}

async fn plain(State(site): State<Site>) -> Response {
    site.asked.fetch_add(1, Ordering::SeqCst);
    site.content.into_response()
}

/// Half at once, half when the gate opens.
async fn held(State(site): State<Site>) -> Response {
    site.asked.fetch_add(1, Ordering::SeqCst);
    let half = site.content.len() / 2;
    let (first, second) = (site.content.slice(..half), site.content.slice(half..));
    let gate = site.gate;
    let parts = futures_util::stream::iter([false, true]).then(move |last| {
        let (gate, first, second) = (gate.clone(), first.clone(), second.clone());
        async move {
            if !last {
                return Ok::<Bytes, io::Error>(first);
            }
            gate.acquire().await.unwrap().forget();
            Ok(second)
        }
    });
    Body::from_stream(parts).into_response()
}

/// Breaks off in the middle, and gives the rest to whoever asks for it.
async fn broken(State(site): State<Site>, headers: HeaderMap) -> Response {
    site.asked.fetch_add(1, Ordering::SeqCst);
    let from = headers.get(header::RANGE).map(|range| {
        let range = range.to_str().unwrap();
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    if let Some(from) = from {
        return (StatusCode::PARTIAL_CONTENT, site.content.slice(from..)).into_response();
    }
    let half = site.content.slice(..site.content.len() / 2);
    let parts = [Ok(half), Err(io::Error::other("the cable is out"))];
    Body::from_stream(futures_util::stream::iter(parts)).into_response()
}

use futures_util::StreamExt as _;
