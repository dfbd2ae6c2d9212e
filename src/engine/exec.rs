//! Running something inside a container.
//!
//! The stream is our own: bollard's reader takes terminal output that begins with a small byte for a frame header.

use std::pin::Pin;

use anyhow::{Context as _, Result};
use bollard::exec::{CreateExecOptions, ResizeExecOptions};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::unfinished::Unfinished;
use super::{Engine, fault};
use crate::report::{Fault, Kind};

/// What to run.
#[derive(Debug, Clone, Default)]
pub struct Exec {
    pub command: Vec<String>,
    /// `name`, or empty for the image's default user.
    pub user: String,
    pub env: Vec<String>,
    pub directory: Option<String>,
    /// With a terminal, output and error output come as one raw stream.
    pub terminal: bool,
    pub input: bool,
}

/// Something that runs inside.
pub struct Session {
    pub id: String,
    pub output: SessionOutput,
    pub input: SessionInput,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Output(Vec<u8>),
    ErrorOutput(Vec<u8>),
}

pub struct SessionOutput {
    stream: Pin<Box<dyn AsyncRead + Send>>,
    terminal: bool,
    /// Bytes that are left of the frame being read, and whether it is error output.
    frame: (usize, bool),
}

pub struct SessionInput(Pin<Box<dyn AsyncWrite + Send>>);

impl SessionInput {
    pub async fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.write_all(bytes).await?;
        self.0.flush().await
    }

    /// Ends the process's input.
    pub async fn end(&mut self) -> std::io::Result<()> {
        self.0.shutdown().await
    }
}

impl SessionOutput {
    /// The next piece; `None` when the process's output has ended.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        let mut buffer = vec![0; 16 << 10];
        if !self.terminal {
            while self.frame.0 == 0 {
                let mut header = [0; 8];
                match self.stream.read_exact(&mut header).await {
                    Ok(_) => {}
                    Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
                    Err(e) => return Err(e).context("read the output of a process inside"),
                }
                let [kind, _, _, _, a, b, c, d] = header;
                self.frame = (u32::from_be_bytes([a, b, c, d]) as usize, kind == 2);
            }
            buffer.truncate(self.frame.0.min(buffer.len()));
        }
        let count = self.stream.read(&mut buffer).await.context("read the output of a process inside")?;
        if count == 0 {
            return Ok(None);
        }
        buffer.truncate(count);
        self.frame.0 = self.frame.0.saturating_sub(count);
        Ok(Some(match self.frame.1 {
            true => Piece::ErrorOutput(buffer),
            false => Piece::Output(buffer),
        }))
    }
}

/// The longest line that is handed on whole, bytes.
const LONGEST_LINE: usize = 4 << 10;

/// Output on its way to being lines.
#[derive(Default)]
struct Lines {
    /// The beginning of a line, at most [`LONGEST_LINE`] bytes.
    pending: Vec<u8>,
}

impl Lines {
    fn push(&mut self, bytes: &[u8], line: &mut impl FnMut(&str)) {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let mut text = part.strip_suffix(b"\n").unwrap_or(part);
            while self.pending.len() + text.len() > LONGEST_LINE {
                let (now, later) = text.split_at(LONGEST_LINE - self.pending.len());
                self.pending.extend_from_slice(now);
                self.hand_on(line);
                text = later;
            }
            self.pending.extend_from_slice(text);
            if part.ends_with(b"\n") {
                self.hand_on(line);
            }
        }
    }

    fn end(mut self, line: &mut impl FnMut(&str)) {
        if !self.pending.is_empty() {
            self.hand_on(line);
        }
    }

    fn hand_on(&mut self, line: &mut impl FnMut(&str)) {
        line(String::from_utf8_lossy(&self.pending).trim_end_matches('\r'));
        self.pending.clear();
    }
}

