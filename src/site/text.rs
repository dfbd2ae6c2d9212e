//! TOML text that knows which file it came from, and says where in it a mistake is.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;

use super::definition::Placed;
use super::nearest::hint;
use crate::report::{Fault, Kind};

/// The text of one file.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The file, as a person would name it.
    pub origin: String,
    pub text: String,
}

impl Source {
    /// Reads the text as `T`; unknown keys and wrong types are faults with file, line and column.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, Fault> {
        toml::from_str(&self.text).map_err(|error| self.fault(error.span(), &explain(error.message())))
    }

    /// A [`Kind::Usage`] fault at a place in the file.
    pub fn fault(&self, span: Option<Range<usize>>, message: &str) -> Fault {
        Fault::new(Kind::Usage, format!("{}: {message}", self.place(span)))
            .next("correct it there, then run the same command again")
    }

    /// A value with its place.
    pub fn placed(&self, value: &Spanned<String>) -> Placed {
        Placed { text: value.get_ref().clone(), place: self.place(Some(value.span())) }
    }

    /// `file:line:column`, counted from 1, columns in characters.
    pub fn place(&self, span: Option<Range<usize>>) -> String {
        let Some(before) = span.and_then(|span| self.text.get(..span.start)) else {
            return self.origin.clone();
        };
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        format!("{}:{line}:{column}", self.origin)
    }
}

/// serde's words in ours. It quotes names in backticks: what was met first, then what may stand there.
fn explain(message: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    match names.split_first() {
        Some((met, valid)) if message.starts_with("unknown field") => {
            let hint = hint(met, valid.iter().copied());
            match hint.is_empty() {
                true => format!("unknown key {met:?}; there are: {}", valid.join(", ")),
                false => format!("unknown key {met:?}{hint}"),
            }
        }
        Some((missing, [])) if message.starts_with("missing field") => {
            format!("the key {missing:?} is missing")
        }
        _ => message.trim_end().replace('\n', ", "),
    }
}
