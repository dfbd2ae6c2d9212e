//! How a registry is reached on this host: whose credentials, which certificates. Docker's own files, read as Docker reads them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use docker_credential::{CredentialRetrievalError, DockerCredential};
use oci_client::client::{Certificate, CertificateEncoding};
use oci_client::secrets::RegistryAuth;

use crate::apart;
use crate::report::{Fault, Kind};

/// How long a credential helper may take: some ask an agent, none a person.
const HELPER: Duration = Duration::from_secs(30);

/// What Docker calls its own registry in `auths`.
const HUB: &str = "https://index.docker.io/v1/";

/// How a certificate begins in PEM (RFC 7468, 5.1).
const BEGIN: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Where credentials and certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Docker's `config.json`; without one nobody is logged in anywhere.
    pub config: Option<PathBuf>,
    /// `/etc/docker/certs.d`.
    pub certificates: PathBuf,
    /// Who asks, whatever `config` says.
    pub login: Option<Login>,
}

/// A name and a password, of somebody who has logged in.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    pub user: String,
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({})", self.user)
    }
}

impl Access {
    /// That of the person this process belongs to: `$DOCKER_CONFIG`, else `.docker` in their home, which a service's
    /// environment may not name.
    pub fn of_docker() -> Access {
        let of_user =
            || nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.dir);
        let home = || std::env::var_os("HOME").map(PathBuf::from).or_else(of_user);
        let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
        let directory = directory.or_else(|| home().map(|home| home.join(".docker")));
        Access {
            config: directory.map(|directory| directory.join("config.json")),
            certificates: "/etc/docker/certs.d".into(),
            login: None,
        }
    }

    /// What this person is logged in as, for somebody else to ask in their name.
    pub async fn login(&self, host: &str) -> Result<Option<Login>> {
        Ok(match self.credentials(host).await? {
            RegistryAuth::Basic(user, password) => Some(Login { user, password }),
            _ => None,
        })
    }

    /// The credentials for a registry's host; nobody's where there are none.
    pub(super) async fn credentials(&self, host: &str) -> Result<RegistryAuth> {
        if let Some(Login { user, password }) = &self.login {
            return Ok(RegistryAuth::Basic(user.clone(), password.clone()));
        }
        let Some(path) = self.config.clone() else { return Ok(RegistryAuth::Anonymous) };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(RegistryAuth::Anonymous),
            Err(e) => return Err(e).with_context(|| format!("read {}", path.display())),
        };
        let server = if host == "docker.io" { HUB } else { host }.to_owned();
        // A helper is a program that is waited for.
        let asked = apart::blocking(move || {
            Ok(docker_credential::get_credential_from_reader(std::io::BufReader::new(file), &server))
        });
        let failed = |why: String| {
            Fault::new(Kind::Failed, format!("no credentials for {host}"))
                .why(why)
                .next(format!("see {}, or log in anew: docker login {host}", path.display()))
        };
        let answer = match tokio::time::timeout(HELPER, asked).await {
            Ok(answer) => answer.context("the look for credentials ended")?,
            Err(_) => return Err(failed(format!("the credential helper says nothing for {HELPER:?}")).into()),
        };
        match answer {
            Ok(DockerCredential::UsernamePassword(user, password)) => Ok(RegistryAuth::Basic(user, password)),
            Ok(DockerCredential::IdentityToken(_)) => {
                Err(failed("they are an identity token, and only a name and a password can be used".into())
                    .into())
            }
            // Docker's own helpers end with an error and these words where they have nothing.
            Err(CredentialRetrievalError::HelperFailure { stdout, stderr, .. })
                if format!("{stdout}{stderr}").contains("credentials not found") =>
            {
                Ok(RegistryAuth::Anonymous)
            }
            Err(CredentialRetrievalError::NoCredentialConfigured) => Ok(RegistryAuth::Anonymous),
            Err(error) => Err(failed(error.to_string()).into()),
        }
    }

    /// The login for `host` as the Docker Engine takes it: X-Registry-Auth, in base64 for URLs (Engine API, authentication).
    pub async fn header(&self, host: &str) -> Result<String> {
        let login = match self.credentials(host).await? {
            RegistryAuth::Basic(name, password) => {
                serde_json::json!({ "username": name, "password": password, "serveraddress": host })
            }
            RegistryAuth::Bearer(token) => {
                serde_json::json!({ "registrytoken": token, "serveraddress": host })
            }
            RegistryAuth::Anonymous => serde_json::json!({}),
        };
        Ok(URL_SAFE.encode(serde_json::to_vec(&login)?))
    }

    /// The authorities that a registry's certificate may come from, beside the system's: `<host>/*.crt`.
    pub(super) fn authorities(&self, host: &str) -> Result<Vec<Certificate>> {
        let directory = self.certificates.join(host);
        let mut found = Vec::new();
        for path in files(&directory)? {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => {
                    let data = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
                    // The client takes any text, and then trusts nobody.
                    if !data.windows(BEGIN.len()).any(|part| part == BEGIN) {
                        let what = format!("{} has no certificate in it", path.display());
                        let next = format!("openssl x509 -in {} -noout -text", path.display());
                        return Err(Fault::new(Kind::Failed, what).next(next).into());
                    }
                    found.push(Certificate { encoding: CertificateEncoding::Pem, data });
                }
                Some("cert") => tracing::warn!("{}: client certificates are not used", path.display()),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// What is in a directory, by name; nothing where it is not there.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("list {}", directory.display())),
    };
    let paths: std::io::Result<Vec<PathBuf>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = paths.with_context(|| format!("list {}", directory.display()))?;
    paths.sort();
    Ok(paths)
}