impl Engine {
    /// Starts `exec` inside `container`.
    pub async fn exec(&self, container: &str, exec: &Exec) -> Result<Session> {
        let options = CreateExecOptions {
            attach_stdin: Some(exec.input),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(exec.terminal),
            env: Some(exec.env.clone()),
            cmd: Some(exec.command.clone()),
            user: Some(exec.user.clone()),
            working_dir: exec.directory.clone(),
            ..Default::default()
        };
        let doing = format!("run {:?} in {container}", exec.command.join(" "));
        let docker = self.docker().await?;
        let id = docker.create_exec(container, options).await.map_err(|e| fault(e, &doing))?.id;
        let version = docker.client_version();
        let path = format!("/v{}.{}/exec/{id}/start", version.major_version, version.minor_version);
        let stream = self.upgrade(&path, exec.terminal).await.with_context(|| format!("cannot {doing}"))?;
        let (read, write) = tokio::io::split(stream);
        Ok(Session {
            id,
            output: SessionOutput { stream: Box::pin(read), terminal: exec.terminal, frame: (0, false) },
            input: SessionInput(Box::pin(write)),
        })
    }

    async fn upgrade(&self, path: &str, terminal: bool) -> Result<TokioIo<hyper::upgrade::Upgraded>> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|e| super::absent(&self.socket).why(e.to_string()))?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection.with_upgrades());
        let body = serde_json::json!({ "Detach": false, "Tty": terminal }).to_string();
        let request = Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(HOST, "docker")
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "tcp")
            .body(Full::new(Bytes::from(body)))?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let body = response.into_body().collect().await?.to_bytes();
            let message = serde_json::from_slice::<serde_json::Value>(&body)
                .ok()
                .and_then(|v| v["message"].as_str().map(str::to_owned))
                .unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
            return Err(Fault::new(Kind::Failed, "the Docker Engine refused to run it")
                .why(message)
                .next("moorage list-containers shows whether it runs")
                .into());
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await?))
    }

    /// Runs `exec` to its end and hands on each line of its output, long ones in pieces; answers its exit code. Dropping
    /// the future ends the process too: the engine alone would let it run on, unseen.
    pub async fn run(&self, container: &str, exec: &Exec, mut line: impl FnMut(&str)) -> Result<i32> {
        let mut session = self.exec(container, exec).await?;
        let unfinished = Unfinished::new(self.docker().await?.clone(), session.id.clone());
        let mut lines = Lines::default();
        while let Some(piece) = session.output.next().await? {
            let (Piece::Output(bytes) | Piece::ErrorOutput(bytes)) = piece;
            lines.push(&bytes, &mut line);
        }
        lines.end(&mut line);
        unfinished.done();
        self.exit_code(&session.id).await
    }

    /// The exit code of a process whose output has ended.
    pub async fn exit_code(&self, exec: &str) -> Result<i32> {
        let answer = self.docker().await?.inspect_exec(exec).await;
        let answer = answer.map_err(|e| fault(e, "ask how a process inside ended"))?;
        Ok(answer.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or(-1))
    }

    pub async fn resize(&self, exec: &str, columns: u16, rows: u16) -> Result<()> {
        let options = ResizeExecOptions { height: rows, width: columns };
        let docker = self.docker().await?;
        docker.resize_exec(exec, options).await.map_err(|e| fault(e, "resize the terminal inside"))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut said) = (Lines::default(), Vec::new());
        let mut line = |text: &str| said.push(text.to_owned());
        for piece in pieces {
            lines.push(piece, &mut line);
        }
        lines.end(&mut line);
        said
    }

    #[test]
    fn lines_are_put_together_from_pieces() {
        assert_eq!(lines(&[b"one\r\ntw", b"o\n\nthree"]), ["one", "two", "", "three"]);
        assert!(lines(&[b""]).is_empty());
    }

    #[test]
    fn a_line_without_end_is_handed_on_in_pieces() {
        let endless = vec![b'x'; LONGEST_LINE - 1];
        let lengths = |pieces: &[&[u8]]| lines(pieces).iter().map(String::len).collect::<Vec<_>>();
        assert_eq!(lengths(&[&endless, b"xxx", &endless]), [LONGEST_LINE, LONGEST_LINE, 1]);
        // One that just fits is one line.
        assert_eq!(lengths(&[&endless, b"x\n", b"y"]), [LONGEST_LINE, 1]);
    }
}
