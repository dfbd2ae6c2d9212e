//! `enter-container` over a real upgraded connection, with pipes and with a real pseudo-terminal.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::post;
use http_body_util::BodyExt as _;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use moorage::api::EnterRequest;
use moorage::api::frame::{self, Frame, PROTOCOL};
use moorage::report::{Fault, Kind};
use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::terminal::{cooked, on, shown, terminal};
use crate::world::{MOORAGE, Said, World};

/// The daemon's side of one `enter`.
type Inside = (EnterRequest, TokioIo<Upgraded>);

/// A world whose daemon hands over each connection that was entered.
fn world() -> (World, mpsc::Receiver<Inside>) {
    let (sender, receiver) = mpsc::channel(1);
    let enter = move |mut request: Request| async move {
        assert_eq!(request.headers()[UPGRADE], PROTOCOL);
        let upgrade = hyper::upgrade::on(&mut request);
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let asked: EnterRequest = serde_json::from_slice(&body).unwrap();
        tokio::spawn(async move { sender.send((asked, TokioIo::new(upgrade.await.unwrap()))).await });
        let headers = [
            (CONNECTION, HeaderValue::from_static("upgrade")),
            (UPGRADE, HeaderValue::from_static(PROTOCOL)),
        ];
        (StatusCode::SWITCHING_PROTOCOLS, headers).into_response()
    };
    (World::new().serve(Router::new().route("/v1/containers/x/enter", post(enter))), receiver)
}

async fn say(connection: &mut TokioIo<Upgraded>, frame: Frame) {
    frame::write(connection, &frame).await.unwrap();
}

async fn hear(connection: &mut TokioIo<Upgraded>) -> Frame {
    frame::read(connection).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_command_with_pipes() {
    let (world, mut inside) = world();
    let mut command = world.program(MOORAGE, &["enter-container", "x", "--user", "root", "--", "cat", "-n"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let (asked, mut connection) = inside.recv().await.unwrap();
    let expected = EnterRequest {
        command: vec!["cat".into(), "-n".into()],
        user: Some("root".into()),
        terminal: None,
        env: vec![],
    };
    assert_eq!(asked, expected);

    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello").await.unwrap();
    assert_eq!(hear(&mut connection).await, Frame::Input(b"hello".to_vec()));
    drop(stdin);
    assert_eq!(hear(&mut connection).await, Frame::Input(vec![]));
    for (sent, number) in [(Signal::INT, 2), (Signal::TERM, 15), (Signal::HUP, 1), (Signal::QUIT, 3)] {
        kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), sent).unwrap();
        assert_eq!(hear(&mut connection).await, Frame::Signal(number));
    }
    say(&mut connection, Frame::Output(b"out\x1b[0m".to_vec())).await;
    say(&mut connection, Frame::ErrorOutput(b"err".to_vec())).await;
    say(&mut connection, Frame::Exit(42)).await;
    let said: Said = child.wait_with_output().await.unwrap().into();
    assert_eq!((said.code, said.out.as_str(), said.err.as_str()), (Some(42), "out\x1b[0m", "err"));
}

#[tokio::test]
async fn how_it_may_end() {
    for (last, code, error) in [
        (Some(Frame::Exit(0)), 0, ""),
        (Some(Frame::Exit(-1)), 255, ""),
        (Some(Frame::Exit(256)), 255, ""),
        (
            Some(Frame::Failed(Box::new(Fault::new(Kind::Missing, "no such shell")))),
            3,
            "error: no such shell\n",
        ),
        (None, 1, "error: the daemon went away"),
    ] {
        let (world, mut inside) = world();
        let child = world.program(MOORAGE, &["enter-container", "x"]).spawn().unwrap();
        let (_, mut connection) = inside.recv().await.unwrap();
        if let Some(last) = last {
            say(&mut connection, last).await;
        }
        drop(connection);
        let said: Said = child.wait_with_output().await.unwrap().into();
        assert_eq!(said.code, Some(code), "{said:?}");
        assert!(said.err.starts_with(error), "{said:?}");
    }
}

#[tokio::test]
async fn a_daemon_that_had_not_read_everything_went_away_as_well() {
    let (world, mut inside) = world();
    let mut child = world.program(MOORAGE, &["enter-container", "x"]).stdin(Stdio::piped()).spawn().unwrap();
    let (_, mut connection) = inside.recv().await.unwrap();
    child.stdin.as_mut().unwrap().write_all(&[b'x'; 4096]).await.unwrap();
    // What follows the length is written at once, so it is there.
    connection.read_exact(&mut [0; 6]).await.unwrap();
    drop(connection);
    let said: Said = child.wait_with_output().await.unwrap().into();
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.starts_with("error: the daemon went away"), "{said:?}");
}

/// `enter-container x` on this terminal, which becomes its controlling one so that it is told of a new size.
fn on_terminal(world: &World, slave: &OwnedFd) -> tokio::process::Child {
    on(slave, world.program("setsid", &["--ctty", MOORAGE, "enter-container", "x"]))
}

#[tokio::test]
async fn a_terminal_is_raw_resized_and_restored() {
    let (world, mut inside) = world();
    let (master, slave) = terminal();
    let mut child = on_terminal(&world, &slave);
    let (asked, mut connection) = inside.recv().await.unwrap();
    assert_eq!((asked.terminal, asked.env), (Some((100, 30)), vec!["TERM=xterm".to_owned()]));

    // The first output comes after raw mode began; until the person sees it they do not type.
    say(&mut connection, Frame::Output(b"$ \x1b[6n".to_vec())).await;
    shown(&master, "$ \x1b[6n").await;
    assert!(!cooked(&slave));
    rustix::io::write(&master, b"\x03\x1a").unwrap();
    assert_eq!(hear(&mut connection).await, Frame::Input(b"\x03\x1a".to_vec()));
    let size = Winsize { ws_row: 50, ws_col: 132, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&master, size).unwrap();
    assert_eq!(hear(&mut connection).await, Frame::Resize(132, 50));

    say(&mut connection, Frame::Exit(7)).await;
    assert_eq!(child.wait().await.unwrap().code(), Some(7));
    assert!(cooked(&slave));
}

#[tokio::test]
async fn a_signal_on_a_terminal_ends_it_and_restores_the_terminal() {
    let (world, mut inside) = world();
    let (master, slave) = terminal();
    let mut child = on_terminal(&world, &slave);
    let (_, mut connection) = inside.recv().await.unwrap();
    say(&mut connection, Frame::Output(b"ready\n".to_vec())).await;
    shown(&master, "ready\n").await;
    assert!(!cooked(&slave));

    // setsid(1) became the command: it does not fork unless it leads a process group.
    kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), Signal::TERM).unwrap();
    assert_eq!(frame::read(&mut connection).await.unwrap(), None, "the connection is closed");
    assert_eq!(child.wait().await.unwrap().code(), Some(128 + 15));
    assert!(cooked(&slave));
}
