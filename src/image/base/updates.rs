//! Whether the repositories have other packages than an image was made of. Their signed metadata are compared first,
//! a few kilobytes; only where these have changed are the package lists fetched and read, by apt.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

use super::bootstrap::keyrings;
use super::repos::entries;
use super::told::explain;
use super::work::Work;
use super::{Lock, repositories};
use crate::report::{Fault, Kind};
use crate::site::{BaseDefinition, Family, Placed};
use crate::spec::Digest;

/// How long a repository may take to give a file of a few kilobytes.
const PATIENCE: Duration = Duration::from_secs(20);
/// Files asked for at the same time.
const AT_ONCE: usize = 8;

/// apt's name and the SHA-256 of every file of signed metadata that the repositories of a base have now.
pub async fn metadata(definition: &BaseDefinition) -> Result<BTreeMap<String, Digest>> {
    let files: Vec<(String, String)> = match &definition.family {
        Family::Apt { .. } => entries(&definition.repos)
            .iter()
            .flat_map(|entry| entry.metadata().map(|url| (url, entry.place.clone())).collect::<Vec<_>>())
            .collect(),
        Family::Rpm { release } => super::dnf::metadata(&definition.repos, release),
    };
    // Another part of the process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder()
        .user_agent(concat!("moorage/", env!("CARGO_PKG_VERSION")))
        .timeout(PATIENCE)
        .build()
        .context("prepare to ask repositories")?;
    stream::iter(files)
        .map(|(url, place)| {
            let client = client.clone();
            async move {
                match fetch(&client, &url).await {
                    Ok(bytes) => Ok((name_of(&url), Digest(Sha256::digest(bytes).into()))),
                    Err(error) => Err(unreachable(&url, &place, &error)),
                }
            }
        })
        .buffered(AT_ONCE)
        .try_collect()
        .await
        .map_err(anyhow::Error::from)
}

/// As apt names the file in its lists.
fn name_of(url: &str) -> String {
    url.split_once("://").map_or(url, |(_, rest)| rest).trim_start_matches("file:").replace('/', "_")
}

fn unreachable(url: &str, place: &str, error: &anyhow::Error) -> Fault {
    let mut fault = Fault::new(Kind::Failed, format!("{place}: the repository cannot be asked for {url}"));
    fault.why = error.chain().map(ToString::to_string).collect();
    fault.next("check the address there, the network and the proxy; --offline asks no repository")
}

async fn fetch(client: &reqwest::Client, url: &str) -> Result<Vec<u8>> {
    let path = url.strip_prefix("file:").or_else(|| url.strip_prefix("copy:"));
    if let Some(path) = path {
        let path = format!("/{}", path.trim_start_matches('/'));
        return tokio::fs::read(&path).await.with_context(|| format!("read {path}"));
    }
    let answer = client.get(url).send().await?.error_for_status()?;
    Ok(answer.bytes().await?.to_vec())
}

/// For each lock, its packages that the repositories have in another version, as [`super::lock::differences`] says it.
pub async fn newer(definition: &BaseDefinition, locks: &[&Lock]) -> Result<Vec<Vec<String>>> {
    let keyring = match &definition.family {
        Family::Apt { keyring, .. } => keyring,
        Family::Rpm { release } => return super::dnf::newer(definition, release, locks).await,
    };
    let work = Work::new()?;
    configure(definition, keyring, &work)?;
    apt(definition, &work, &["apt-get", "-qq", "update"]).await?;
    let mut words = vec!["apt-cache", "policy"];
    let packages: BTreeSet<&str> =
        locks.iter().flat_map(|lock| lock.packages.keys()).map(|package| bare(package)).collect();
    words.extend(packages);
    let candidates = candidates(&apt(definition, &work, &words).await?);
    let newer = |lock: &&Lock| {
        let newer = lock.packages.iter().filter_map(|(package, version)| {
            let candidate = candidates.get(bare(package))?;
            (candidate != version).then(|| format!("{package} {version} → {candidate}"))
        });
        newer.collect()
    };
    Ok(locks.iter().map(newer).collect())
}

