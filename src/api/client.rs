//! The CLI's side of the wire.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::http::request::Builder;
use hyper::upgrade::Upgraded;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{API_HEADER, API_VERSION, BODY_LIMIT, EnterRequest, OPERATION_HEADER, frame, too_large};
use crate::report::{Event, Fault, Kind, Reporter};

/// What to do about an answer that no daemon of this version gives.
const MISUNDERSTOOD: &str = "restart the daemon (systemctl restart moorage), then run the same command again";

/// A line of events longer than this many bytes is no event.
const LONGEST_EVENT: usize = 1 << 20;

/// All but the unreserved characters (RFC 3986, 2.3).
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The daemon, reached through its socket. Each request has a connection of its own, so that closing one cancels
/// that request and no other.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
}

/// The path of a container as the person typed its name; `rest` is what follows (`/start`, or nothing).
pub fn container(typed: &str, rest: &str) -> String {
    format!("/v1/containers/{}{rest}", utf8_percent_encode(typed, RESERVED))
}

impl Client {
    /// The daemon behind this socket; fails when nobody listens there.
    ///
    /// # Errors
    /// [`Kind::Missing`] when the daemon does not run, [`Kind::Denied`] when the socket may not be opened.
    pub async fn connect(socket: &Path) -> Result<Client> {
        let client = Client { socket: socket.to_owned() };
        client.get::<super::Version>("/v1/version").await?;
        Ok(client)
    }

    /// Asks for one answer.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        answer(path, self.send(request(Method::GET, path), Bytes::new()).await?).await
    }

    /// Says something and takes one answer.
    pub async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        answer(path, self.send(request(Method::POST, path), json(body)?).await?).await
    }

    /// Begins an operation. Dropping the events cancels it.
    pub async fn stream(&self, path: &str, body: &impl Serialize) -> Result<Events> {
        let response = self.send(request(Method::POST, path), json(body)?).await?;
        let operation =
            response.headers().get(OPERATION_HEADER).and_then(|id| id.to_str().ok()).map(str::to_owned);
        Ok(Events { operation, body: response.into_body(), buffer: Vec::new() })
    }

    /// Carries out an operation to its end: shows its events, returns its result.
    pub async fn run<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        reporter: &Reporter,
    ) -> Result<T> {
        let mut events = self.stream(path, body).await?;
        loop {
            match events.next().await? {
                Event::Done { result } => return result_of(path, result),
                Event::Failed { fault } => return Err(fault.into()),
                event => reporter.send(event),
            }
        }
    }

    /// Asks for bytes, as they come.
    pub async fn bytes(&self, path: &str) -> Result<Chunks> {
        let response = self.send(request(Method::GET, path), Bytes::new()).await?;
        Ok(Chunks { body: response.into_body() })
    }

    /// Runs something inside a container; the connection carries [`frame`]s from then on.
    pub async fn enter(&self, typed: &str, what: &EnterRequest) -> Result<TokioIo<Upgraded>> {
        let path = container(typed, "/enter");
        let request =
            request(Method::POST, &path).header(CONNECTION, "upgrade").header(UPGRADE, frame::PROTOCOL);
        let response = self.send(request, json(what)?).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(unexpected(&path, format!("HTTP {} instead of 101", response.status())).into());
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await.context("take over the connection")?))
    }

    /// Sends a request and takes the head of the answer; an answer that is no success is its fault.
    async fn send(&self, request: Builder, body: Bytes) -> Result<Response<Incoming>> {
        // The daemon would end the connection in the middle of it.
        if body.len() > BODY_LIMIT {
            return Err(too_large().why(format!("it has {} bytes", body.len())).into());
        }
        let request = request.body(Full::new(body)).context("make a request")?;
        let response = self
            .connection()
            .await?
            .send_request(request)
            .await
            .map_err(|error| gone().why(format!("no answer: {error}")))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let body = response.into_body().collect().await.context("read the daemon's answer")?.to_bytes();
        Err(serde_json::from_slice::<Fault>(&body)
            .unwrap_or_else(|_| {
                Fault::new(Kind::Failed, format!("the daemon answered HTTP {status}"))
                    .why(String::from_utf8_lossy(&body))
                    .next(MISUNDERSTOOD)
            })
            .into())
    }

    async fn connection(&self) -> Result<SendRequest<Full<Bytes>>> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|e| unreachable(&self.socket, &e))?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await.context("speak to the daemon")?;
        // It ends by itself when the request and its answer are dropped; what goes wrong is seen there.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

