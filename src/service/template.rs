//! Filling in the text that moorage writes for other programs.

use anyhow::{Context as _, Result};
use minijinja::{Environment, UndefinedBehavior, syntax::SyntaxConfig};

/// Fills `template` in. Nothing is escaped by itself: the filter `quoted` writes a string by JSON's rules, which TOML's basic
/// strings, YAML's double-quoted ones and systemd's share. A name that has no value is an error.
pub fn render(template: &str, values: minijinja::Value) -> Result<String> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().keep_trailing_newline(true).trim_blocks(true).build();
    environment.set_syntax(syntax.context("the template syntax")?);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.add_filter("quoted", |text: String| serde_json::Value::from(text).to_string());
    environment.render_str(template, values).context("fill in a template")
}
