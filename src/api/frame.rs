//! What travels on an `enter` connection once it is upgraded: one byte of kind, four of length (big endian), payload.

use std::io::ErrorKind;

use anyhow::{Result, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::report::Fault;

/// What the `Upgrade` header calls this protocol.
pub const PROTOCOL: &str = "moorage-enter";
/// The largest payload, in bytes.
pub const LARGEST: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// Client to daemon: input; an empty one ends it.
    Input(Vec<u8>),
    /// Client to daemon: the terminal's new size, columns and rows.
    Resize(u16, u16),
    /// Client to daemon: a signal for the process inside (number as in signal(7)).
    Signal(u8),
    Output(Vec<u8>),
    ErrorOutput(Vec<u8>),
    /// Daemon to client, last: the process's exit code.
    Exit(i32),
    /// Daemon to client, last: it could not be run.
    Failed(Box<Fault>),
}

/// Reads one frame; `None` at the end of the stream, which the kernel calls a reset where the other side had not read
/// everything (unix(7)).
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>> {
    let kind = match from.read_u8().await {
        Ok(kind) => kind,
        Err(e) if matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => {
            return Ok(None);
        }
        Err(e) => return Err(e.into()),
    };
    let length = from.read_u32().await? as usize;
    ensure!(length <= LARGEST, "a frame of {length} bytes is too large");
    let mut payload = vec![0; length];
    from.read_exact(&mut payload).await?;
    Ok(Some(match (kind, payload.as_slice()) {
        (0, _) => Frame::Input(payload),
        (1, &[a, b, c, d]) => Frame::Resize(u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        (2, &[signal]) => Frame::Signal(signal),
        (3, _) => Frame::Output(payload),
        (4, _) => Frame::ErrorOutput(payload),
        (5, &[a, b, c, d]) => Frame::Exit(i32::from_be_bytes([a, b, c, d])),
        (6, json) => Frame::Failed(serde_json::from_slice(json)?),
        _ => bail!("frame of unknown kind {kind} with {length} bytes"),
    }))
}

/// Writes one frame and flushes it.
pub async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<()> {
    let (kind, payload) = match frame {
        Frame::Input(bytes) => (0, bytes.clone()),
        Frame::Resize(columns, rows) => (1, [columns.to_be_bytes(), rows.to_be_bytes()].concat()),
        Frame::Signal(signal) => (2, vec![*signal]),
        Frame::Output(bytes) => (3, bytes.clone()),
        Frame::ErrorOutput(bytes) => (4, bytes.clone()),
        Frame::Exit(code) => (5, code.to_be_bytes().to_vec()),
        Frame::Failed(fault) => (6, serde_json::to_vec(fault)?),
    };
    ensure!(payload.len() <= LARGEST, "a frame of {} bytes is too large", payload.len());
    to.write_u8(kind).await?;
    to.write_u32(payload.len() as u32).await?;
    to.write_all(&payload).await?;
    to.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_round_trip() {
        let frames = [
            Frame::Input(b"ls\n".to_vec()),
            Frame::Input(vec![]),
            Frame::Resize(80, 24),
            Frame::Signal(2),
            Frame::Output(vec![0, 255]),
            Frame::ErrorOutput(vec![1]),
            Frame::Exit(-1),
            Frame::Failed(Box::new(Fault::new(crate::report::Kind::Failed, "no"))),
        ];
        let mut wire = Vec::new();
        for frame in &frames {
            write(&mut wire, frame).await.unwrap();
        }
        let mut from = wire.as_slice();
        for frame in frames {
            assert_eq!(read(&mut from).await.unwrap(), Some(frame));
        }
        assert_eq!(read(&mut from).await.unwrap(), None);
    }

    #[tokio::test]
    async fn junk_is_an_error() {
        for junk in [&[9, 0, 0, 0, 0][..], &[1, 0, 0, 0, 1, 7], &[0, 255, 255, 255, 255], &[0, 0, 0]] {
            assert!(read(&mut &*junk).await.is_err(), "{junk:?}");
        }
    }
}
