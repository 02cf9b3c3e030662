//! The cluster's keys and certificates: made at first start, kept in one directory, completed when something is missing.
//!
//! | file | what |
//! | --- | --- |
//! | `ca.crt`, `ca.key` | the authority that signs all others |
//! | `apiserver.crt`, `.key` | the server's own certificate |
//! | `admin.crt`, `.key` | client certificate of the group `system:masters` |
//! | `apiserver-kubelet-client.crt`, `.key` | what the server shows to kubelets |
//! | `kubelet.crt`, `.key` | the certificate the local kubelet serves with |
//! | `sa.key` | signs ServiceAccount tokens |

mod files;
mod issue;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rcgen::KeyPair;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use issue::{Purpose, Usage, Verdict};

/// The group whose members may do everything.
pub(crate) const MASTERS: &str = "system:masters";

/// Why there is no usable PKI. All of these need somebody to act.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file is there but cannot be read.
    #[error("read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("write {path}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file's content is not what it should be. It is never replaced silently: clients may rely on it.
    #[error("{path} is damaged: {reason}; restore it, or remove it with its partner to have it made anew")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A key or certificate could not be made.
    #[error("issue {what}")]
    Issue {
        /// The file name without ending.
        what: &'static str,
        /// What the certificate library said.
        source: rcgen::Error,
    },
    /// The TLS library refuses the material.
    #[error("set up TLS: {0}")]
    Tls(String),
}

/// A private key and the certificate that belongs to it, both as PEM.
#[derive(Clone)]
pub struct KeyAndCertificate {
    /// The certificate.
    pub certificate_pem: String,
    /// The private key in PKCS#8.
    pub key_pem: String,
}

impl std::fmt::Debug for KeyAndCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyAndCertificate")
            .field("certificate_pem", &self.certificate_pem)
            .finish_non_exhaustive()
    }
}

/// The names and addresses under which the server and the local node are reached.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// Further DNS names of the server.
    pub server_dns_names: Vec<String>,
    /// Further addresses of the server.
    pub server_addresses: Vec<IpAddr>,
    /// Name of the local node.
    pub node_name: Option<String>,
    /// Addresses of the local node.
    pub node_addresses: Vec<IpAddr>,
}

/// All keys and certificates of the cluster.
#[derive(Debug, Clone)]
pub struct Pki {
    authority: KeyAndCertificate,
    server: KeyAndCertificate,
    admin: KeyAndCertificate,
    kubelet_client: KeyAndCertificate,
    kubelet_serving: KeyAndCertificate,
    service_account_key_pem: ServiceAccountKey,
}

/// The PEM of the key that signs tokens; without `Debug` output of its content.
#[derive(Clone)]
struct ServiceAccountKey(String);

impl std::fmt::Debug for ServiceAccountKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServiceAccountKey(..)")
    }
}

impl Pki {
    /// Reads what is in `dir`, makes what is missing or near its end, and refuses what is damaged.
    ///
    /// # Errors
    /// See [`PkiError`]; nothing that exists was replaced then, but missing files may have been made.
    pub fn open(dir: &Path, cluster_name: &str, names: &Names, now: Timestamp) -> Result<Pki, PkiError> {
        files::make_dir(dir)?;
        let authority = open_authority(dir, cluster_name, now)?;
        let leaf = |name, purpose| open_leaf(dir, name, &authority, &purpose, now);
        Ok(Pki {
            server: leaf("apiserver", server_purpose(names))?,
            admin: leaf("admin", client_purpose("kubernetes-admin", MASTERS))?,
            kubelet_client: leaf(
                "apiserver-kubelet-client",
                client_purpose("kube-apiserver-kubelet-client", MASTERS),
            )?,
            kubelet_serving: leaf("kubelet", kubelet_purpose(names))?,
            service_account_key_pem: ServiceAccountKey(open_signing_key(dir)?),
            authority,
        })
    }

    /// The certificate of the authority, PEM. Everybody may know it.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.authority.certificate_pem
    }

    /// The administrator's client certificate.
    #[must_use]
    pub fn admin(&self) -> &KeyAndCertificate {
        &self.admin
    }

    /// What the local kubelet serves with. Its clients are checked against [`Pki::ca_pem`].
    #[must_use]
    pub fn kubelet_serving(&self) -> &KeyAndCertificate {
        &self.kubelet_serving
    }

    /// The client certificate with which the server asks kubelets.
    #[must_use]
    pub fn kubelet_client(&self) -> &KeyAndCertificate {
        &self.kubelet_client
    }

    /// The key that signs ServiceAccount tokens, PKCS#8 PEM.
    pub(crate) fn service_account_key_pem(&self) -> &str {
        &self.service_account_key_pem.0
    }

    /// TLS for the server: a client certificate is asked for, not demanded.
    pub(crate) fn server_tls(&self) -> Result<rustls::ServerConfig, PkiError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(self.roots()?), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| PkiError::Tls(error.to_string()))?;
        let (chain, key) = tls_parts(&self.server)?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| PkiError::Tls(error.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| PkiError::Tls(error.to_string()))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    /// TLS towards kubelets.
    pub(crate) fn kubelet_client_tls(&self) -> Result<rustls::ClientConfig, PkiError> {
        let (chain, key) = tls_parts(&self.kubelet_client)?;
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| PkiError::Tls(error.to_string()))?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(chain, key)
            .map_err(|error| PkiError::Tls(error.to_string()))
    }

    fn roots(&self) -> Result<rustls::RootCertStore, PkiError> {
        let mut roots = rustls::RootCertStore::empty();
        let der = issue::der(&self.authority.certificate_pem).map_err(PkiError::Tls)?;
        roots
            .add(CertificateDer::from(der))
            .map_err(|error| PkiError::Tls(error.to_string()))?;
        Ok(roots)
    }
}

