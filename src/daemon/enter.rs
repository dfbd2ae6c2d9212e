//! A terminal, or a command, inside: frames on the person's side, the engine's stream on the other.

use std::sync::Arc;

use anyhow::Result;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use hyper_util::rt::TokioIo;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::{AsyncRead, AsyncWrite};

use super::App;
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
    upgrade: hyper::upgrade::OnUpgrade,
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
        command = through_shell(command, wanted.terminal);
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
fn through_shell(command: Vec<String>, terminal: Option<(u16, u16)>) -> Vec<String> {
    let size = terminal.map(|(columns, rows)| format!("stty cols {columns} rows {rows} 2>/dev/null; "));
    let script = format!("{}exec \"$@\"", size.unwrap_or_default());
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
    let hear = hear(app, &id, input, &mut from);
    tokio::select! {
        ended = say => if !ended { signal(app, &id, Signal::HUP).await },
        // The person went away: what they ran is hung up, as by a lost terminal line.
        () = hear => signal(app, &id, Signal::HUP).await,
    }
}

/// Hands input, sizes and signals on until the person goes away.
async fn hear(app: &App, id: &str, mut input: SessionInput, from: &mut (impl AsyncRead + Unpin)) {
    loop {
        match frame::read(from).await {
            Ok(Some(Frame::Input(bytes))) if bytes.is_empty() => {
                let _ = input.end().await;
            }
            // A process that no longer reads still has output to say.
            Ok(Some(Frame::Input(bytes))) => {
                let _ = input.write(&bytes).await;
            }
            Ok(Some(Frame::Resize(columns, rows))) => {
                let _ = app.host.engine.resize(id, columns, rows).await;
            }
            Ok(Some(Frame::Signal(number))) => {
                if let Some(number) = Signal::from_named_raw(number.into()) {
                    signal(app, id, number).await;
                }
            }
            Ok(Some(_)) | Ok(None) | Err(_) => return,
        }
    }
}

/// Sends `number` to a process that runs inside; one that has ended is left alone.
async fn signal(app: &App, id: &str, number: Signal) {
    let Ok(Some(pid)) = app.host.engine.exec_pid(id).await else { return };
    let send = || -> Option<()> {
        let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        pidfd_send_signal(&process, number).ok()
    };
    if send().is_none() {
        tracing::debug!("process {pid} inside has ended before the signal");
    }
}
