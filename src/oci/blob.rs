//! A blob on its way to us.

use std::io;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;

/// The bytes of a blob, from the one that was asked for. Their digest is the caller's to check: a part has none.
pub struct Incoming {
    pub(super) bytes: BoxStream<'static, io::Result<Bytes>>,
    /// Where the first of them stands in the blob: not what was asked for, but 0, where the registry knows no ranges.
    pub from: u64,
}

impl Incoming {
    /// The next bytes, never none; `None` at the end.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            match self.bytes.next().await.transpose()? {
                Some(bytes) if bytes.is_empty() => {}
                other => return Ok(other),
            }
        }
    }
}
