//! Events as a person watches them: bars on a terminal, lines elsewhere, JSON lines for programs. All on stderr.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use console::Style as Colour;
use humansize::{BINARY, format_size};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::stderr;
use super::{Event, Reporter, Unit, escape};

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Bars,
    Plain,
    Json,
    /// Warnings only.
    None,
}

/// Shows events in this style. Bars are gone when the last clone of the reporter is.
pub fn reporter(style: Style) -> Reporter {
    match style {
        Style::Bars => {
            let bars = Bars::default();
            Reporter::new(move |event| bars.show(event))
        }
        Style::Plain => {
            let plain = Plain::default();
            Reporter::new(move |event| plain.line(&event).iter().for_each(|line| stderr(line)))
        }
        Style::Json => Reporter::new(|event| {
            if let Ok(json) = serde_json::to_string(&event) {
                stderr(&json);
            }
        }),
        Style::None => Reporter::new(|event| {
            if let Event::Warning { text } = event {
                stderr(&warning(&text));
            }
        }),
    }
}

fn warning(text: &str) -> String {
    format!("{} {}", Colour::new().yellow().bold().for_stderr().apply_to("warning:"), escape(text))
}

/// `step: text`.
fn said(step: &str, text: &str) -> String {
    let step = format!("{}:", escape(step));
    format!("{} {}", Colour::new().cyan().for_stderr().apply_to(step), escape(text))
}

/// `step | line of a child`.
fn child(step: &str, line: &str) -> String {
    format!("{} | {}", escape(step), escape(line))
}

fn amount(count: u64, unit: Unit) -> String {
    match unit {
        Unit::Bytes => format_size(count, BINARY),
        Unit::Files => format!("{count} files"),
        Unit::Items => count.to_string(),
    }
}

/// One line for each begin and end, and one for each quarter of what takes long.
#[derive(Default)]
struct Plain {
    quarters: Mutex<BTreeMap<String, u64>>,
}

impl Plain {
    fn line(&self, event: &Event) -> Option<String> {
        match event {
            Event::Begin { step, text } | Event::End { step, text } => {
                self.quarters.lock().unwrap_or_else(PoisonError::into_inner).remove(step);
                Some(said(step, text))
            }
            Event::Progress { step, done, total: Some(total), unit } if *total > 0 => {
                let quarter = (u128::from(*done) * 4 / u128::from(*total)).min(4) as u64;
                let mut quarters = self.quarters.lock().unwrap_or_else(PoisonError::into_inner);
                let before = quarters.insert(step.clone(), quarter).unwrap_or(0);
                let text = format!("{} of {}", amount(*done, *unit), amount(*total, *unit));
                (before < quarter && quarter < 4).then(|| said(step, &text))
            }
            Event::Output { step, line } => Some(child(step, line)),
            Event::Warning { text } => Some(warning(text)),
            Event::Progress { .. } | Event::Staging { .. } | Event::Done { .. } | Event::Failed { .. } => {
                None
            }
        }
    }
}

/// One bar a step: with its total where that is known, else a spinner.
struct Bars {
    all: MultiProgress,
    steps: Mutex<BTreeMap<String, ProgressBar>>,
}

impl Default for Bars {
    fn default() -> Self {
        Bars {
            all: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()),
            steps: Mutex::new(BTreeMap::new()),
        }
    }
}

const SPINNER: &str = "{prefix:>8} {spinner} {wide_msg}";
const ITEMS: &str = "{prefix:>8} {bar:24} {human_pos}/{human_len} {wide_msg}";
const BYTES: &str =
    "{prefix:>8} {bar:24} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {wide_msg}";
const BYTES_SO_FAR: &str = "{prefix:>8} {spinner} {binary_bytes} {binary_bytes_per_sec} {wide_msg}";

impl Bars {
    fn show(&self, event: Event) {
        match event {
            Event::Begin { step, text } => {
                self.with(&step, |bar| bar.set_message(escape(&text).into_owned()))
            }
            Event::Progress { step, done, total, unit } => self.with(&step, |bar| {
                let template = match (total, unit) {
                    (Some(_), Unit::Bytes) => BYTES,
                    (Some(_), _) => ITEMS,
                    (None, Unit::Bytes) => BYTES_SO_FAR,
                    (None, _) => SPINNER,
                };
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_style(style(template));
                bar.set_position(done);
            }),
            Event::End { step, text } => {
                if let Some(bar) = self.steps.lock().unwrap_or_else(PoisonError::into_inner).remove(&step) {
                    bar.finish_and_clear();
                    self.all.remove(&bar);
                }
                self.above(&said(&step, &text));
            }
            Event::Output { step, line } => self.above(&child(&step, &line)),
            Event::Warning { text } => self.above(&warning(&text)),
            Event::Done { .. } | Event::Failed { .. } => self.clear(),
            Event::Staging { .. } => {}
        }
    }

    fn with(&self, step: &str, change: impl FnOnce(&ProgressBar)) {
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        change(steps.entry(step.to_owned()).or_insert_with(|| {
            let bar = self.all.add(ProgressBar::no_length());
            bar.set_style(style(SPINNER));
            bar.set_prefix(escape(step).into_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        }));
    }

    fn above(&self, line: &str) {
        // indicatif says nothing at all where it cannot draw.
        match self.all.is_hidden() {
            true => stderr(line),
            false => drop(self.all.println(line)),
        }
    }

    fn clear(&self) {
        for bar in std::mem::take(&mut *self.steps.lock().unwrap_or_else(PoisonError::into_inner)).values() {
            bar.finish_and_clear();
        }
        let _ = self.all.clear();
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.progress_chars("=> ").tick_chars("|/-\\ ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_valid() {
        for template in [SPINNER, ITEMS, BYTES, BYTES_SO_FAR] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }

    #[test]
    fn plain_lines_say_begin_quarters_and_end() {
        let plain = Plain::default();
        let progress =
            |done| Event::Progress { step: "image".into(), done, total: Some(400 << 20), unit: Unit::Bytes };
        let events = [
            Event::Begin { step: "image".into(), text: "pull moorage/demo".into() },
            progress(1 << 20),
            progress(101 << 20),
            progress(102 << 20),
            progress(399 << 20),
            progress(400 << 20),
            Event::End { step: "image".into(), text: "pulled moorage/demo".into() },
            Event::Output { step: "setup".into(), line: "\x1b[31mred".into() },
            Event::Warning { text: "old".into() },
        ];
        let lines: Vec<_> = events.iter().filter_map(|event| plain.line(event)).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        image: pull moorage/demo
        image: 101 MiB of 400 MiB
        image: 399 MiB of 400 MiB
        image: pulled moorage/demo
        setup | \u{1b}[31mred
        warning: old
        ");
    }
}
