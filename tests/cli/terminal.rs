//! A real pseudo-terminal.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::process::Stdio;

use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use tokio::process::{Child, Command};

/// Both ends of a pseudo-terminal of 100 columns and 30 rows.
pub fn terminal() -> (OwnedFd, OwnedFd) {
    let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
    let pair = nix::pty::openpty(None, None).unwrap();
    tcsetwinsize(&pair.master, size).unwrap();
    (pair.master, pair.slave)
}

pub fn cooked(terminal: &OwnedFd) -> bool {
    tcgetattr(terminal)
        .unwrap()
        .local_modes
        .contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
}

/// Starts a command on this terminal.
pub fn on(slave: &OwnedFd, mut command: Command) -> Child {
    let end = || Stdio::from(slave.try_clone().unwrap());
    command.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap()
}

/// Reads the screen until it shows this; returns all of it.
pub async fn shown(master: &OwnedFd, text: &'static str) -> String {
    let mut screen = std::fs::File::from(master.try_clone().unwrap());
    let read = move || {
        let mut seen = Vec::new();
        while !String::from_utf8_lossy(&seen).contains(text) {
            let mut byte = [0];
            screen.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        String::from_utf8_lossy(&seen).into_owned()
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}