/// Without the architecture, as apt-cache says packages of its own one.
fn bare(package: &str) -> &str {
    package.split(':').next().unwrap_or(package)
}

/// apt with lists of its own, that knows nothing of this host's repositories and packages.
fn configure(definition: &BaseDefinition, keyring: &Placed, work: &Work) -> Result<()> {
    let repos = work.repos(definition)?;
    keyrings(definition, keyring, &repos)?;
    let at = work.path().display();
    for directory in ["lists/partial", "cache/archives/partial", "none"] {
        std::fs::create_dir_all(work.path().join(directory)).context("make a directory for apt")?;
    }
    std::fs::write(work.path().join("status"), "").context("write for apt")?;
    let own =
        definition.repos.get("apt.conf").map(|file| String::from_utf8_lossy(&file.content).into_owned());
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let text = format!(
        "{}\nAPT::Architecture \"{architecture}\";\nAPT::Sandbox::User \"root\";\nDir::State \"{at}\";\n\
         Dir::State::lists \"{at}/lists\";\nDir::State::status \"{at}/status\";\nDir::Cache \"{at}/cache\";\n\
         Dir::Etc::main \"/dev/null\";\nDir::Etc::parts \"{at}/none\";\nDir::Etc::sourcelist \"/dev/null\";\n\
         Dir::Etc::sourceparts \"{at}/repos\";\nDir::Etc::preferences \"/dev/null\";\n\
         Dir::Etc::preferencesparts \"{at}/none\";\nDir::Etc::trusted \"{}\";\nDir::Etc::trustedparts \"{at}/none\";\n\
         Dir::Ignore-Files-Silently:: \"\\.(conf|cfg|gpg|asc)$\";\n",
        own.unwrap_or_default(),
        repos.join(&keyring.text).display(),
    );
    std::fs::write(work.path().join("apt.conf"), text).context("write for apt")
}

async fn apt(definition: &BaseDefinition, work: &Work, words: &[&str]) -> Result<String> {
    let (program, arguments) = words.split_first().context("no program")?;
    let output = Command::new(program)
        .args(arguments)
        .env("APT_CONFIG", work.path().join("apt.conf"))
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = match output {
        Ok(output) => output,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let what = format!("{program} is not installed; it reads the package lists of a base");
            return Err(Fault::new(Kind::Missing, what).next("apt-get install apt").into());
        }
        Err(e) => return Err(e).with_context(|| format!("run {program}")),
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A repository that could not be asked is only a warning to apt, and "cannot tell" is not "nothing newer".
    let failed = !output.status.success() || said.lines().any(|line| line.starts_with("E:"));
    if failed || (said.contains("W: Failed to fetch") || said.contains("W: GPG error")) {
        let what = format!("the packages of {} are not known", repositories(definition));
        return Err(match explain(definition, said.lines()) {
            Some(fault) => anyhow::Error::new(fault).context(what),
            None => {
                let mut fault = Fault::new(Kind::Failed, what).next("correct what apt says");
                fault.why = said.lines().map(str::to_owned).collect();
                fault.into()
            }
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `apt-cache policy`: a package's name, then below it what there is.
fn candidates(text: &str) -> BTreeMap<String, String> {
    let mut candidates = BTreeMap::new();
    let mut package = "";
    for line in text.lines() {
        if !line.starts_with(' ') {
            package = line.trim_end_matches(':');
        } else if let Some(version) = line.trim().strip_prefix("Candidate: ")
            && version != "(none)"
        {
            candidates.insert(package.to_owned(), version.to_owned());
        }
    }
    candidates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_read() {
        let text = "bash:\n  Installed: (none)\n  Candidate: 5.2-2\n  Version table:\n     5.2-2 500\n\
                    libc6:amd64:\n  Installed: (none)\n  Candidate: 2.36\ngone:\n  Installed: (none)\n  Candidate: (none)\n";
        let found = candidates(text);
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [("bash".to_owned(), "5.2-2".to_owned()), ("libc6:amd64".to_owned(), "2.36".to_owned())]
        );
    }
}
