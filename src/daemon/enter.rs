//! A terminal, or a command, inside: frames on the person's side, the engine's stream on the other.
//!
//! A process that does not read its input must not keep signals, sizes or the person's going away from being heard, so
//! input waits in a queue. All of it is one stream: once the queue is full, what comes after waits with it.

use std::sync::Arc;

use anyhow::Result;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::App;
use super::serve::Counted;
use crate::api::EnterRequest;
use crate::api::frame::{self, Frame};
use crate::container::{Record, lifecycle};
use crate::engine::{Exec, Piece, Session, SessionInput};
use crate::report::{Fault, Kind};

/// Starts the process inside, then answers with the upgrade; what cannot be started is an ordinary fault.
pub async fn enter(
    app: Arc<App>,
    record: Record,
    wanted: EnterRequest,
    (upgrade, counted): (hyper::upgrade::OnUpgrade, Option<Arc<Counted>>),
) -> Result<Response> {
    let name = record.spec.name.to_string();
    let found = lifecycle::engine_container(&app.host, &record).await?;
    if !found.running {
        return Err(Fault::new(Kind::Failed, format!("{name} does not run"))
            .next(format!("start-container {name}"))
            .into());
    }
    let exec = process(&app, &record, &found.image_id, &wanted).await?;
    let session = app.host.engine.exec(&name, &exec).await?;
    tokio::spawn(async move {
        // The connection counts for as long as it is used.
        let _counted = counted;
        match upgrade.await {
            Ok(stream) => talk(&app, session, TokioIo::new(stream)).await,
            Err(error) => {
                tracing::debug!("enter {name}: {error}");
                signal(&app, &session.id, Signal::HUP).await;
            }
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(frame::PROTOCOL));
    Ok(response)
}

async fn process(app: &App, record: &Record, image: &str, wanted: &EnterRequest) -> Result<Exec> {
    let own = wanted.user.as_deref().is_none_or(|user| user == record.user());
    let user = wanted.user.clone().unwrap_or_else(|| record.user().to_owned());
    let mut env = wanted.env.clone();
    env.extend([format!("USER={user}"), format!("LOGNAME={user}")]);
    let facts = match app.host.engine.image(image).await? {
        Some(image) => Some(app.host.facts(&image).await?),
        None => None,
    };
    let mut command = wanted.command.clone();
    if command.is_empty() {
        let bash = facts.as_ref().is_some_and(|facts| facts.bash);
        command = vec![if bash { "/bin/bash" } else { "/bin/sh" }.to_owned(), "-l".to_owned()];
    }
    if facts.is_some_and(|facts| facts.sh) {
        command = through_shell(
            command,
            wanted.terminal,
            record.spec.ulimits.get("nofile").map(|limit| limit.soft),
        );
    }
    Ok(Exec {
        command,
        env,
        directory: own.then(|| record.people.first().map(|account| account.home())).flatten(),
        user,
        terminal: wanted.terminal.is_some(),
        input: true,
    })
}

/// A shell that gives the terminal its size and then becomes the command. Engines before API 1.42 can only resize a
/// terminal that runs already, when the command may have looked; and what cannot be run ends with a shell's own words
/// and codes (127, 126), which engines put in several ways.
fn through_shell(command: Vec<String>, terminal: Option<(u16, u16)>, nofile: Option<u64>) -> Vec<String> {
    let size = terminal.map(|(columns, rows)| format!("stty cols {columns} rows {rows} 2>/dev/null; "));
    // The engine's runtime sometimes leaves the soft limit of open files at the hard one.
    let files = nofile.map(|soft| format!("ulimit -S -n {soft} 2>/dev/null; "));
    let script = format!("{}{}exec \"$@\"", size.unwrap_or_default(), files.unwrap_or_default());
    ["/bin/sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()].into_iter().chain(command).collect()
}

async fn talk(app: &App, session: Session, stream: impl AsyncRead + AsyncWrite + Send + 'static) {
    let (mut from, mut to) = tokio::io::split(stream);
    let Session { id, mut output, input } = session;
    let say = async {
        loop {
            let frame = match output.next().await {
                Ok(Some(Piece::Output(bytes))) => Frame::Output(bytes),
                Ok(Some(Piece::ErrorOutput(bytes))) => Frame::ErrorOutput(bytes),
                Ok(None) => match app.host.engine.exit_code(&id).await {
                    Ok(code) => Frame::Exit(code),
                    Err(error) => Frame::Failed(Box::new(Fault::of(&error))),
                },
                Err(error) => Frame::Failed(Box::new(Fault::of(&error))),
            };
            let last = matches!(frame, Frame::Exit(_) | Frame::Failed(_));
            if frame::write(&mut to, &frame).await.is_err() {
                return false;
            }
            if last {
                return true;
            }
        }
    };
    let (waiting, queue) = queue();
    let hear = async {
        while let Some(order) = next_order(&mut from, &waiting).await {
            obey(app, &id, order).await;
        }
    };
    tokio::select! {
        ended = say => if !ended { signal(app, &id, Signal::HUP).await },
        // The person went away: what they ran is hung up, as by a lost terminal line.
        () = hear => signal(app, &id, Signal::HUP).await,
        // Never: the other end of the queue is here.
        () = feed(input, queue) => {}
    }
}

/// Input that waits for the process, bytes; what waiting itself costs is counted too.
const MOST_WAITING: usize = 1 << 20;
/// What one frame costs beside its bytes.
const FRAME_COST: usize = 64;

/// Where input waits for the process; an empty piece ends it.
struct Waiting {
    send: mpsc::UnboundedSender<Waits>,
    room: Arc<Semaphore>,
}

/// Input and its place in the queue.
type Waits = (Vec<u8>, OwnedSemaphorePermit);

fn queue() -> (Waiting, mpsc::UnboundedReceiver<Waits>) {
    let (send, receive) = mpsc::unbounded_channel();
    (Waiting { send, room: Arc::new(Semaphore::new(MOST_WAITING)) }, receive)
}

/// Puts input into the queue until something else comes; `None` when the person went away.
async fn next_order(from: &mut (impl AsyncRead + Unpin), waiting: &Waiting) -> Option<Frame> {
    loop {
        match frame::read(from).await {
            Ok(Some(Frame::Input(bytes))) => {
                let cost = u32::try_from(bytes.len() + FRAME_COST).ok()?;
                let place = waiting.room.clone().acquire_many_owned(cost).await.ok()?;
                waiting.send.send((bytes, place)).ok()?;
            }
            Ok(Some(order @ (Frame::Resize(..) | Frame::Signal(_)))) => return Some(order),
            Ok(Some(_)) | Ok(None) | Err(_) => return None,
        }
    }
}

async fn obey(app: &App, id: &str, order: Frame) {
    match order {
        Frame::Resize(columns, rows) => {
            let _ = app.host.engine.resize(id, columns, rows).await;
        }
        Frame::Signal(number) => {
            if let Some(number) = Signal::from_named_raw(number.into()) {
                signal(app, id, number).await;
            }
        }
        _ => {}
    }
}

/// Hands waiting input to the process, as fast as that reads it.
async fn feed(mut input: SessionInput, mut queue: mpsc::UnboundedReceiver<Waits>) {
    while let Some((bytes, _place)) = queue.recv().await {
        // A process that no longer reads still has output to say.
        let _ = match bytes.is_empty() {
            true => input.end().await,
            false => input.write(&bytes).await,
        };
    }
}

/// Sends `number` to a process that runs inside; one that has ended is left alone.
async fn signal(app: &App, id: &str, number: Signal) {
    let Ok(Some(process)) = app.host.engine.exec_process(id).await else { return };
    if !process.signal(number) {
        tracing::debug!("a process inside has ended before the signal");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a client sent, all of which is there at once.
    async fn sent(frames: &[Frame]) -> Vec<u8> {
        let mut wire = Vec::new();
        for frame in frames {
            frame::write(&mut wire, frame).await.unwrap();
        }
        wire
    }

    #[tokio::test]
    async fn orders_pass_by_input_that_nobody_reads() {
        let input = Frame::Input(vec![b'x'; frame::LARGEST]);
        let end = Frame::Input(vec![]);
        let wire =
            sent(&[input.clone(), input.clone(), Frame::Resize(80, 24), end, Frame::Signal(2), input]).await;
        let (waiting, mut queue) = queue();
        let mut from = wire.as_slice();
        assert_eq!(next_order(&mut from, &waiting).await, Some(Frame::Resize(80, 24)));
        assert_eq!(next_order(&mut from, &waiting).await, Some(Frame::Signal(2)));
        assert_eq!(next_order(&mut from, &waiting).await, None);
        let mut lengths = Vec::new();
        while let Ok((bytes, _)) = queue.try_recv() {
            lengths.push(bytes.len());
        }
        assert_eq!(lengths, [frame::LARGEST, frame::LARGEST, 0, frame::LARGEST]);
    }

    #[tokio::test]
    async fn the_queue_holds_only_so_much() {
        for (bytes, count) in [(frame::LARGEST, 20), (0, 20_000)] {
            let mut frames = vec![Frame::Input(vec![b'x'; bytes]); count];
            frames.push(Frame::Signal(2));
            let wire = sent(&frames).await;
            let (waiting, mut queue) = queue();
            let mut from = wire.as_slice();
            let mut order = std::pin::pin!(next_order(&mut from, &waiting));
            while waiting.room.available_permits() >= bytes + FRAME_COST {
                assert!(futures_util::poll!(&mut order).is_pending());
                // tokio lets a task do only so much at one go.
                tokio::task::yield_now().await;
            }
            assert!(queue.len() < count);
            let take = async {
                for _ in 0..count {
                    assert_eq!(queue.recv().await.unwrap().0.len(), bytes);
                }
            };
            let (order, ()) = tokio::join!(order, take);
            assert_eq!(order, Some(Frame::Signal(2)));
        }
    }
}
