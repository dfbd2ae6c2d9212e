//! Connections: who is at the other end, how many at once, and how large a request may be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::App;
use crate::apart;
use crate::api::BODY_LIMIT;
use crate::container::Caller;
use crate::opt::driver::PeerPid;
use crate::report::{Fault, Kind};

/// Connections one person may have at once, terminals inside among them.
const EACH: usize = 128;
/// Connections of all people together; root is served beyond it.
const ALL: usize = 1024;
/// Connections of dockerd; it opens one a call.
const DRIVER_CONNECTIONS: usize = 256;
/// Clients that are told at the same time that they are one too many, and how long that may take. More are hung up on.
const TURNED_AWAY: (usize, Duration) = (32, Duration::from_secs(1));
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// Counts connections by uid.
struct Counts {
    open: Mutex<HashMap<u32, usize>>,
    each: usize,
    all: usize,
}

/// One counted connection. Kept by whatever outlives the requests on it.
pub(super) struct Counted {
    counts: Arc<Counts>,
    uid: u32,
}

impl Counts {
    fn new(each: usize, all: usize) -> Arc<Counts> {
        Arc::new(Counts { open: Mutex::default(), each, all })
    }

    fn enter(self: &Arc<Self>, uid: u32) -> Result<Counted, Fault> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |what: String, next: &str| Err(Fault::new(Kind::Denied, what).next(next));
        if open.get(&uid).is_some_and(|count| *count >= self.each) {
            return full(format!("you have {} connections open already", self.each), "end some of them");
        }
        if uid != 0 && open.values().sum::<usize>() >= self.all {
            return full(format!("the daemon has {} connections open already", self.all), "try again later");
        }
        *open.entry(uid).or_default() += 1;
        Ok(Counted { counts: self.clone(), uid })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut open = self.counts.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.uid);
            }
        }
    }
}

/// Lets the daemon have as many descriptors open as it is allowed to; the usual 1024 are kept low only for select(2).
pub fn more_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("raise the limit of open files: {error}");
    }
}

/// Serves dockerd. Its calls carry the peer's PID, so that the volume driver can look at what dockerd sees.
pub async fn drivers(listener: UnixListener, router: Router, stop: CancellationToken) {
    let counts = Counts::new(DRIVER_CONNECTIONS, DRIVER_CONNECTIONS);
    while let Some(stream) = accept(&listener, &stop).await {
        let Ok(peer) = stream.peer_cred() else { continue };
        let Ok(counted) = counts.enter(peer.uid()) else { continue };
        let pid = peer.pid();
        let router = router.clone();
        tokio::spawn(async move {
            let service = tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
                if let Some(pid) = pid {
                    request.extensions_mut().insert(PeerPid(pid));
                }
                router.clone().oneshot(request.map(Body::new))
            });
            connection(stream, service).await;
            drop(counted);
        });
    }
}

/// Serves people. A caller that cannot be identified, or has too many connections, is told so.
pub async fn people(listener: UnixListener, router: Router, app: Arc<App>, stop: CancellationToken) {
    let counts = Counts::new(EACH, ALL);
    let turned_away = Arc::new(Semaphore::new(TURNED_AWAY.0));
    let router = router.layer(DefaultBodyLimit::max(BODY_LIMIT));
    while let Some(stream) = accept(&listener, &stop).await {
        let Ok(peer) = stream.peer_cred() else { continue };
        let counted = match counts.enter(peer.uid()) {
            Ok(counted) => Arc::new(counted),
            Err(fault) => {
                if let Ok(place) = turned_away.clone().try_acquire_owned() {
                    tokio::spawn(async move {
                        let _ = tokio::time::timeout(TURNED_AWAY.1, turn_away(stream, &fault)).await;
                        drop(place);
                    });
                }
                continue;
            }
        };
        let (router, app) = (router.clone(), app.clone());
        tokio::spawn(async move {
            // A directory service may be asked, and may not answer.
            let look = move || Caller::of_uid(peer.uid(), &app.host.config.admins);
            let caller = apart::blocking(look).await.map_err(|error| Fault::of(&error));
            let service = tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(caller.clone());
                request.extensions_mut().insert(counted.clone());
                router.clone().oneshot(request.map(Body::new))
            });
            connection(stream, service).await;
        });
    }
}

/// Answers the first request with `fault`, whatever it is, and hangs up.
async fn turn_away(mut stream: UnixStream, fault: &Fault) -> std::io::Result<()> {
    let body = serde_json::to_string(fault)?;
    let head = "HTTP/1.1 403 Forbidden\r\ncontent-type: application/json\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    // A client takes an answer only once it has asked, and may lose it when its request is left unread.
    let mut request = [0; 4096];
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}

async fn accept(listener: &UnixListener, stop: &CancellationToken) -> Option<UnixStream> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return None,
        };
        match accepted {
            Ok((stream, _)) => return Some(stream),
            Err(error) => {
                // Out of descriptors: those in use come back; spinning would not help them.
                tracing::warn!("accept: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection<S>(stream: UnixStream, service: S)
where
    S: tower::Service<Request<hyper::body::Incoming>, Response = axum::response::Response>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
{
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!("connection: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_by_person_and_together() {
        let counts = Counts::new(2, 3);
        let ann = [counts.enter(1).ok().unwrap(), counts.enter(1).ok().unwrap()];
        assert!(counts.enter(1).err().unwrap().what.starts_with("you have 2"));
        let bob = counts.enter(2).ok().unwrap();
        assert!(counts.enter(3).err().unwrap().what.starts_with("the daemon has 3"));
        let root = counts.enter(0).ok().unwrap();
        drop(ann);
        assert!(counts.enter(3).is_ok());
        drop((bob, root));
        assert!(counts.open.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_is_one_too_many_is_told_and_hung_up_on() {
        let (mut client, server) = UnixStream::pair().unwrap();
        let fault = Fault::new(Kind::Denied, "too many").next("end some");
        let told = tokio::spawn(async move { turn_away(server, &fault).await });
        client.write_all(b"GET /v1/version HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        drop(client);
        told.await.unwrap().unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        assert!(head.ends_with(&format!("content-length: {}", body.len())), "{head}");
        assert_eq!(serde_json::from_str::<Fault>(body).unwrap().what, "too many");
    }

    #[test]
    fn all_allowed_descriptors_can_be_used() {
        let limit = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
        more_descriptors();
        assert_eq!(getrlimit(Resource::Nofile), Rlimit { current: limit.maximum, ..limit });
    }
}