fn request(method: Method, path: &str) -> Builder {
    Request::builder()
        .method(method)
        .uri(path)
        .header(HOST, "moorage")
        .header(API_HEADER, API_VERSION)
        .header(CONTENT_TYPE, "application/json")
}

fn json(body: &impl Serialize) -> Result<Bytes> {
    Ok(serde_json::to_vec(body).context("write a request")?.into())
}

async fn answer<T: DeserializeOwned>(path: &str, response: Response<Incoming>) -> Result<T> {
    let body = response.into_body().collect().await.map_err(|e| gone().why(e.to_string()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|e| unexpected(path, e.to_string()).into())
}

/// The result of an operation as its type.
pub fn result_of<T: DeserializeOwned>(path: &str, result: serde_json::Value) -> Result<T> {
    serde_json::from_value(result).map_err(|e| unexpected(path, e.to_string()).into())
}

/// What an operation says while it runs.
#[derive(Debug)]
pub struct Events {
    /// The operation's id, to cancel it by; absent where it cannot be cancelled.
    pub operation: Option<String>,
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// The next event; [`Event::Done`] or [`Event::Failed`] is the last. May be dropped and called again.
    ///
    /// # Errors
    /// [`Kind::Failed`] when the stream ends before its last event.
    pub async fn next(&mut self) -> Result<Event> {
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return serde_json::from_slice(&line)
                    .map_err(|e| unexpected("an operation", e.to_string()).into());
            }
            if self.buffer.len() > LONGEST_EVENT {
                return Err(unexpected("an operation", "a line without end".into()).into());
            }
            match self.body.frame().await {
                Some(Ok(frame)) => self.buffer.extend(frame.into_data().unwrap_or_default()),
                Some(Err(error)) => return Err(gone().why(error.to_string()).into()),
                None => return Err(gone().into()),
            }
        }
    }
}

/// A body as it comes.
#[derive(Debug)]
pub struct Chunks {
    body: Incoming,
}

impl Chunks {
    /// The next chunk; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.body.frame().await {
            Some(Ok(frame)) => Ok(Some(frame.into_data().unwrap_or_default())),
            Some(Err(error)) => Err(gone().why(error.to_string()).into()),
            None => Ok(None),
        }
    }
}

/// Why the socket cannot be opened, and what to start.
fn unreachable(socket: &Path, error: &std::io::Error) -> Fault {
    let why = format!("{}: {error}", socket.display());
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            let start = match Path::new("/run/systemd/system").is_dir() {
                true => "systemctl start moorage",
                false => "moorage daemon &",
            };
            let sudo = if rustix::process::geteuid().is_root() { "" } else { "sudo " };
            Fault::new(Kind::Missing, "the daemon is not running").why(why).next(format!("{sudo}{start}"))
        }
        ErrorKind::PermissionDenied => Fault::new(Kind::Denied, "you may not talk to the daemon")
            .why(why)
            .next("ask an admin of this host"),
        _ => Fault::new(Kind::Failed, "the daemon cannot be reached").why(why).next(MISUNDERSTOOD),
    }
}

fn gone() -> Fault {
    Fault::new(Kind::Failed, "the daemon went away in the middle").next("moorage list-containers")
}

fn unexpected(path: &str, why: String) -> Fault {
    Fault::new(Kind::Failed, "the daemon answered something else than expected")
        .why(format!("{path}: {why}"))
        .next(MISUNDERSTOOD)
}
