//! The clone of the site's repository.

use std::path::{Path, PathBuf};

use anyhow::Result;
use git2::build::{CheckoutBuilder, RepoBuilder};
use git2::{AutotagOption, Cred, CredentialType, ErrorCode, FetchOptions, RemoteCallbacks, Repository};

use crate::report::{Fault, Kind};

/// What is in the site's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checkout {
    Absent,
    Clone {
        url: String,
    },
    /// Something that is no clone.
    Foreign,
}

pub fn look(directory: &Path) -> Result<Checkout> {
    if !directory.exists() {
        return Ok(Checkout::Absent);
    }
    // Only the directory itself: a repository above it is not the site's.
    match Repository::open(directory) {
        Ok(repository) => {
            let origin = repository.find_remote("origin");
            let url = origin.ok().and_then(|remote| remote.url().ok().map(str::to_owned));
            Ok(url.map_or(Checkout::Foreign, |url| Checkout::Clone { url }))
        }
        Err(e) if e.code() == ErrorCode::NotFound => Ok(Checkout::Foreign),
        Err(e) => Err(unusable(directory, &e).into()),
    }
}

/// Clones `url` into `directory`, wholly or not at all.
pub fn clone(url: &str, directory: &Path) -> Result<()> {
    let parent = directory.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent)?;
    let staging = tempfile::Builder::new().prefix(".site-").tempdir_in(parent)?;
    let clone = staging.path().join("clone");
    RepoBuilder::new().fetch_options(fetch_options()).clone(url, &clone).map_err(|e| unreachable(url, &e))?;
    // Everybody resolves the site as themselves, so everybody reads it.
    std::fs::rename(&clone, directory)?;
    Ok(())
}

/// Fetches and fast-forwards. A clone that somebody has changed or committed to is left as it is, with an error.
pub fn update(url: &str, directory: &Path) -> Result<()> {
    let git = |e: git2::Error| unusable(directory, &e);
    let repository = Repository::open(directory).map_err(git)?;
    let branch = repository.head().map_err(git)?.shorthand().map_err(git)?.to_owned();
    let mut remote = repository.find_remote("origin").map_err(git)?;
    remote.fetch(&[&branch], Some(&mut fetch_options()), None).map_err(|e| unreachable(url, &e))?;
    let fetched = repository.find_reference("FETCH_HEAD").map_err(git)?;
    let theirs = repository.reference_to_annotated_commit(&fetched).map_err(git)?;
    let (analysis, _) = repository.merge_analysis(&[&theirs]).map_err(git)?;
    if analysis.is_up_to_date() {
        return Ok(());
    }
    if !analysis.is_fast_forward() {
        return Err(changed(directory, "it has commits of its own").into());
    }
    let target = repository.find_object(theirs.id(), None).map_err(git)?;
    // The default is safe: it stops at files that were changed here.
    repository
        .checkout_tree(&target, Some(CheckoutBuilder::new().safe()))
        .map_err(|e| changed(directory, e.message()))?;
    repository
        .reference(&format!("refs/heads/{branch}"), theirs.id(), true, "setup: fast-forward")
        .map_err(git)?;
    Ok(())
}

/// The keys that ssh itself tries (ssh_config(5), IdentityFile), below the home directory.
const KEYS: [&str; 3] = [".ssh/id_ed25519", ".ssh/id_ecdsa", ".ssh/id_rsa"];

/// A way to be let in, each tried once: libgit2 asks again for as long as it is answered.
enum Way {
    Agent,
    Key(PathBuf),
    /// What git's own credential helpers know.
    Helper,
}

