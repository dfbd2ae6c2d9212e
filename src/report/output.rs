//! Writing to stdout and stderr: foreign text made harmless, a reader that went away taken calmly.

use std::borrow::Cow;
use std::fmt;
use std::io::{ErrorKind, Write as _};

use anyhow::{Context as _, Result};

/// Ends the command with this exit code and without a word: the code of a child, or a reader that has had enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Silent(pub u8);

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

impl std::error::Error for Silent {}

/// Writes data to stdout and flushes it. A reader that closed the pipe (`| head`) is [`Silent`] with code 0.
pub fn stdout(bytes: &[u8]) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Silent(0).into()),
        other => other.context("write to stdout"),
    }
}

/// Writes a line for the person to stderr; nobody can be told when that fails.
pub fn stderr(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// Writes a question to stderr; the cursor stays behind it.
pub fn ask(question: &str) -> std::io::Result<()> {
    let mut stderr = std::io::stderr().lock();
    write!(stderr, "{question}")?;
    stderr.flush()
}

/// Whether a terminal would act on this character instead of showing it: control characters (escape sequences
/// begin with one), and those that reorder text or break lines (Unicode bidirectional controls, UAX #9).
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line of text from a container, an engine or a file, so that it cannot move the cursor, set a title or hide
/// anything: what a terminal would act on is spelt out (`\u{1b}`). Tabs stay.
pub fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(|c| c != '\t' && acts(c)) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\t' => safe.push(c),
            c if acts(c) => safe.extend(c.escape_default()),
            c => safe.push(c),
        }
    }
    Cow::Owned(safe)
}

/// Cuts a stream of bytes into lines made harmless by [`escape`]. A character split over two chunks stays whole.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
}

/// A line longer than this many bytes is cut in pieces, so that memory stays bounded.
const LONGEST_LINE: usize = 64 << 10;

impl Lines {
    /// Takes a chunk, returns the lines that are complete, each with its `\n`.
    pub fn take(&mut self, chunk: &[u8]) -> String {
        let mut lines = String::new();
        for piece in chunk.split_inclusive(|b| *b == b'\n') {
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.rest.len() > LONGEST_LINE {
                lines.push_str(&self.finish());
            }
        }
        lines
    }

    /// What is left when the stream ended.
    pub fn finish(&mut self) -> String {
        if self.rest.is_empty() {
            return String::new();
        }
        let line = String::from_utf8_lossy(&self.rest);
        let line = line.strip_suffix('\n').unwrap_or(&line);
        let line = escape(line.strip_suffix('\r').unwrap_or(line)).into_owned() + "\n";
        self.rest.clear();
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_acts_on_gets_through() {
        assert_eq!(escape("a\tb é ✓"), "a\tb é ✓");
        assert_eq!(escape("\x1b]0;owned\x07"), "\\u{1b}]0;owned\\u{7}");
        assert_eq!(escape("a\r\nb\u{9b}31m\u{202e}c"), "a\\r\\nb\\u{9b}31m\\u{202e}c");
    }

    #[test]
    fn lines_survive_any_cut() {
        let text = "one\r\ntwo é\n\x1b[2Jthree".as_bytes();
        for cut in 0..text.len() {
            let mut lines = Lines::default();
            let mut all = lines.take(&text[..cut]);
            all += &lines.take(&text[cut..]);
            all += &lines.finish();
            assert_eq!(all, "one\ntwo é\n\\u{1b}[2Jthree\n");
        }
    }

    proptest::proptest! {
        #[test]
        fn escaped_text_has_no_controls(text in proptest::prelude::any::<String>()) {
            proptest::prop_assert!(!escape(&text).contains(|c: char| c != '\t' && c.is_control()));
        }
    }
}
