//! The person's terminal: its size, and its settings restored whatever happens.

use std::io::{IsTerminal as _, stderr, stdin, stdout};

use anyhow::{Context as _, Result};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The settings of the terminal on stdin, which come back when this is dropped; a panic drops it too.
#[must_use]
pub struct Kept(Termios);

impl Kept {
    pub fn now() -> Result<Kept> {
        Ok(Kept(tcgetattr(stdin()).context("read the terminal's settings")?))
    }

    /// From here on every key goes through as it is, Ctrl-C and Ctrl-Z too.
    pub fn raw(&self) -> Result<()> {
        let mut raw = self.0.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw).context("change the terminal's settings")
    }
}

impl Kept {
    /// From here on what is typed is not shown.
    pub fn hide(&self) -> Result<()> {
        let mut hidden = self.0.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &hidden).context("change the terminal's settings")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.0);
        // A prompt that was interrupted has hidden it.
        if stderr().is_terminal() {
            let _ = console::Term::stderr().show_cursor();
        }
    }
}

/// Columns and rows, when both input and output are a terminal.
pub fn size() -> Option<(u16, u16)> {
    if !stdin().is_terminal() || !stdout().is_terminal() {
        return None;
    }
    let size = tcgetwinsize(stdout()).ok()?;
    // A terminal that does not know its size (a serial line) says 0.
    let or = |value, default| if value == 0 { default } else { value };
    Some((or(size.ws_col, 80), or(size.ws_row, 24)))
}
