//! Issues keys and certificates, and says whether an existing pair can stay in use.

use std::collections::BTreeSet;
use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::KeyAndCertificate;

/// How long certificates live: the authority ten years, all others one.
const AUTHORITY_YEARS: i16 = 10;
const LEAF_YEARS: i16 = 1;
/// A certificate with less than this left is issued again at start.
const RENEW_BEFORE_DAYS: i64 = 60;

/// What a certificate is for.
#[derive(Debug, Clone)]
pub(super) struct Purpose {
    pub(super) common_name: String,
    pub(super) organizations: Vec<String>,
    pub(super) usage: Usage,
    pub(super) dns_names: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Usage {
    Server,
    Client,
}

/// Makes the certificate authority.
pub(super) fn authority(cluster_name: &str, now: Timestamp) -> Result<KeyAndCertificate, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&format!("{cluster_name}-ca"), &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    set_lifetime(&mut params, now, AUTHORITY_YEARS);
    let certificate = params.self_signed(&key)?;
    Ok(KeyAndCertificate {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

/// Issues a certificate signed by the authority.
pub(super) fn leaf(
    authority: &KeyAndCertificate,
    purpose: &Purpose,
    now: Timestamp,
) -> Result<KeyAndCertificate, rcgen::Error> {
    let issuer =
        Issuer::from_ca_cert_pem(&authority.certificate_pem, KeyPair::from_pem(&authority.key_pem)?)?;
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(&purpose.common_name, &purpose.organizations);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match purpose.usage {
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
    }];
    for name in &purpose.dns_names {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into()?));
    }
    params
        .subject_alt_names
        .extend(purpose.addresses.iter().copied().map(SanType::IpAddress));
    set_lifetime(&mut params, now, LEAF_YEARS);
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(KeyAndCertificate {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

/// What is to be done with a pair found on disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It serves its purpose.
    Keep,
    /// It is whole, but near its end, of another authority, or for other names.
    Renew(&'static str),
}

/// Looks whether a pair is whole and still serves.
///
/// # Errors
/// Says in words what is damaged.
pub(super) fn inspect(
    pair: &KeyAndCertificate,
    authority_pem: &str,
    purpose: Option<&Purpose>,
    now: Timestamp,
) -> Result<Verdict, String> {
    let key = KeyPair::from_pem(&pair.key_pem).map_err(|error| format!("the key cannot be read: {error}"))?;
    let der = der(&pair.certificate_pem)?;
    let certificate = parse(&der)?;
    if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
        return Err("the key does not belong to the certificate".to_owned());
    }
    let ends = certificate.validity().not_after.timestamp();
    if ends - now.as_second() < RENEW_BEFORE_DAYS * 86_400 {
        return Ok(Verdict::Renew("it ends soon"));
    }
    let Some(purpose) = purpose else {
        return Ok(Verdict::Keep);
    };
    let authority_der = self::der(authority_pem)?;
    if key_identifier(&parse(&authority_der)?) != issuer_identifier(&certificate) {
        return Ok(Verdict::Renew("another authority signed it"));
    }
    if !names(&certificate).is_superset(&wanted_names(purpose)) {
        return Ok(Verdict::Renew("it lacks a name"));
    }
    Ok(Verdict::Keep)
}

pub(super) fn der(pem: &str) -> Result<Vec<u8>, String> {
    use rustls_pki_types::{CertificateDer, pem::PemObject};
    let der = CertificateDer::from_pem_slice(pem.as_bytes());
    der.map(|der| der.to_vec())
        .map_err(|error| format!("the certificate cannot be read: {error}"))
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, String> {
    let parsed = X509Certificate::from_der(der);
    parsed
        .map(|(_, certificate)| certificate)
        .map_err(|error| format!("the certificate cannot be read: {error}"))
}

fn key_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
            _ => None,
        })
}

fn issuer_identifier(certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(id) => {
                id.key_identifier.as_ref().map(|id| id.0.to_vec())
            }
            _ => None,
        })
}

fn names(certificate: &X509Certificate<'_>) -> BTreeSet<Vec<u8>> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else {
        return BTreeSet::new();
    };
    let names = extension
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.as_bytes().to_vec()),
            GeneralName::IPAddress(bytes) => Some(bytes.to_vec()),
            _ => None,
        });
    names.collect()
}

fn wanted_names(purpose: &Purpose) -> BTreeSet<Vec<u8>> {
    let dns = purpose.dns_names.iter().map(|name| name.as_bytes().to_vec());
    let addresses = purpose.addresses.iter().map(|address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    });
    dns.chain(addresses).collect()
}

fn subject(common_name: &str, organizations: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    for organization in organizations {
        name.push(DnType::OrganizationName, organization.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}

/// Starts a day early, so that a client whose clock is a little behind accepts the certificate at once.
fn set_lifetime(params: &mut CertificateParams, now: Timestamp, years: i16) {
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let from = today.yesterday().unwrap_or(today);
    // Day 28 exists in each month, also in the February of another year.
    let day = |date: jiff::civil::Date| u8::try_from(date.day().min(28)).unwrap_or(1);
    let month = |date: jiff::civil::Date| u8::try_from(date.month()).unwrap_or(1);
    params.not_before = rcgen::date_time_ymd(i32::from(from.year()), month(from), day(from));
    params.not_after = rcgen::date_time_ymd(i32::from(today.year() + years), month(today), day(today));
}
