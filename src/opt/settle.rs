//! Brings new layers to disk and seals them, on a thread of its own.
//!
//! It does so at once: the engine brings all that was written to disk when it creates a container, whoever wrote it, and while
//! its image is still pulled there is time for that.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};

use super::layer::Layers;

/// The thread. When this goes out of scope it ends, behind what it is doing.
pub struct Settling {
    wake: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Settling {
    pub fn of(layers: Arc<Layers>) -> Result<Settling> {
        let (wake, woken) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("settle".into())
            .spawn(move || settle(&layers, &woken))
            .context("start a thread")?;
        Ok(Settling { wake: Some(wake), thread: Some(thread) })
    }

    /// There are new layers.
    pub fn begin(&self) {
        if let Some(wake) = &self.wake {
            // The thread ends only with this.
            let _ = wake.send(());
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take() {
            // What it panicked of was said.
            let _ = thread.join();
        }
    }
}

fn settle(layers: &Layers, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        while woken.try_recv().is_ok() {}
        said(layers.settle());
        if woken.try_recv() == Err(TryRecvError::Disconnected) {
            return;
        }
        said(layers.seal());
    }
}

fn said(done: Result<()>) {
    if let Err(e) = done {
        tracing::warn!("{e:#}");
    }
}
