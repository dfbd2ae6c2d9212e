//! An HTTP server on the loopback that counts what it is asked for.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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
    pub ranged: Ranged,
    pub asked: Arc<AtomicUsize>,
    /// What `/held` waits for in the middle of its answer, once a request.
    pub gate: Arc<Semaphore>,
}

/// How `/ranged` answers, and what it was asked.
#[derive(Clone, Default)]
pub struct Ranged(Arc<Mutex<Manner>>);

#[derive(Default)]
pub struct Manner {
    /// It answers 503 so many times first.
    pub busy: usize,
    /// It knows no ranges.
    pub whole: bool,
    /// Another content than the server's, and its ETag.
    pub instead: Option<(Bytes, &'static str)>,
    /// It hangs in the middle of what it sends.
    pub hangs: bool,
    /// The Range and If-Range of each request.
    pub asked: Vec<(Option<String>, Option<String>)>,
    /// Bytes of content that it has sent.
    pub sent: usize,
}

impl Ranged {
    pub fn state(&self) -> std::sync::MutexGuard<'_, Manner> {
        self.0.lock().unwrap()
    }
}

#[derive(Clone)]
struct Site {
    ranged: Ranged,
    content: Bytes,
    asked: Arc<AtomicUsize>,
    gate: Arc<Semaphore>,
}

impl Server {
    pub async fn start(content: Vec<u8>) -> Server {
        let content = Bytes::from(content);
        let asked = Arc::new(AtomicUsize::new(0));
        let gate = Arc::new(Semaphore::new(0));
        let ranged = Ranged::default();
        let site = Site {
            ranged: ranged.clone(),
            content: content.clone(),
            asked: asked.clone(),
            gate: gate.clone(),
        };
        let router =
            Router::new().route("/held", get(held)).route("/broken", get(broken)).route("/plain", get(plain));
        let router = router.route("/ranged", get(ranged_content));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(axum::serve(listener, router.with_state(site)).into_future());
        Server { address, content, ranged, asked, gate }
    }

    pub fn archive(&self, path: &str) -> Archive {
        Archive { url: format!("http://{}/{path}", self.address), sha256: Some(digest(&self.content)) }
    }
}

async fn plain(State(site): State<Site>) -> Response {
    site.asked.fetch_add(1, Ordering::SeqCst);
    site.content.into_response()
}

/// As a good web server does it, with a strong ETag (RFC 9110, 13.1.5 and 14.2).
async fn ranged_content(State(site): State<Site>, headers: HeaderMap) -> Response {
    let text = |name| headers.get(name).map(|value: &header::HeaderValue| value.to_str().unwrap().to_owned());
    let (range, if_range) = (text(header::RANGE), text(header::IF_RANGE));
    let mut state = site.ranged.state();
    state.asked.push((range.clone(), if_range.clone()));
    if state.busy > 0 {
        state.busy -= 1;
        return (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "0")]).into_response();
    }
    let (content, tag) = state.instead.clone().unwrap_or((site.content.clone(), "\"one\""));
    let from = range.map(|range| {
        range.strip_prefix("bytes=").unwrap().strip_suffix('-').unwrap().parse::<usize>().unwrap()
    });
    let from = from.filter(|_| !state.whole && if_range.is_none_or(|wanted| wanted == tag));
    if from.is_some_and(|from| from >= content.len()) {
        let all = format!("bytes */{}", content.len());
        return (StatusCode::RANGE_NOT_SATISFIABLE, [(header::CONTENT_RANGE, all)]).into_response();
    }
    let rest = content.slice(from.unwrap_or(0)..);
    let (end, hangs) = (if state.hangs { rest.len() / 2 } else { rest.len() }, state.hangs);
    state.sent += end;
    let first = futures_util::stream::iter([Ok::<Bytes, io::Error>(rest.slice(..end))]);
    let body = match hangs {
        true => Body::from_stream(first.chain(futures_util::stream::pending())),
        false => rest.into(),
    };
    match from {
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", content.len() - 1, content.len());
            (StatusCode::PARTIAL_CONTENT, [(header::CONTENT_RANGE, range)], [(header::ETAG, tag)], body)
                .into_response()
        }
        None => ([(header::ETAG, tag)], body).into_response(),
    }
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
