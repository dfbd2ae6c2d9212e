//! Work that may take long, on a thread of its own.
//!
//! The threads that tokio keeps for blocking work are few, and everybody's leases are saved on them. A walk over a large tree,
//! a look-up that a directory service answers, a source on a dead network disk: so many of those would take them all.

use anyhow::{Context as _, Result};
use tokio::sync::oneshot;

/// Does `work` on a thread that ends with it. It goes on when nobody waits for it any more, and its result is dropped.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let (done, result) = oneshot::channel();
    std::thread::Builder::new()
        .name("apart".into())
        .spawn(move || drop(done.send(work())))
        .context("start a thread")?;
    result.await.context("a worker ended before its work was done")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_does_not_end_keeps_none_waiting() {
        let (gate, opened) = std::sync::mpsc::channel::<()>();
        let opened = std::sync::Arc::new(std::sync::Mutex::new(opened));
        // More than tokio has threads for.
        let stuck: Vec<_> = (0..600)
            .map(|_| {
                let opened = opened.clone();
                tokio::spawn(blocking(move || {
                    Ok(opened.lock().map(|gate| gate.recv().is_err()).unwrap_or(true))
                }))
            })
            .collect();
        assert_eq!(tokio::task::spawn_blocking(|| 7).await.unwrap(), 7);
        drop(gate);
        for work in stuck {
            work.await.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        assert!(blocking(|| -> Result<()> { panic!("on purpose") }).await.is_err());
    }
}
