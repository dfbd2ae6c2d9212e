//! Whether a registry can be used from here, and if not, why: told apart, since each is mended in another place.

use std::error::Error as _;
use std::io;
use std::time::Duration;

use oci_client::secrets::RegistryAuth;
use reqwest::StatusCode;
use rustls::CertificateError;

use super::access::Access;
use super::client::is_loopback;
use crate::report::Finding;

const AREA: &str = "registry";
/// How long a registry may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// What was seen of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// It answers; as whom we are known there.
    Answers(Option<String>),
    /// It answers, and wants a login that nobody has given.
    WantsLogin,
    /// It does not take the login that there is.
    LoginRefused(String),
    UnknownName,
    NoRoute(String),
    Refused,
    Silent,
    UnknownAuthority,
    OtherName(String),
    Expired,
    NotYetValid,
    PlainHttp,
    /// It speaks TLS and is no registry.
    NoRegistry(u16),
    Other(String),
}

/// Asks the registry at `host` as the person of `access`.
pub async fn examine(host: &str, access: &Access) -> Finding {
    match look(host, access).await {
        Ok(seen) => judge(host, seen),
        Err(error) => Finding::of(AREA, &error),
    }
}

async fn look(host: &str, access: &Access) -> anyhow::Result<Seen> {
    // Another part of the process may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let login = match access.credentials(host).await? {
        RegistryAuth::Basic(name, password) => Some((name, password)),
        _ => None,
    };
    let mut client = reqwest::Client::builder().timeout(PATIENCE).connect_timeout(PATIENCE);
    for authority in access.authorities(host)? {
        client = client.add_root_certificate(reqwest::Certificate::from_pem(&authority.data)?);
    }
    let client = client.build()?;
    let ask = |scheme: &str, login: Option<(String, String)>| {
        let request = client.get(format!("{scheme}://{host}/v2/"));
        match login {
            Some((name, password)) => request.basic_auth(name, Some(password)),
            None => request,
        }
    };
    let mut answer = ask("https", None).send().await;
    let over_tls = answer.as_ref().map_err(why);
    if let Err(Seen::PlainHttp | Seen::Other(_)) = over_tls {
        // What speaks TLS may say by HTTP that it does.
        let is_served =
            |plain: &reqwest::Response| [StatusCode::OK, StatusCode::UNAUTHORIZED].contains(&plain.status());
        match ask("http", None).send().await {
            Ok(plain) if is_served(&plain) && !is_loopback(host) => return Ok(Seen::PlainHttp),
            Ok(plain) if is_served(&plain) => answer = Ok(plain),
            _ => {}
        }
    }
    let answer = match answer {
        Ok(answer) => answer,
        Err(error) => return Ok(why(&error)),
    };
    let scheme = answer.url().scheme().to_owned();
    match answer.status() {
        StatusCode::OK if login.is_none() => Ok(Seen::Answers(None)),
        StatusCode::OK | StatusCode::UNAUTHORIZED => {
            let challenge = answer.headers().get(reqwest::header::WWW_AUTHENTICATE);
            let basic =
                challenge.is_none_or(|said| !said.as_bytes().to_ascii_lowercase().starts_with(b"bearer"));
            let Some((name, password)) = login else { return Ok(Seen::WantsLogin) };
            // Who gives tokens says so when one is asked for.
            if !basic {
                return Ok(Seen::Answers(Some(name)));
            }
            let again = ask(&scheme, Some((name.clone(), password))).send().await?;
            Ok(match again.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Seen::LoginRefused(name),
                _ => Seen::Answers(Some(name)),
            })
        }
        other => Ok(Seen::NoRegistry(other.as_u16())),
    }
}

/// What a request that got no answer means.
fn why(error: &reqwest::Error) -> Seen {
    let mut cause = error.source();
    let mut words = error.to_string();
    while let Some(inner) = cause {
        words = inner.to_string();
        if words.contains("dns error") || words.contains("failed to lookup address") {
            return Seen::UnknownName;
        }
        if let Some(tls) = tls_of(inner) {
            return of_tls(tls);
        }
        match inner.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::ConnectionRefused) => return Seen::Refused,
            Some(io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable) => {
                return Seen::NoRoute(words);
            }
            Some(io::ErrorKind::TimedOut) => return Seen::Silent,
            _ => {}
        }
        cause = inner.source();
    }
    match error.is_timeout() {
        true => Seen::Silent,
        false => Seen::Other(words),
    }
}

/// The TLS error in this one, which is wrapped more than once.
fn tls_of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a rustls::Error> {
    error.downcast_ref().or_else(|| tls_of(error.downcast_ref::<io::Error>()?.get_ref()?))
}