fn fetch_options() -> FetchOptions<'static> {
    let mut callbacks = RemoteCallbacks::new();
    let home = std::env::home_dir().unwrap_or_else(|| "/root".into());
    let keys = KEYS.iter().map(|key| home.join(key)).filter(|key| key.exists()).map(Way::Key);
    let agent = std::env::var_os("SSH_AUTH_SOCK").map(|_| Way::Agent);
    let mut ways = agent.into_iter().chain(keys).chain([Way::Helper]).collect::<Vec<_>>().into_iter();
    callbacks.credentials(move |url, user, allowed| {
        let name = user.unwrap_or("git");
        if allowed.contains(CredentialType::USERNAME) {
            return Cred::username(name);
        }
        for way in ways.by_ref() {
            let found = match way {
                Way::Agent if allowed.contains(CredentialType::SSH_KEY) => Cred::ssh_key_from_agent(name),
                Way::Key(key) if allowed.contains(CredentialType::SSH_KEY) => {
                    Cred::ssh_key(name, None, &key, None)
                }
                Way::Helper if allowed.contains(CredentialType::USER_PASS_PLAINTEXT) => {
                    git2::Config::open_default()
                        .and_then(|config| Cred::credential_helper(&config, url, user))
                }
                _ => continue,
            };
            if found.is_ok() {
                return found;
            }
        }
        Err(git2::Error::from_str(
            "root's ssh agent, keys and git's credential helpers have none that it takes",
        ))
    });
    let mut options = FetchOptions::new();
    options.remote_callbacks(callbacks).download_tags(AutotagOption::None);
    options
}

fn unreachable(url: &str, error: &git2::Error) -> Fault {
    Fault::new(Kind::Failed, format!("the site's definitions cannot be fetched from {url}"))
        .why(error.message().to_owned())
        .next(format!("git ls-remote {url}"))
}

fn unusable(directory: &Path, error: &git2::Error) -> Fault {
    Fault::new(Kind::Failed, format!("{} cannot be read as a git repository", directory.display()))
        .why(error.message().to_owned())
        .next(format!("git -C {} status", directory.display()))
}

fn changed(directory: &Path, why: &str) -> Fault {
    Fault::new(Kind::Differs, format!("{} was changed on this host", directory.display()))
        .why(why.to_owned())
        .next(format!("git -C {} status", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(repository: &Repository, file: &str, text: &str) {
        std::fs::write(repository.workdir().unwrap().join(file), text).unwrap();
        let mut index = repository.index().unwrap();
        index.add_path(Path::new(file)).unwrap();
        index.write().unwrap();
        let tree = repository.find_tree(index.write_tree().unwrap()).unwrap();
        let who = git2::Signature::now("t", "t@localhost").unwrap();
        let parent = repository.head().ok().and_then(|head| head.peel_to_commit().ok());
        let parents: Vec<_> = parent.iter().collect();
        repository.commit(Some("HEAD"), &who, &who, "change", &tree, &parents).unwrap();
    }

    #[test]
    fn a_site_is_cloned_brought_up_to_date_and_never_overwritten() {
        let root = tempfile::tempdir().unwrap();
        let (origin, site) = (root.path().join("origin"), root.path().join("etc/site"));
        let url = origin.to_str().unwrap();
        let repository = Repository::init(&origin).unwrap();
        commit(&repository, "a.toml", "1");
        assert_eq!(look(&site).unwrap(), Checkout::Absent);
        clone(url, &site).unwrap();
        assert_eq!(look(&site).unwrap(), Checkout::Clone { url: url.into() });

        commit(&repository, "a.toml", "2");
        update(url, &site).unwrap();
        update(url, &site).unwrap();
        assert_eq!(std::fs::read_to_string(site.join("a.toml")).unwrap(), "2");

        commit(&repository, "a.toml", "3");
        std::fs::write(site.join("a.toml"), "mine").unwrap();
        let fault = Fault::of(&update(url, &site).unwrap_err());
        assert_eq!(fault.kind, Kind::Differs);
        assert_eq!(std::fs::read_to_string(site.join("a.toml")).unwrap(), "mine");

        std::fs::write(site.join("a.toml"), "2").unwrap();
        commit(&Repository::open(&site).unwrap(), "b.toml", "ours");
        assert_eq!(Fault::of(&update(url, &site).unwrap_err()).kind, Kind::Differs);
    }

    #[test]
    fn what_cannot_be_cloned_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let site = root.path().join("etc/site");
        assert!(clone("/nowhere/at/all", &site).is_err());
        assert_eq!(std::fs::read_dir(root.path().join("etc")).unwrap().count(), 0);
        std::fs::create_dir(&site).unwrap();
        assert_eq!(look(&site).unwrap(), Checkout::Foreign);
    }
}
