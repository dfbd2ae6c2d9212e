//! The person's terminal while they are inside a container: raw, and restored whatever happens.

use std::io::{IsTerminal as _, stdin, stdout};

use anyhow::{Context as _, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Raw mode of the terminal on stdin, ended when this is dropped (a panic drops it too).
#[must_use]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Every key goes through as it is, Ctrl-C and Ctrl-Z too.
    pub fn begin() -> Result<Raw> {
        let before = tcgetattr(stdin()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Drain, &raw).context("change the terminal's settings")?;
        Ok(Raw { before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &self.before);
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
