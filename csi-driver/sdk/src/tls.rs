//! TLS for TCP endpoints, with certificates of callers where they are asked for.
//!
//! The files are read once, at the start: a process that shall use renewed ones is restarted.

use std::{fs, io, path::PathBuf, time::Duration};

use thiserror::Error;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// A caller that opens a connection and says nothing is dropped after this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// The files, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The driver's certificate and those between it and its authority.
    pub cert: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
    /// Who signs callers' certificates. Without it anybody who can connect may call.
    pub client_ca: Option<PathBuf>,
}

/// What the files say, ready to be used.
#[derive(Clone, Debug)]
pub struct Tls {
    pub(crate) config: ServerTlsConfig,
    pub(crate) asks_for_client_certificates: bool,
}

/// Why TLS can't be used.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// They are no PEM, or don't belong together.
    #[error("use certificate {} with key {}", files.cert.display(), files.key.display())]
    Unusable {
        /// The files.
        files: TlsFiles,
        /// Why not.
        #[source]
        source: tonic::transport::Error,
    },
}

impl TlsFiles {
    /// Reads the files and checks that they fit.
    ///
    /// # Errors
    /// When one can't be read, or they don't fit.
    pub fn load(&self) -> Result<Tls, TlsError> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|source| TlsError::Read {
                path: path.clone(),
                source,
            })
        };
        let identity = Identity::from_pem(read(&self.cert)?, read(&self.key)?);
        let mut config = ServerTlsConfig::new()
            .identity(identity)
            .timeout(HANDSHAKE_TIMEOUT);
        if let Some(client_ca) = &self.client_ca {
            config = config.client_ca_root(Certificate::from_pem(read(client_ca)?));
        }
        Server::builder()
            .tls_config(config.clone())
            .map_err(|source| TlsError::Unusable {
                files: self.clone(),
                source,
            })?;
        Ok(Tls {
            config,
            asks_for_client_certificates: self.client_ca.is_some(),
        })
    }
}
