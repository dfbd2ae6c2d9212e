//! Decoded bytes from one thread to another, in blocks that are used again.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Cancel;

/// Bytes in a block: fits a core's cache together with what it is copied to.
const BLOCK: usize = 256 * 1024;

/// Blocks on the way: 4 MiB smooth out a burst of small files.
const AHEAD: usize = 16;

enum Message {
    Data(Vec<u8>),
    End,
    Failed(io::Error),
}

pub struct Sender {
    blocks: SyncSender<Message>,
    used: Receiver<Vec<u8>>,
    cancel: Cancel,
}

/// The receiving side: a reader that ends only where the sender said so.
pub struct Blocks {
    blocks: Receiver<Message>,
    used: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
    ended: bool,
}

pub fn channel(cancel: Cancel) -> (Sender, Blocks) {
    let (blocks, received) = sync_channel(AHEAD);
    let (used, returned) = sync_channel(AHEAD);
    let sender = Sender { blocks, used: returned, cancel };
    (sender, Blocks { blocks: received, used, current: Vec::new(), at: 0, ended: false })
}

impl Sender {
    /// Sends all that `source` has. An error if the receiver went away.
    pub fn copy(&mut self, source: &mut dyn Read) -> io::Result<()> {
        loop {
            self.cancel.check()?;
            let mut block = self.used.try_recv().unwrap_or_else(|_| vec![0; BLOCK]);
            block.resize(BLOCK, 0);
            let mut filled = 0;
            while filled < block.len() {
                match source.read(&mut block[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            if filled == 0 {
                return Ok(());
            }
            block.truncate(filled);
            self.blocks
                .send(Message::Data(block))
                .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the writer stopped"))?;
        }
    }

    pub fn end(self) {
        let _ = self.blocks.send(Message::End);
    }

    /// Hands the error over, and a copy of it back.
    pub fn fail(self, error: io::Error) -> io::Error {
        let copy = io::Error::new(error.kind(), error.to_string());
        let _ = self.blocks.send(Message::Failed(error));
        copy
    }
}

impl Blocks {
    /// Gets the next block; false at the end.
    fn advance(&mut self) -> io::Result<bool> {
        if self.ended {
            return Ok(false);
        }
        match self.blocks.recv() {
            Ok(Message::Data(block)) => {
                let used = std::mem::replace(&mut self.current, block);
                if !used.is_empty() {
                    let _ = self.used.try_send(used);
                }
                self.at = 0;
                Ok(true)
            }
            Ok(Message::End) => {
                self.ended = true;
                Ok(false)
            }
            Ok(Message::Failed(e)) => Err(e),
            Err(_) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the decoder stopped")),
        }
    }

    /// Whether a reader has already been told that there is no more.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads to the end; whether all of it was zero bytes.
    pub fn only_zeros(&mut self) -> io::Result<bool> {
        loop {
            if self.current[self.at..].iter().any(|b| *b != 0) {
                return Ok(false);
            }
            self.at = self.current.len();
            if !self.advance()? {
                return Ok(true);
            }
        }
    }
}

impl Read for Blocks {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() && !self.advance()? {
            return Ok(0);
        }
        let n = into.len().min(self.current.len() - self.at);
        into[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}
