//! Records that many write at once: what comes together is on disk together, with two fsyncs instead of two for each.
//!
//! One thread writes. A record that comes alone is written as ever. Of several it writes one file that has them all,
//! answers, and then writes each to its own file while nothing else is to be done. Whoever is killed in between leaves
//! that one file, from which the next process goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use anyhow::{Context as _, Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;

use super::{Records, remove, replace};

/// What is on disk for all of a batch and not for each. No record's key begins with a dot.
const TOGETHER: &str = ".together";

/// A directory of records as [`Records`] has them, for writers who come in crowds.
#[derive(Debug)]
pub struct Batched<T> {
    queue: Sender<Wanted<T>>,
}

/// What a file is to become; nothing: it goes.
#[derive(Debug)]
struct Wanted<T> {
    key: String,
    record: Option<T>,
    done: oneshot::Sender<Result<()>>,
}

/// What a directory has, by key.
type Present<T> = Vec<(String, T)>;

/// What is on disk together and still has to be written one by one.
type Rest<T> = BTreeMap<String, Option<T>>;

impl<T: Serialize + DeserializeOwned + Send + 'static> Batched<T> {
    /// Takes the directory over, with what is there now.
    pub fn open(records: Records<T>) -> Result<(Batched<T>, Present<T>)> {
        // Another owner of this very process may have the last of its files to write.
        let lock = held(&records)?;
        let mut rest: Rest<T> = together(&records)?;
        while let Some((key, record)) = rest.pop_first() {
            apply(&records, &key, record.as_ref())?;
        }
        remove(&records.directory().join(TOGETHER))?;
        let all = records.all()?;
        drop(lock);
        let (queue, wanted) = channel();
        std::thread::Builder::new()
            .name("records".into())
            .spawn(move || write(&records, &wanted))
            .context("start a thread")?;
        Ok((Batched { queue }, all))
    }

    /// On disk when this returns.
    pub async fn put(&self, key: &str, record: T) -> Result<()> {
        self.want(key, Some(record)).await
    }

    /// Gone from the disk when this returns; one that is not there is no error.
    pub async fn remove(&self, key: &str) -> Result<()> {
        self.want(key, None).await
    }

    async fn want(&self, key: &str, record: Option<T>) -> Result<()> {
        let (done, answer) = oneshot::channel();
        let ended = "the thread that writes records has ended";
        self.queue.send(Wanted { key: key.to_owned(), record, done }).ok().context(ended)?;
        answer.await.context(ended)?
    }
}

/// Nobody else reads or writes the directory while this lives.
fn held<T: Serialize + DeserializeOwned>(records: &Records<T>) -> Result<File> {
    let path = records.directory();
    let doing = || format!("lock {}", path.display());
    let directory = File::open(path).with_context(doing)?;
    directory.lock().with_context(doing)?;
    Ok(directory)
}

fn together<T: Serialize + DeserializeOwned>(records: &Records<T>) -> Result<Rest<T>> {
    let path = records.directory().join(TOGETHER);
    match std::fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .with_context(|| format!("{} is damaged; move it away to go on without it", path.display())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Rest::new()),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}

fn apply<T: Serialize + DeserializeOwned>(records: &Records<T>, key: &str, record: Option<&T>) -> Result<()> {
    match record {
        Some(record) => records.put(key, record),
        None => records.remove(key),
    }
}

/// Writes until nobody can want anything any more.
fn write<T: Serialize + DeserializeOwned>(records: &Records<T>, queue: &Receiver<Wanted<T>>) {
    let mut rest = Rest::new();
    while let Ok(first) = queue.recv() {
        let crowd = gather(queue, vec![first]);
        // What could not be written is in the file of all, which must not be older than a record's own.
        if let ([alone], true) = (crowd.as_slice(), rest.is_empty()) {
            let written = apply(records, &alone.key, alone.record.as_ref());
            answer(crowd.into_iter().map(|wanted| wanted.done), &written);
            continue;
        }
        // Until the last of its files is written nobody may take the directory over.
        let written = match held(records) {
            Ok(_lock) => crowded(records, queue, &mut rest, crowd),
            Err(error) => {
                answer(crowd.into_iter().map(|wanted| wanted.done), &Err(anyhow!("{error:#}")));
                Err(error)
            }
        };
        if let Err(error) = written {
            tracing::error!("{}: {error:#}", records.directory().display());
        }
    }
}

