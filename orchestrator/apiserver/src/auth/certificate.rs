//! The identity in a client certificate. Its signature was checked by the TLS layer.

use x509_parser::prelude::{FromDer, X509Certificate};

use super::User;

/// Common name is the user, each organisation a group. Nothing for a certificate without a name.
pub(crate) fn user(der: &[u8]) -> Option<User> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?;
    let groups = subject
        .iter_organization()
        .filter_map(|group| group.as_str().ok())
        .map(str::to_owned);
    (!name.is_empty()).then(|| User::authenticated(name, groups))
}
