//! From an archive's bytes to a tree: recognise the format, decode on one thread, write on another, hash on the way.

pub(super) mod arriving;
mod blocks;
mod budget;
pub(super) mod entry;
mod format;
mod meter;
pub(super) mod network;
pub(super) mod registry;
mod writer;

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, anyhow, bail};

use super::layer::Tree;
use crate::report::Reporter;
use crate::spec::Digest;

/// Set when nobody wants the result any more; the threads look at every block.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(io::Error::other("cancelled")),
            false => Ok(()),
        }
    }
}

/// What reports and stops one extraction.
#[derive(Clone)]
pub struct Watch {
    pub reporter: Reporter,
    pub cancel: Cancel,
    /// Bytes of the archive, where its sender says.
    pub total: Option<u64>,
}

/// Writes the archive that `source` yields into the empty directory `root`, as the root user it runs as. On an error the
/// directory holds a part of it: the caller removes it. Returns the digest of all of `source` and what was written.
pub fn extract(source: impl Read + Send, root: OwnedFd, watch: &Watch) -> Result<(Digest, Tree)> {
    let (sender, blocks) = blocks::channel(watch.cancel.clone());
    std::thread::scope(|scope| {
        let decoder = std::thread::Builder::new()
            .name("decode".into())
            .spawn_scoped(scope, || decode(meter::Meter::new(source, watch), sender))
            .context("start a thread to decode on")?;
        let writer = std::thread::Builder::new()
            .name("write".into())
            .spawn_scoped(scope, || write(blocks, root, watch))
            .context("start a thread to write on")?;
        let written = writer.join().map_err(|_| anyhow!("the writing thread panicked"))?;
        let decoded = decoder.join().map_err(|_| anyhow!("the decoding thread panicked"))?;
        // The writer knows more: what the decoder met arrives there, and it stops the decoder by going away.
        let tree = written?;
        Ok((decoded?, tree))
    })
}

fn decode(mut source: meter::Meter<'_, impl Read>, mut sender: blocks::Sender) -> io::Result<Digest> {
    let result = format::decoder(&mut source).and_then(|mut decoder| sender.copy(&mut decoder));
    match result {
        Ok(()) => match source.finish() {
            Ok(digest) => {
                sender.end();
                Ok(digest)
            }
            Err(e) => Err(sender.fail(e)),
        },
        Err(e) => Err(sender.fail(e)),
    }
}

fn write(blocks: blocks::Blocks, root: OwnedFd, watch: &Watch) -> Result<Tree> {
    // A umask of this thread's own, cleared: open(2) then makes files with the very mode, and no chmod is needed.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).context("detach the thread's umask")?;
    rustix::process::umask(rustix::fs::Mode::empty());

    let mut writer = writer::Writer::new(root);
    let (blocks, budget) = budget::budgeted(blocks);
    let mut archive = tar::Archive::new(blocks);
    let mut entries = archive.entries()?;
    while let Some(found) = budget.within(|| entries.next()) {
        let mut found = found.context("read the next entry")?;
        let Some(planned) = entry::plan(&mut found)? else { continue };
        writer.put(&planned, &mut found).with_context(|| format!("extract {}", planned.path))?;
    }
    let mut rest = archive.into_inner().into_inner();
    if rest.has_ended() {
        bail!("the archive is truncated: its end mark is missing");
    }
    if !rest.only_zeros()? {
        bail!("there is something behind the end of the archive");
    }
    let dropped = writer.dropped();
    if !dropped.is_empty() {
        watch.reporter.warning(format!("extended attributes not kept: {}", dropped.join(", ")));
    }
    writer.finish()
}