fn tls_parts(
    pair: &KeyAndCertificate,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let chain = issue::der(&pair.certificate_pem).map_err(PkiError::Tls)?;
    let key = PrivateKeyDer::from_pem_slice(pair.key_pem.as_bytes());
    let key = key.map_err(|error| PkiError::Tls(error.to_string()))?;
    Ok((vec![CertificateDer::from(chain)], key))
}

fn server_purpose(names: &Names) -> Purpose {
    let mut dns_names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
    ]
    .into_iter()
    .chain(["kubernetes.default.svc.cluster.local"])
    .map(str::to_owned)
    .collect();
    dns_names.extend(names.server_dns_names.iter().cloned());
    let mut addresses = vec![
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
        IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)),
    ];
    addresses.extend(&names.server_addresses);
    Purpose {
        dns_names,
        addresses,
        ..purpose("kube-apiserver", Usage::Server)
    }
}

fn kubelet_purpose(names: &Names) -> Purpose {
    let mut dns_names = vec!["localhost".to_owned()];
    dns_names.extend(names.node_name.iter().map(|name| name.to_lowercase()));
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    addresses.extend(&names.node_addresses);
    let common_name = format!(
        "system:node:{}",
        names.node_name.as_deref().unwrap_or("localhost")
    );
    let organizations = vec!["system:nodes".to_owned()];
    Purpose {
        dns_names,
        addresses,
        organizations,
        ..purpose(&common_name, Usage::Server)
    }
}

fn client_purpose(common_name: &str, organization: &str) -> Purpose {
    Purpose {
        organizations: vec![organization.to_owned()],
        ..purpose(common_name, Usage::Client)
    }
}

fn purpose(common_name: &str, usage: Usage) -> Purpose {
    Purpose {
        common_name: common_name.to_owned(),
        organizations: Vec::new(),
        usage,
        dns_names: Vec::new(),
        addresses: Vec::new(),
    }
}

fn open_authority(dir: &Path, cluster_name: &str, now: Timestamp) -> Result<KeyAndCertificate, PkiError> {
    let (certificate, key) = (dir.join("ca.crt"), dir.join("ca.key"));
    let pair = match (files::read(&certificate)?, files::read(&key)?) {
        (Some(certificate_pem), Some(key_pem)) => KeyAndCertificate {
            certificate_pem,
            key_pem,
        },
        // A crash between the two writes leaves the key alone: nothing was signed with it yet.
        (None, _) => {
            let made = issue::authority(cluster_name, now);
            return store(
                dir,
                "ca",
                made.map_err(|source| PkiError::Issue { what: "ca", source })?,
            );
        }
        (Some(_), None) => {
            let reason = "it is missing, and the certificate next to it is in use".to_owned();
            return Err(PkiError::Damaged { path: key, reason });
        }
    };
    match issue::inspect(&pair, &pair.certificate_pem, None, now) {
        Ok(Verdict::Keep | Verdict::Renew(_)) => Ok(pair),
        Err(reason) => Err(PkiError::Damaged {
            path: certificate,
            reason,
        }),
    }
}

fn open_leaf(
    dir: &Path,
    name: &'static str,
    authority: &KeyAndCertificate,
    purpose: &Purpose,
    now: Timestamp,
) -> Result<KeyAndCertificate, PkiError> {
    let certificate = dir.join(format!("{name}.crt"));
    let found = (
        files::read(&certificate)?,
        files::read(&dir.join(format!("{name}.key")))?,
    );
    if let (Some(certificate_pem), Some(key_pem)) = found {
        let pair = KeyAndCertificate {
            certificate_pem,
            key_pem,
        };
        match issue::inspect(&pair, &authority.certificate_pem, Some(purpose), now) {
            Ok(Verdict::Keep) => return Ok(pair),
            Ok(Verdict::Renew(why)) => tracing::info!(name, why, "a certificate is issued anew"),
            Err(reason) => {
                return Err(PkiError::Damaged {
                    path: certificate,
                    reason,
                });
            }
        }
    }
    let made = issue::leaf(authority, purpose, now);
    store(
        dir,
        name,
        made.map_err(|source| PkiError::Issue { what: name, source })?,
    )
}

/// The key is written first: a certificate on disk always has its key.
fn store(dir: &Path, name: &str, pair: KeyAndCertificate) -> Result<KeyAndCertificate, PkiError> {
    // Removed first, so that a crash in between leaves no certificate with another key.
    let certificate = dir.join(format!("{name}.crt"));
    if let Err(source) = std::fs::remove_file(&certificate)
        && source.kind() != std::io::ErrorKind::NotFound
    {
        return Err(PkiError::Write {
            path: certificate,
            source,
        });
    }
    files::write(&dir.join(format!("{name}.key")), &pair.key_pem, 0o600)?;
    files::write(&certificate, &pair.certificate_pem, 0o644)?;
    Ok(pair)
}

fn open_signing_key(dir: &Path) -> Result<String, PkiError> {
    let path = dir.join("sa.key");
    let Some(pem) = files::read(&path)? else {
        let key = KeyPair::generate().map_err(|source| PkiError::Issue { what: "sa", source })?;
        let pem = key.serialize_pem();
        files::write(&path, &pem, 0o600)?;
        return Ok(pem);
    };
    match KeyPair::from_pem(&pem) {
        Ok(_) => Ok(pem),
        Err(error) => Err(PkiError::Damaged {
            path,
            reason: error.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests;
