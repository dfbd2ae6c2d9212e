//! The shell scripts of an image's definition, each with its place: files that begin with `#!`, what a Dockerfile gives to
//! a shell, and the definition's checks.

use parse_dockerfile::{Command, HealthcheckArguments, HereDoc, Instruction};

/// What a shell will be given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Script {
    /// The file, as a person would name it, and where that does not say it, which of its commands.
    pub place: String,
    /// Lines of the file above the script's first.
    pub above: usize,
    /// `sh`, `bash`, …: who reads it.
    pub shell: String,
    pub text: String,
}

impl Script {
    /// A command of a definition, as `sh -c` gets it.
    pub fn command(place: String, text: String) -> Script {
        Script { place, above: 0, shell: "sh".into(), text }
    }
}

/// The shells that a check knows.
const SHELLS: [&str; 4] = ["sh", "bash", "dash", "ksh"];

/// The shell that `#!` names, where it is one.
pub(super) fn interpreter(text: &str) -> Option<&'static str> {
    let first = text.lines().next()?.strip_prefix("#!")?;
    let program = first.split_whitespace().find(|word| !word.ends_with("/env") && !word.starts_with('-'))?;
    known(program)
}

fn known(program: &str) -> Option<&'static str> {
    let name = program.rsplit('/').next()?;
    SHELLS.into_iter().find(|shell| *shell == name)
}

/// What a Dockerfile is made of for a check: its scripts, and what no check reads. The error says where it is none, with
/// line and column.
pub(super) fn of_dockerfile(origin: &str, text: &str) -> Result<(Vec<Script>, Vec<String>), String> {
    let parsed = match parse_dockerfile::parse(text) {
        Ok(parsed) => parsed,
        // The parser knows only commands that are nothing but a here-document.
        Err(_) if text.contains("<<") => {
            let what =
                format!("{origin}: it has here-documents, which not every builder knows, nor this check");
            return Ok((Vec::new(), vec![what]));
        }
        Err(error) => return Err(format!("{origin}:{}:{}: {error}", error.line(), error.column())),
    };
    let mut reader = Reader { origin, text, shell: Some("sh"), scripts: Vec::new(), unread: Vec::new() };
    parsed.instructions.iter().for_each(|instruction| reader.take(instruction));
    Ok((reader.scripts, reader.unread))
}

struct Reader<'a> {
    origin: &'a str,
    text: &'a str,
    /// None where SHELL names another program.
    shell: Option<&'static str>,
    scripts: Vec<Script>,
    unread: Vec<String>,
}

impl Reader<'_> {
    fn take(&mut self, instruction: &Instruction<'_>) {
        match instruction {
            // What SHELL said ends with the stage.
            Instruction::From(_) => self.shell = Some("sh"),
            Instruction::Shell(shell) => {
                self.shell = shell.arguments.first().and_then(|program| known(&program.value));
            }
            Instruction::Run(run) => match (&run.arguments, run.here_docs.last()) {
                (_, Some(here)) => self.here(here),
                (command, None) => self.command(command),
            },
            Instruction::Cmd(cmd) => self.command(&cmd.arguments),
            Instruction::Entrypoint(entrypoint) => self.command(&entrypoint.arguments),
            Instruction::Healthcheck(check) => {
                if let HealthcheckArguments::Cmd { arguments, .. } = &check.arguments {
                    self.command(arguments);
                }
            }
            Instruction::Onbuild(later) => self.take(&later.instruction),
            _ => {}
        }
    }

    fn command(&mut self, command: &Command<'_>) {
        if let Command::Shell(command) = command {
            self.add(command.span.start, joined(command.value));
        }
    }

    /// `RUN <<EOF` is a script, for the shell or for the program that its own first line names.
    fn here(&mut self, here: &HereDoc<'_>) {
        let text = here.value.clone().into_owned();
        match (text.starts_with("#!"), interpreter(&text)) {
            (true, None) => self.unread(here.span.start),
            (true, Some(shell)) => self.push(here.span.start, shell, text),
            (false, _) => self.add(here.span.start, text),
        }
    }

    fn add(&mut self, at: usize, text: String) {
        match self.shell {
            Some(shell) => self.push(at, shell, text),
            None => self.unread(at),
        }
    }

    fn push(&mut self, at: usize, shell: &str, text: String) {
        let before = self.text.get(..at).unwrap_or_default();
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
        // The first line begins where it does in the file, so that columns are the file's. `#!` has to be first.
        let indent = if text.starts_with("#!") { 0 } else { column };
        self.scripts.push(Script {
            place: self.origin.to_owned(),
            above: before.matches('\n').count(),
            shell: shell.to_owned(),
            text: " ".repeat(indent) + &text,
        });
    }

    fn unread(&mut self, at: usize) {
        let line = self.text.get(..at).unwrap_or_default().matches('\n').count() + 1;
        self.unread.push(format!("{}:{line}: it is no script of a shell that shellcheck reads", self.origin));
    }
}

/// The builder leaves out comments and empty lines inside a command that goes on; a shell would end it there.
fn joined(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    for at in 1..lines.len() {
        let goes_on = lines[at - 1].trim_end().ends_with('\\');
        let line = lines[at].trim();
        if goes_on && (line.is_empty() || line.starts_with('#')) {
            lines[at] = "\\";
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Vec<String>, Vec<String>) {
        let (scripts, unread) = of_dockerfile("x/Dockerfile", text).unwrap();
        let line = |script: Script| {
            format!("{}:{} {}: {:?}", script.place, script.above + 1, script.shell, script.text)
        };
        (scripts.into_iter().map(line).collect(), unread)
    }

    #[test]
    fn every_command_for_a_shell_is_found_with_its_line() {
        let text = "FROM x\nENV a=b\nRUN true \\\n # why\n && false\nCMD [\"a\", \"b\"]\n\
                    SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"]\nRUN --mount=type=secret,id=t [[ -e x ]]\n\
                    RUN <<EOF\nset -eu\nls $x\nEOF\nRUN <<EOF\n#!/usr/bin/env python3\nprint()\nEOF\n\
                    HEALTHCHECK --interval=1s CMD curl -f x\n\
                    SHELL [\"pwsh\"]\nRUN Get-Thing\nFROM y\nENTRYPOINT exec it\nONBUILD RUN make\n";
        insta::assert_debug_snapshot!(read(text));
    }

    #[test]
    fn what_the_parser_does_not_know_is_no_mistake() {
        let (scripts, unread) = read("FROM x\nRUN cat <<EOF >/x\ntext\nEOF\n");
        assert_eq!((scripts.len(), unread.len()), (0, 1), "{unread:?}");
    }

    #[test]
    fn what_is_no_dockerfile_is_told_with_its_line() {
        for (text, begin) in [
            ("FROM x\nRUM true\n", "x/Dockerfile:2:1: "),
            ("RUN true\n", "x/Dockerfile:1:1: "),
            ("FROM x\nCOPY a\n", "x/Dockerfile:2:1: "),
        ] {
            let told = of_dockerfile("x/Dockerfile", text).unwrap_err();
            assert!(told.starts_with(begin), "{told}");
        }
    }

    #[test]
    fn the_interpreter_is_the_first_line_s() {
        assert_eq!(interpreter("#!/bin/sh -eu\n"), Some("sh"));
        assert_eq!(interpreter("#!/usr/bin/env -S bash -e\n"), Some("bash"));
        assert_eq!(interpreter("#!/usr/bin/python3\n"), None);
        assert_eq!(interpreter("true\n"), None);
    }
}
