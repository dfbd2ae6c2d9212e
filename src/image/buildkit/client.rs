//! Docker's command line, where it speaks BuildKit: with its component buildx, or of a version that needs none.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::Result;
use tokio::process::Command;

use crate::report::{Fault, Kind};

/// From this version on it has no BuildKit of its own.
const NONE_OF_ITS_OWN: u32 = 23;

/// The first `docker` of the PATH that speaks BuildKit; another that comes before it, a bare download for instance, may not.
///
/// None: [`Kind::Missing`], with what each of them is.
pub(crate) async fn find() -> Result<PathBuf, Fault> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut tried = Vec::new();
    for program in std::env::split_paths(&path).map(|directory| directory.join("docker")) {
        let Ok(real) = program.canonicalize() else { continue };
        if tried.iter().any(|(_, known, _)| *known == real) {
            continue;
        }
        let version = said(&program, &["--version"]).await.unwrap_or_default();
        if has_own(&version) || said(&program, &["buildx", "version"]).await.is_some() {
            return Ok(program);
        }
        tried.push((program, real, version));
    }
    let wants = "Docker's command line hands secrets to the builder";
    if tried.is_empty() {
        return Err(Fault::new(Kind::Missing, format!("{wants}, and is not installed"))
            .next("apt-get install docker.io"));
    }
    let mut fault =
        Fault::new(Kind::Missing, format!("{wants} by BuildKit, and none that is here speaks that"));
    fault.why = tried
        .iter()
        .map(|(program, _, version)| format!("{}: {}, without buildx", program.display(), version.trim()))
        .collect();
    Err(fault.next("apt-get install docker-buildx   # from Docker's own packages: docker-buildx-plugin"))
}

async fn said(program: &Path, words: &[&str]) -> Option<String> {
    let mut command = Command::new(program);
    let output = command.args(words).stdin(Stdio::null()).kill_on_drop(true).output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `Docker version 20.10.24+dfsg1, build 297e128`
fn has_own(version: &str) -> bool {
    let number = version.split_whitespace().find_map(|word| word.split_once('.')?.0.parse::<u32>().ok());
    number.is_some_and(|major| major < NONE_OF_ITS_OWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_says_whether_buildkit_is_in_it() {
        assert!(has_own("Docker version 20.10.24+dfsg1, build 297e128\n"));
        assert!(!has_own("Docker version 28.2.2, build e6534b4\n"));
        assert!(!has_own(""));
    }
}
