//! A fault as a person reads it, and as a program does.

use console::Style;
use serde_json::{Value, json};

use super::{Fault, escape};

impl Fault {
    /// The four things an error is, for stderr:
    ///
    /// ```text
    /// error: siem-9-2-ann cannot be made
    ///   why: the image registry.corp/siem-el8 is not there
    ///   remains: …
    ///   next: …
    /// ```
    pub fn text(&self) -> String {
        let name = |style: Style, word: &str| style.for_stderr().apply_to(word).to_string();
        let mut text = format!("{} ", name(Style::new().red().bold(), "error:"));
        text.push_str(&lines(&self.what, "       "));
        let parts = [
            ("why:", self.why.as_slice(), Style::new().bold()),
            ("remains:", self.remains.as_slice(), Style::new().bold()),
            ("next:", self.next.as_slice(), Style::new().green().bold()),
        ];
        for (word, entries, style) in parts {
            for entry in entries {
                let indent = " ".repeat(word.len() + 3);
                text.push_str(&format!("\n  {} {}", name(style.clone(), word), lines(entry, &indent)));
            }
        }
        text
    }

    /// `{"error": {"code", "kind", "what", "why", "remains", "next"}}`, every key always there; `code` is the exit code.
    pub fn json(&self) -> Value {
        json!({ "error": {
            "code": self.kind.exit_code(),
            "kind": self.kind,
            "what": self.what,
            "why": self.why,
            "remains": self.remains,
            "next": self.next,
        }})
    }
}

/// Text of several lines, the later ones below the first.
fn lines(text: &str, indent: &str) -> String {
    text.lines().map(|line| escape(line.trim_end())).collect::<Vec<_>>().join(&format!("\n{indent}"))
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use super::*;

    #[test]
    fn the_four_things_in_order_and_harmless() {
        let fault = Fault::new(Kind::Failed, "setup failed")
            .why("step 1 ended with 2:\nmake: \x1b[31mno rule")
            .remains("the container siem-9-2-ann")
            .next("moorage make-dev-container siem 9.2");
        insta::assert_snapshot!(fault.text(), @r"
        error: setup failed
          why: step 1 ended with 2:
               make: \u{1b}[31mno rule
          remains: the container siem-9-2-ann
          next: moorage make-dev-container siem 9.2
        ");
    }

    #[test]
    fn as_data_every_key_is_there() {
        insta::assert_snapshot!(Fault::new(Kind::Missing, "no daemon").json(),
            @r#"{"error":{"code":3,"kind":"missing","next":null,"remains":[],"what":"no daemon","why":[]}}"#);
    }
}
