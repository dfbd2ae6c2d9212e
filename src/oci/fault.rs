//! What a registry's errors mean to a person.

use oci_client::errors::{OciDistributionError as Error, OciErrorCode};

use crate::report::{Fault, Kind};

/// `doing` names the object: "fetch registry.corp/opt/siem:9.2".
pub fn fault(error: Error, doing: &str, host: &str) -> Fault {
    let status = status(&error);
    let said = |code: fn(&OciErrorCode) -> bool| match &error {
        Error::RegistryError { envelope, .. } => envelope.errors.iter().any(|error| code(&error.code)),
        _ => false,
    };
    let denied = matches!(error, Error::UnauthorizedError { .. } | Error::AuthenticationFailure(_))
        || matches!(status, Some(401 | 403))
        || said(|code| matches!(code, OciErrorCode::Unauthorized | OciErrorCode::Denied));
    let absent = matches!(error, Error::ImageManifestNotFoundError(_))
        || status == Some(404)
        || said(|code| {
            use OciErrorCode::{BlobUnknown, ManifestUnknown, NameUnknown, NotFound};
            matches!(code, BlobUnknown | ManifestUnknown | NameUnknown | NotFound)
        });
    let why = words(error);
    if denied {
        return Fault::new(Kind::Denied, format!("cannot {doing}: {host} does not let us"))
            .why(why)
            .next(format!("docker login {host}; or ask the registry's admin for the right"));
    }
    if absent {
        return Fault::new(Kind::NotFound, format!("cannot {doing}: {host} does not have it"))
            .why(why)
            .next("see that the name and the tag are right, and that it was published");
    }
    let next = if why.contains("CaUsedAsEndEntity") {
        // What `openssl req -x509` makes of itself; Docker takes that, rustls does not.
        format!("give {host} a certificate that is not an authority's (basicConstraints=CA:FALSE)")
    } else if why.contains("certificate") {
        format!("put the registry's authority into /etc/docker/certs.d/{host}/ca.crt")
    } else {
        format!("see that the registry answers: curl -fsS https://{host}/v2/")
    };
    Fault::new(Kind::Failed, format!("cannot {doing}")).why(why).next(next)
}

/// Whether the same request may succeed a little later.
pub fn is_passing(error: &Error) -> bool {
    match error {
        Error::RequestError(e) if e.status().is_none() => true,
        Error::IoError(_) => true,
        _ => matches!(status(error), Some(408 | 429 | 500..)),
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::ServerError { code, .. } => Some(*code),
        Error::RequestError(e) => e.status().map(|status| status.as_u16()),
        _ => None,
    }
}

/// The error with its causes, as the registry said it.
fn words(error: Error) -> String {
    match error {
        Error::RegistryError { envelope, .. } => {
            let all: Vec<&str> = envelope.errors.iter().map(|error| error.message.as_str()).collect();
            all.join("; ")
        }
        Error::AuthenticationFailure(reason) => reason,
        other => format!("{:#}", anyhow::Error::new(other)),
    }
}
