//! Pushing an image. The request is our own: bollard writes the login in standard base64, which Docker 20.10 misreads
//! where it holds `+` or `/`.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::header::HOST;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::UnixStream;

use super::image::plain;
use super::{Engine, absent};
use crate::report::{Fault, Kind};

/// One thing the engine says while it pushes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pushing {
    /// The layer that this is about.
    pub id: Option<String>,
    pub status: String,
    /// Bytes of the layer, sent and in all.
    pub current: u64,
    pub total: u64,
    /// Of the manifest, with the last words.
    pub digest: Option<String>,
}

/// A line of the answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Line {
    id: Option<String>,
    status: String,
    #[serde(rename = "progressDetail")]
    progress: Progress,
    aux: Aux,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Progress {
    current: u64,
    total: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Aux {
    #[serde(rename = "Digest")]
    digest: Option<String>,
}

impl Engine {
    /// Pushes `name:tag`; `login` is the value of X-Registry-Auth. Dropping the future ends the push.
    pub async fn push(
        &self,
        name: &str,
        tag: &str,
        login: &str,
        mut said: impl FnMut(Pushing),
    ) -> Result<()> {
        plain(name)?;
        plain(tag)?;
        let doing = format!("cannot push {name}:{tag}");
        let version = self.docker().await?.client_version();
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|e| absent(&self.socket).why(e.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        // The engine stops when nobody listens any more.
        let _ended = AbortOnDrop(connection.abort_handle());
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!(
                "/v{}.{}/images/{name}/push?tag={tag}",
                version.major_version, version.minor_version
            ))
            .header(HOST, "docker")
            .header("X-Registry-Auth", login)
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await.with_context(|| doing.clone())?;
        let status = response.status();
        let mut body = response.into_body();
        let mut pending = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.with_context(|| format!("{doing}: the Docker Engine went away"))?;
            pending.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
            while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = pending.drain(..=end).collect();
                take(&line, &doing, &mut said)?;
            }
        }
        if !status.is_success() {
            let message = String::from_utf8_lossy(&pending).trim().to_owned();
            return Err(refused(&doing, message).into());
        }
        match pending.iter().all(u8::is_ascii_whitespace) {
            true => Ok(()),
            false => take(&pending, &doing, &mut said),
        }
    }
}

fn take(line: &[u8], doing: &str, said: &mut impl FnMut(Pushing)) -> Result<()> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Ok(());
    }
    let line: Line =
        serde_json::from_slice(line).with_context(|| format!("{doing}: read the engine's words"))?;
    if let Some(error) = line.error {
        return Err(refused(doing, error).into());
    }
    said(Pushing {
        id: line.id,
        status: line.status,
        current: line.progress.current,
        total: line.progress.total,
        digest: line.aux.digest,
    });
    Ok(())
}

fn refused(doing: &str, why: String) -> Fault {
    let words = why.to_lowercase();
    let denied = ["unauthorized", "denied", "no basic auth", "authentication required"];
    match denied.iter().any(|sign| words.contains(sign)) {
        true => Fault::new(Kind::Denied, doing)
            .why(why)
            .next("docker login to that registry as somebody who may publish"),
        false => Fault::new(Kind::Failed, doing)
            .why(why)
            .next("when the registry answers, run the same command again: it sends only what is missing"),
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_s_words_are_read() {
        let mut all = Vec::new();
        let mut said = |one| all.push(one);
        for line in [
            r#"{"status":"The push refers to repository [r/x]"}"#,
            r#"{"status":"Pushing","progressDetail":{"current":512,"total":4000},"id":"ab"}"#,
            r#"{"progressDetail":{},"aux":{"Tag":"latest","Digest":"sha256:00","Size":528}}"#,
        ] {
            take(line.as_bytes(), "push", &mut said).unwrap();
        }
        assert_eq!((all[1].current, all[1].total, all[1].id.as_deref()), (512, 4000, Some("ab")));
        assert_eq!(all[2].digest.as_deref(), Some("sha256:00"));
        let line =
            br#"{"errorDetail":{"message":"no basic auth credentials"},"error":"no basic auth credentials"}"#;
        assert_eq!(Fault::of(&take(line, "push", &mut |_| {}).unwrap_err()).kind, Kind::Denied);
    }
}
