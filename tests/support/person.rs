//! People of the world, and what their commands said.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::world;

/// Somebody with an account in the world (made by scripts/lib/world-init).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    pub name: &'static str,
    pub uid: u32,
    pub home: PathBuf,
}

/// In `@support`.
pub fn ann() -> Person {
    person("ann", 40101)
}

/// In `@support`, too.
pub fn bob() -> Person {
    person("bob", 40102)
}

/// In no group with the others.
pub fn carol() -> Person {
    person("carol", 40103)
}

/// Administers the host, without being root.
pub fn dave() -> Person {
    person("dave", 40104)
}

pub fn root() -> Person {
    person("root", 0)
}

fn person(name: &'static str, uid: u32) -> Person {
    let home = world().join("home").join(name);
    if uid == 0 {
        std::fs::create_dir_all(&home).unwrap();
    }
    Person { name, uid, home }
}

impl Person {
    /// A program run as this person: their groups, their home, nothing else of our environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = match self.uid {
            0 => Command::new(program),
            uid => {
                let mut command = Command::new("setpriv");
                let ids = [format!("--reuid={uid}"), format!("--regid={uid}")];
                command.args(ids).args(["--init-groups", "--", program]);
                command
            }
        };
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", &self.home)
            .env("USER", self.name)
            .env("LOGNAME", self.name)
            .env("LANG", "C.UTF-8")
            .env("TERM", "dumb")
            .current_dir(&self.home)
            .stdin(Stdio::null());
        command
    }

    /// `moorage` with `arguments`, run to its end.
    pub fn moorage(&self, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command("moorage").args(arguments))
    }

    /// Any program, run to its end.
    pub fn run(&self, program: &str, arguments: &[&str]) -> Outcome {
        Outcome::of(self.command(program).args(arguments))
    }

    /// A shell script, run to its end.
    pub fn shell(&self, script: &str) -> Outcome {
        self.run("sh", &["-euc", script])
    }

    /// The person's public key; a pair is made on first use.
    pub fn public_key(&self) -> String {
        let key = self.home.join(".ssh/id_ed25519");
        // Tests run side by side: whoever comes first makes it.
        self.shell("mkdir -p -m 700 .ssh; exec 9>.ssh/lock; flock 9; [ -e .ssh/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f .ssh/id_ed25519")
            .ok();
        std::fs::read_to_string(key.with_extension("pub")).unwrap()
    }
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Outcome {
    command: String,
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    pub fn of(command: &mut Command) -> Outcome {
        let line = format!("{command:?}");
        let output = command.output().unwrap_or_else(|e| panic!("{line}: {e}"));
        Outcome::from_output(line, &output)
    }

    pub fn from_output(command: String, output: &std::process::Output) -> Outcome {
        use std::os::unix::process::ExitStatusExt as _;
        let signal = output.status.signal().map(|signal| 128 + signal);
        Outcome {
            command,
            code: output.status.code().or(signal).unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Everything, for a failure.
    pub fn whole(&self) -> String {
        format!(
            "{}\nended with {}\n--- stdout\n{}--- stderr\n{}",
            self.command, self.code, self.stdout, self.stderr
        )
    }

    /// It ended with 0.
    #[track_caller]
    pub fn ok(self) -> Outcome {
        self.ends(0)
    }

    /// It ended with `code` (docs/operations.md).
    #[track_caller]
    pub fn ends(self, code: i32) -> Outcome {
        assert_eq!(self.code, code, "another exit code than expected:\n{}", self.whole());
        self
    }

    /// It said `text`, on stdout or stderr.
    #[track_caller]
    pub fn says(self, text: &str) -> Outcome {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(said, "did not say {text:?}:\n{}", self.whole());
        self
    }

    /// It did not say `text` anywhere.
    #[track_caller]
    pub fn never_says(self, text: &str) -> Outcome {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(!said, "said {text:?}:\n{}", self.whole());
        self
    }

    /// An error as people need it: one that says what to do next, and no panic.
    #[track_caller]
    pub fn helps(self) -> Outcome {
        assert!(!self.stderr.contains("panicked"), "a panic:\n{}", self.whole());
        assert!(!self.stderr.trim().is_empty(), "an error without a word:\n{}", self.whole());
        assert!(self.names_the_next(), "an error that does not say what to do:\n{}", self.whole());
        self
    }

    /// What to do next, as people read it, as programs do, or as the parser of the command line says it.
    fn names_the_next(&self) -> bool {
        let of_program = |line: &str| {
            let error: Option<serde_json::Value> = serde_json::from_str(line).ok();
            error.is_some_and(|error| error["error"]["next"].as_str().is_some_and(|next| !next.is_empty()))
        };
        let clap = self.stderr.contains("For more information, try '--help'");
        self.stderr.contains("\n  next: ") || clap || self.stderr.lines().any(of_program)
    }

    /// It worked, or it said properly why not.
    #[track_caller]
    pub fn helps_or_ok(self) -> Outcome {
        if self.code == 0 { self } else { self.helps() }
    }

    /// Stdout as the one JSON value it has to be.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let value: serde_json::Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("no JSON ({e}):\n{}", self.whole()));
        assert_eq!(value["schema"], 1, "the JSON has no schema:\n{}", self.whole());
        value
    }
}
