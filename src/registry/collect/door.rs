//! Who answers publishers while their server is stopped: come again.

use std::convert::Infallible;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::Full;
use hyper::ext::ReasonPhrase;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::registry::place::{Place, Settings};

/// What Docker shows of an answer with such a status is this, and nothing of its body.
const WORDS: &str = "garbage is being collected, push again in a minute";
/// Docker tries for longer than this, seconds, what was answered so.
const AGAIN: &str = "5";

/// Listens on the publishers' port until it goes out of scope.
pub struct Door {
    _listening: JoinSet<()>,
}

impl Door {
    /// Opens on the port of the server that has just ended.
    pub async fn open(place: &Place, settings: &Settings) -> Result<Door> {
        // Another part of the process may have installed it already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let read =
            |path: &std::path::Path| place.text(path)?.with_context(|| format!("read {}", path.display()));
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(read(&place.certificate())?.as_bytes()).collect();
        let key =
            PrivateKeyDer::from_pem_slice(read(&place.key())?.as_bytes()).context("the servers' key")?;
        let tls = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain.context("the servers' certificate")?, key)
            .context("the servers' certificate")?;
        let port = settings.push_port;
        let listener = match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Ok(listener) => listener,
            // A host without IPv6.
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))
                .await
                .with_context(|| format!("listen on port {port}"))?,
        };
        let mut listening = JoinSet::new();
        listening.spawn(listen(listener, TlsAcceptor::from(Arc::new(tls))));
        Ok(Door { _listening: listening })
    }
}

async fn listen(listener: TcpListener, tls: TlsAcceptor) {
    // They end with this.
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let tls = tls.clone();
        connections.spawn(async move {
            if let Ok(stream) = tls.accept(stream).await {
                let answer = service_fn(async |request: Request<_>| answer(&request));
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// `/v2/` asks for the login as the server does: without it a client would go on without one and be refused later.
fn answer<B>(request: &Request<B>) -> Result<Response<Full<Bytes>>, Infallible> {
    let asks = request.uri().path() == "/v2/";
    let body = serde_json::json!({ "errors": [{ "code": "UNAVAILABLE", "message": WORDS }] });
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    let headers = response.headers_mut();
    let fixed = header::HeaderValue::from_static;
    headers.insert("Docker-Distribution-API-Version", fixed("registry/2.0"));
    headers.insert(header::CONTENT_TYPE, fixed("application/json"));
    headers.insert(header::CONNECTION, fixed("close"));
    if asks {
        headers.insert(header::WWW_AUTHENTICATE, fixed("Basic realm=\"moorage\""));
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    } else {
        headers.insert(header::RETRY_AFTER, fixed(AGAIN));
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        response.extensions_mut().insert(ReasonPhrase::from_static(WORDS.as_bytes()));
    }
    Ok(response)
}
