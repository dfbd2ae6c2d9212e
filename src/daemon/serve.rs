//! Connections: who is at the other end, how many at once, and how large a request may be.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::App;
use crate::api::BODY_LIMIT;
use crate::container::Caller;
use crate::opt::driver::PeerPid;
use crate::report::{Fault, Kind};

/// Connections one person may have at once: a terminal each, and some to spare.
const EACH: usize = 64;
/// Connections of dockerd; it opens one a call.
const DRIVER_CONNECTIONS: usize = 256;
/// How long a client may take to send the head of a request.
const HEAD: Duration = Duration::from_secs(30);

/// Counts connections by uid.
#[derive(Default)]
struct Counts(Mutex<HashMap<u32, usize>>);

/// One counted connection.
struct Counted {
    counts: Arc<Counts>,
    uid: u32,
}

impl Counts {
    fn enter(self: &Arc<Self>, uid: u32, most: usize) -> Option<Counted> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(uid).or_default();
        (*count < most).then(|| {
            *count += 1;
            Counted { counts: self.clone(), uid }
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = self.counts.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.uid);
            }
        }
    }
}

/// Serves dockerd. Its calls carry the peer's PID, so that the volume driver can look at what dockerd sees.
pub async fn drivers(listener: UnixListener, router: Router, stop: CancellationToken) {
    let counts = Arc::new(Counts::default());
    while let Some(stream) = accept(&listener, &stop).await {
        let Ok(peer) = stream.peer_cred() else { continue };
        let Some(counted) = counts.enter(peer.uid(), DRIVER_CONNECTIONS) else { continue };
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
    let counts = Arc::new(Counts::default());
    let router = router.layer(DefaultBodyLimit::max(BODY_LIMIT));
    while let Some(stream) = accept(&listener, &stop).await {
        let Ok(peer) = stream.peer_cred() else { continue };
        let (router, app) = (router.clone(), app.clone());
        let counted = counts.enter(peer.uid(), EACH);
        tokio::spawn(async move {
            let caller = match &counted {
                None => Err(Fault::new(Kind::Denied, format!("you have {EACH} connections open already"))
                    .next("end some of them")),
                Some(_) => {
                    let looked = tokio::task::spawn_blocking(move || {
                        Caller::of_uid(peer.uid(), &app.host.config.admins)
                    });
                    match looked.await {
                        Ok(caller) => caller.map_err(|error| Fault::of(&error)),
                        Err(_) => Err(Fault::new(Kind::Failed, "the look-up of who calls ended")),
                    }
                }
            };
            let service = tower::service_fn(move |mut request: Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(caller.clone());
                router.clone().oneshot(request.map(Body::new))
            });
            connection(stream, service).await;
            drop(counted);
        });
    }
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