fn of_tls(error: &rustls::Error) -> Seen {
    use rustls::Error::{InvalidCertificate, InvalidMessage};
    match error {
        InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
            Seen::UnknownAuthority
        }
        InvalidCertificate(CertificateError::NotValidForName) => Seen::OtherName(String::new()),
        InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. }) => {
            Seen::OtherName(presented.join(", "))
        }
        InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            Seen::Expired
        }
        InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            Seen::NotYetValid
        }
        InvalidMessage(_) => Seen::PlainHttp,
        other => Seen::Other(other.to_string()),
    }
}

fn judge(host: &str, seen: Seen) -> Finding {
    let problem = |what: String| Finding::problem(AREA, what);
    let authority = format!("/etc/docker/certs.d/{host}/ca.crt");
    match seen {
        Seen::Answers(None) => Finding::ok(AREA, format!("{host} answers")),
        Seen::Answers(Some(name)) => Finding::ok(AREA, format!("{host} answers, and knows {name}")),
        Seen::WantsLogin => Finding::ok(AREA, format!("{host} answers, and wants a login: docker login {host}")),
        Seen::LoginRefused(name) => problem(format!("{host} refuses the login of {name}"))
            .why("the password is wrong, or the name is not known there any more")
            .next(format!("docker login {host}; on the registry: moorage add-user {name}")),
        Seen::UnknownName => problem(format!("the name of {host} is not known here"))
            .why("no DNS server, and no line of /etc/hosts, has an address for it")
            .next(format!("getent hosts {}", host.split(':').next().unwrap_or(host))),
        Seen::NoRoute(words) => problem(format!("there is no route to {host}"))
            .why(words)
            .next(format!("ip route get {}", host.split(':').next().unwrap_or(host))),
        Seen::Refused => problem(format!("nobody listens at {host}"))
            .why("its machine answers and refuses the connection: the registry does not run, or has another port")
            .next("there: moorage show-registry"),
        Seen::Silent => problem(format!("{host} does not answer within {} s", PATIENCE.as_secs()))
            .why("its machine is off, or a firewall drops the packets")
            .next("there: moorage show-registry"),
        Seen::UnknownAuthority => problem(format!("{host} has a certificate of an authority that is not trusted here"))
            .next(format!("put the registry's authority, as its start-registry prints it, into {authority}")),
        Seen::OtherName(names) => {
            let mut finding = problem(format!("the certificate of {host} is for another name"));
            if !names.is_empty() {
                finding = finding.why(format!("it is for {names}"));
            }
            finding.next("use a name that it is for; or there: moorage start-registry with a --name for each")
        }
        Seen::Expired => problem(format!("the certificate of {host} has expired"))
            .why("or the clock of this host is wrong")
            .next("there: moorage start-registry, which renews it"),
        Seen::NotYetValid => problem(format!("the certificate of {host} is not valid yet"))
            .why("the clock of this host, or of the registry's, is wrong")
            .next("date; there: date"),
        Seen::PlainHttp => problem(format!("{host} speaks plain HTTP and no TLS"))
            .why("whoever is on the way could change what is pulled; neither Docker nor moorage takes that")
            .next("there: moorage start-registry, which has TLS; or name the port that has it"),
        Seen::NoRegistry(status) => problem(format!("what answers at {host} is no registry"))
            .why(format!("it says {status} to /v2/"))
            .next("see that name and port are right; there: moorage show-registry"),
        Seen::Other(words) => {
            problem(format!("{host} cannot be used")).why(words).next(format!("curl -v https://{host}/v2/"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_words_and_its_own_remedy() {
        let all = [
            Seen::Answers(None),
            Seen::Answers(Some("ann".into())),
            Seen::WantsLogin,
            Seen::LoginRefused("ann".into()),
            Seen::UnknownName,
            Seen::NoRoute("Network is unreachable".into()),
            Seen::Refused,
            Seen::Silent,
            Seen::UnknownAuthority,
            Seen::OtherName("a.corp, localhost".into()),
            Seen::Expired,
            Seen::NotYetValid,
            Seen::PlainHttp,
            Seen::NoRegistry(404),
            Seen::Other("what".into()),
        ];
        let findings: Vec<Finding> = all.into_iter().map(|seen| judge("registry.corp:5000", seen)).collect();
        let mut texts = std::collections::BTreeSet::new();
        for finding in &findings {
            assert!(texts.insert(finding.what.clone()), "{finding:?} is not told apart");
            assert!(finding.next.is_some() || finding.level == crate::report::Level::Ok, "{finding:?}");
        }
        insta::assert_debug_snapshot!(findings);
    }
}
