//! Which images and registries a person may name on this host. Pure.

use super::{denied, wrong};
use crate::report::{Fault, Kind};
use crate::site::host::HostConfig;

/// The registry host of an image reference, where it names one.
pub fn registry(image: &str) -> Option<&str> {
    let (first, _) = image.split_once('/')?;
    (first.contains(['.', ':']) || first == "localhost").then_some(first)
}

/// Refuses an image that no container of this host may be made of. What passes is safe in a path of the Engine's API.
pub fn image(image: &str, config: &HostConfig) -> Result<(), Fault> {
    if !is_reference(image) {
        let what = format!("{image:?} is not an image with its tag or digest");
        return Err(wrong(what).next("name it as in moorage/demo:latest"));
    }
    if image.starts_with(crate::engine::ROOTS) {
        let what = format!("{image} is the root filesystem of somebody's container");
        return Err(
            Fault::new(Kind::Denied, what).next("clone-container makes containers of it, for its owner")
        );
    }
    registry(image).map_or(Ok(()), |host| allowed(host, "images", config))
}

/// Whether snapshots may be kept in a registry, or come from it.
pub fn registry_of(reference: &crate::spec::Reference, config: &HostConfig) -> Result<(), Fault> {
    allowed(&reference.registry, "snapshots", config)
}

/// The daemon asks a registry with the host's own login, so an admin says which.
pub(super) fn allowed(host: &str, what: &str, config: &HostConfig) -> Result<(), Fault> {
    let of_images = config.registry.as_deref().and_then(|prefix| prefix.split('/').next());
    match of_images == Some(host) || config.registries.iter().any(|allowed| allowed == host) {
        true => Ok(()),
        false => {
            Err(denied(format!("{what} of the registry {host} are not allowed on this host"), "registries"))
        }
    }
}

/// `[host[:port]/]name[/name…]` with `:tag`, `@sha256:digest` or both. Not an image's id, which would go round the
/// registries; not a bare name, which means all tags when it is pulled.
fn is_reference(image: &str) -> bool {
    let word = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
    };
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let sha256 = |digest: &str| {
        let hex = digest.strip_prefix("sha256:").unwrap_or_default();
        hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit())
    };
    let host = registry(path);
    let port = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    let rest = host.map_or(path, |host| &path[host.len() + 1..]);
    image.len() <= 255
        && path != "sha256"
        && (tag.is_some() || digest.is_some())
        && tag.is_none_or(word)
        && digest.is_none_or(sha256)
        && host.is_none_or(|host| match host.split_once(':') {
            Some((host, number)) => word(host) && port(number),
            None => word(host),
        })
        && rest.split('/').all(word)
}
