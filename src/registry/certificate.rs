//! The registry's own authority, and the certificate that it gives the servers (RFC 5280).

use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use x509_parser::extensions::GeneralName;
use x509_parser::pem::Pem;

use super::name::Name;

const DAY: u64 = 24 * 60 * 60;
/// How long the authority is valid: every client host has to be told of another one.
const AUTHORITY: u64 = 20 * 365 * DAY;
/// How long a certificate of the servers is valid.
const SERVER: u64 = 730 * DAY;
/// How long before its end a certificate is replaced.
const RENEW: u64 = 60 * DAY;
/// How much a client's clock may be behind.
const BEHIND: u64 = DAY;
/// Where the servers themselves are asked whether they answer.
pub const SELF: &str = "localhost";

/// A certificate and its private key, both in PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// Makes an authority for the registry called `name`.
pub fn authority(name: &Name, now: Timestamp) -> Result<Pair> {
    let mut params = params(&format!("moorage registry {name}"), now, AUTHORITY)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate().context("make the authority's key")?;
    let certificate = params.self_signed(&key).context("make the authority's certificate")?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

/// Makes a certificate of `authority` for `names` and for [`SELF`].
pub fn server(authority: &Pair, names: &[Name], now: Timestamp) -> Result<Pair> {
    let signer = KeyPair::from_pem(&authority.key).context("read the authority's key")?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, signer).context("read the authority")?;
    let first = names.first().map_or(SELF, Name::as_str);
    // A common name has at most 64 characters (RFC 5280, A.1); clients look at the other names only.
    let mut params = params(first.get(..64).unwrap_or(first), now, SERVER)?;
    for name in names {
        params.subject_alt_names.push(match name.address() {
            Some(address) => SanType::IpAddress(address.into()),
            None => SanType::DnsName(name.as_str().try_into().context("a DNS name")?),
        });
    }
    if names.iter().all(|name| name.as_str() != SELF) {
        params.subject_alt_names.push(SanType::DnsName(SELF.try_into().context("a DNS name")?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().context("make the servers' key")?;
    let certificate = params.signed_by(&key, &issuer).context("make the servers' certificate")?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

fn params(name: &str, now: Timestamp, seconds: u64) -> Result<CertificateParams> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let now = u64::try_from(now.as_second()).context("this host's clock is before 1970")?;
    let mut params = CertificateParams::default();
    params.not_before = epoch + Duration::from_secs(now.saturating_sub(BEHIND));
    params.not_after = epoch + Duration::from_secs(now + seconds);
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}

/// What a certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub end: Timestamp,
    /// Its DNS names and addresses, sorted.
    pub names: Vec<String>,
}

/// Reads a certificate in PEM.
pub fn read(certificate: &str) -> Result<Facts> {
    let pem = parse(certificate)?;
    let x509 = pem.parse_x509().context("read the certificate")?;
    let end = Timestamp::from_second(x509.validity().not_after.timestamp()).context("its end")?;
    let mut names = Vec::new();
    for name in x509.subject_alternative_name()?.map(|names| &names.value.general_names).into_iter().flatten()
    {
        match name {
            GeneralName::DNSName(name) => names.push((*name).to_owned()),
            GeneralName::IPAddress([a, b, c, d]) => {
                names.push(std::net::Ipv4Addr::new(*a, *b, *c, *d).to_string());
            }
            _ => {}
        }
    }
    names.sort();
    Ok(Facts { end, names })
}

/// The bytes of a certificate, as a server shows it.
pub fn der(certificate: &str) -> Result<Vec<u8>> {
    Ok(parse(certificate)?.contents)
}

fn parse(certificate: &str) -> Result<Pem> {
    let (pem, _) =
        Pem::read(std::io::Cursor::new(certificate)).map_err(|e| anyhow!("no certificate: {e}"))?;
    Ok(pem)
}

/// Whether `pair` can go on serving `names`: its key fits, `authority` has signed it, and its end is far.
pub fn serves(pair: &Pair, authority: &Pair, names: &[Name], now: Timestamp) -> bool {
    let check = || -> Result<bool> {
        let facts = read(&pair.certificate)?;
        let (pem, above) = (parse(&pair.certificate)?, parse(&authority.certificate)?);
        let (x509, above) = (pem.parse_x509()?, above.parse_x509()?);
        let key = KeyPair::from_pem(&pair.key)?;
        let mut wanted: Vec<&str> = names.iter().map(Name::as_str).chain([SELF]).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let left = facts.end.as_second() - now.as_second();
        Ok(facts.names == wanted
            && left > RENEW.cast_signed()
            && x509.public_key().subject_public_key.data.as_ref() == key.public_key_raw()
            && x509.verify_signature(Some(above.public_key())).is_ok())
    };
    check().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(of: &[&str]) -> Vec<Name> {
        of.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_certificate_is_for_its_names_and_ends() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let names = names(&["registry.corp", "10.0.0.5"]);
        let authority = authority(&names[0], now).unwrap();
        let pair = server(&authority, &names, now).unwrap();
        let facts = read(&pair.certificate).unwrap();
        assert_eq!(facts.names, ["10.0.0.5", "localhost", "registry.corp"]);
        assert_eq!(facts.end.to_string(), "2028-01-01T00:00:00Z");
        assert_eq!(read(&authority.certificate).unwrap().end.to_string(), "2045-12-27T00:00:00Z");
    }

    #[test]
    fn a_certificate_serves_until_something_is_different() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let one = names(&["registry.corp", "localhost"]);
        let (ours, other) = (authority(&one[0], now).unwrap(), authority(&one[0], now).unwrap());
        let pair = server(&ours, &one, now).unwrap();
        assert!(serves(&pair, &ours, &one, now));
        assert!(serves(&pair, &ours, &names(&["registry.corp"]), now), "localhost is always in it");
        assert!(!serves(&pair, &other, &one, now), "another authority of the same name");
        assert!(!serves(&pair, &ours, &names(&["registry.corp", "10.0.0.5"]), now), "another name");
        let foreign = Pair { key: other.key.clone(), ..pair.clone() };
        assert!(!serves(&foreign, &ours, &one, now), "another key");
        let late: Timestamp = "2027-11-15T00:00:00Z".parse().unwrap();
        assert!(!serves(&pair, &ours, &one, late), "its end is near");
        let damaged = Pair { certificate: "-----BEGIN".into(), ..pair };
        assert!(!serves(&damaged, &ours, &one, now));
    }
}