/// All that waits by now.
fn gather<T>(queue: &Receiver<Wanted<T>>, mut crowd: Vec<Wanted<T>>) -> Vec<Wanted<T>> {
    loop {
        match queue.try_recv() {
            Ok(wanted) => crowd.push(wanted),
            Err(TryRecvError::Empty | TryRecvError::Disconnected) => return crowd,
        }
    }
}

/// Writes a crowd, and those that come meanwhile, first together and then one by one.
fn crowded<T: Serialize + DeserializeOwned>(
    records: &Records<T>,
    queue: &Receiver<Wanted<T>>,
    rest: &mut Rest<T>,
    mut crowd: Vec<Wanted<T>>,
) -> Result<()> {
    let path = records.directory().join(TOGETHER);
    loop {
        if !crowd.is_empty() {
            let mut waiting = Vec::new();
            for Wanted { key, record, done } in crowd {
                rest.insert(key, record);
                waiting.push(done);
            }
            let bytes = serde_json::to_vec(&rest).context("put records into words");
            answer(waiting, &bytes.and_then(|bytes| replace(&path, &bytes)));
        }
        let Some((key, record)) = rest.pop_first() else { break };
        if let Err(error) = apply(records, &key, record.as_ref()) {
            rest.insert(key, record);
            return Err(error);
        }
        crowd = gather(queue, Vec::new());
    }
    remove(&path)
}

fn answer(waiting: impl IntoIterator<Item = oneshot::Sender<Result<()>>>, written: &Result<()>) {
    for done in waiting {
        let _ = done.send(again(written));
    }
}

/// The same outcome for one more.
fn again(written: &Result<()>) -> Result<()> {
    written.as_ref().copied().map_err(|error| anyhow!("{error:#}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(directory: &std::path::Path) -> (Batched<u32>, Vec<(String, u32)>) {
        Batched::open(Records::open(directory).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn what_many_write_at_once_is_there_for_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let (records, before) = open(directory.path());
        assert!(before.is_empty());
        let keys: Vec<String> = (0..50).map(|number| format!("k{number:02}")).collect();
        for round in 0..3 {
            let puts = keys.iter().map(|key| records.put(key, round));
            for put in futures_util::future::join_all(puts).await {
                put.unwrap();
            }
        }
        let (gone, kept) = keys.split_at(20);
        let removals = gone.iter().map(|key| records.remove(key));
        assert!(futures_util::future::join_all(removals).await.into_iter().all(|removed| removed.is_ok()));
        drop(records);
        let (_records, after) = open(directory.path());
        assert_eq!(after, kept.iter().map(|key| (key.clone(), 2)).collect::<Vec<_>>());
        assert!(!directory.path().join(TOGETHER).exists());
    }

    #[tokio::test]
    async fn who_is_killed_between_the_two_is_gone_on_for() {
        let directory = tempfile::tempdir().unwrap();
        let plain: Records<u32> = Records::open(directory.path()).unwrap();
        plain.put("changed", &1).unwrap();
        plain.put("gone", &1).unwrap();
        plain.put("other", &1).unwrap();
        let together: Rest<u32> =
            [("changed".to_owned(), Some(2)), ("gone".to_owned(), None), ("new".to_owned(), Some(3))].into();
        replace(&directory.path().join(TOGETHER), &serde_json::to_vec(&together).unwrap()).unwrap();
        let (_records, all) = open(directory.path());
        assert_eq!(all, [("changed".into(), 2), ("new".into(), 3), ("other".into(), 1)]);
        assert_eq!(plain.all().unwrap(), all);
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_an_error_for_all_who_wait() {
        let directory = tempfile::tempdir().unwrap();
        let (records, _) = open(directory.path());
        std::fs::remove_dir_all(directory.path()).unwrap();
        let puts = futures_util::future::join_all(["a", "b", "c"].map(|key| records.put(key, 1))).await;
        assert!(puts.iter().all(Result::is_err), "{puts:?}");
    }
}
