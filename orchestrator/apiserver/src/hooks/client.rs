//! Calls webhooks over HTTPS. Connections are kept and used again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Kept for the next call, of each webhook.
const IDLE_MAX: usize = 16;
/// A kept connection is not used after this.
const IDLE_FOR: Duration = Duration::from_secs(90);
/// Authorities that were read before are forgotten beyond so many.
const AUTHORITIES_MAX: usize = 256;
const ANSWER_BYTES_MAX: usize = 10 * 1024 * 1024;
/// So much of a failing webhook's answer is told.
const TOLD_BYTES_MAX: usize = 2048;
/// Where systems keep the authorities they trust.
const SYSTEM_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Whom to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// As the URL names it: `host:port`, or the host alone.
    pub(crate) authority: String,
    /// What to connect to.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whom the certificate has to be for.
    pub(crate) server_name: String,
    /// PEM of the authority that has to have signed it; empty: those the system trusts.
    pub(crate) authorities: Arc<str>,
}

/// Why a call led to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("unable to load root certificates: {0}")]
    Authorities(String),
    #[error("{0:?} is no name of a server")]
    ServerName(String),
    #[error("Post {url:?}: dial tcp {address}: {source}")]
    Dial {
        url: String,
        address: String,
        source: std::io::Error,
    },
    #[error("Post {url:?}: tls: {source}")]
    Tls { url: String, source: std::io::Error },
    #[error("Post {url:?}: {source}")]
    Http { url: String, source: hyper::Error },
    #[error("Post {url:?}: read the answer: {why}")]
    Body { url: String, why: String },
    #[error("Post {url:?}: context deadline exceeded")]
    Timeout { url: String },
    #[error("the server could not find the requested resource")]
    NotFound,
    #[error("an error on the server ({told:?}) has prevented the request from succeeding")]
    Status { told: String },
}

/// Same address, name and authority: the same connections.
type Key = (String, u16, String, Arc<str>);

struct Idle {
    sender: SendRequest<Full<Bytes>>,
    since: Instant,
}

/// Calls webhooks.
pub(crate) struct Client {
    idle: Mutex<HashMap<Key, Vec<Idle>>>,
    connectors: Mutex<HashMap<Arc<str>, TlsConnector>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    pub(crate) fn new() -> Self {
        Client {
            idle: Mutex::default(),
            connectors: Mutex::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// Ends all connections.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.idle.lock().clear();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Posts JSON, and gives the body of the answer.
    pub(crate) async fn post(
        &self,
        to: &Target,
        path: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, CallError> {
        let url = format!("https://{}{path}", to.authority);
        let call = self.call(to, &url, path, body);
        match tokio::time::timeout(timeout, call).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CallError::Timeout { url }),
        }
    }

    async fn call(&self, to: &Target, url: &str, path: &str, body: Bytes) -> Result<Bytes, CallError> {
        let key = key(to);
        // A kept connection may have been closed by the other side meanwhile.
        while let Some(mut sender) = self.take(&key) {
            match sender.send_request(request(to, path, &body)).await {
                Ok(answer) => return self.finish(key, sender, url, answer).await,
                Err(error) if error.is_canceled() || error.is_closed() || error.is_incomplete_message() => {}
                Err(source) => {
                    return Err(CallError::Http {
                        url: url.to_owned(),
                        source,
                    });
                }
            }
        }
        let mut sender = self.connect(to, url).await?;
        let answer = sender.send_request(request(to, path, &body)).await;
        let answer = answer.map_err(|source| CallError::Http {
            url: url.to_owned(),
            source,
        })?;
        self.finish(key, sender, url, answer).await
    }

    fn take(&self, key: &Key) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock();
        let kept = idle.get_mut(key)?;
        kept.retain(|one| !one.sender.is_closed() && one.since.elapsed() < IDLE_FOR);
        let found = kept.pop().map(|one| one.sender);
        if kept.is_empty() {
            idle.remove(key);
        }
        found
    }

    /// Reads the answer and keeps the connection.
    async fn finish(
        &self,
        key: Key,
        mut sender: SendRequest<Full<Bytes>>,
        url: &str,
        answer: http::Response<hyper::body::Incoming>,
    ) -> Result<Bytes, CallError> {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| CallError::Body {
            url: url.to_owned(),
            why: error.to_string(),
        })?;
        let body = body.to_bytes();
        if sender.ready().await.is_ok() && !self.stop.is_cancelled() {
            let mut idle = self.idle.lock();
            let kept = idle.entry(key).or_default();
            if kept.len() < IDLE_MAX {
                kept.push(Idle {
                    sender,
                    since: Instant::now(),
                });
            }
        }
        match status {
            status if status.is_success() => Ok(body),
            StatusCode::NOT_FOUND => Err(CallError::NotFound),
            _ => {
                let told = String::from_utf8_lossy(&body[..body.len().min(TOLD_BYTES_MAX)])
                    .trim()
                    .to_owned();
                let told = if told.is_empty() { status.to_string() } else { told };
                Err(CallError::Status { told })
            }
        }
    }

    async fn connect(&self, to: &Target, url: &str) -> Result<SendRequest<Full<Bytes>>, CallError> {
        let connector = self.connector(&to.authorities)?;
        let name = ServerName::try_from(to.server_name.clone());
        let name = name.map_err(|_| CallError::ServerName(to.server_name.clone()))?;
        let address = format!("{}:{}", to.host, to.port);
        let dial = |source| CallError::Dial {
            url: url.to_owned(),
            address: address.clone(),
            source,
        };
        let host = to.host.trim_start_matches('[').trim_end_matches(']');
        let tcp = TcpStream::connect((host, to.port)).await.map_err(dial)?;
        tcp.set_nodelay(true).map_err(dial)?;
        let tls = connector.connect(name, tcp).await;
        let tls = tls.map_err(|source| CallError::Tls {
            url: url.to_owned(),
            source,
        })?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls))
            .await
            .map_err(|source| CallError::Http {
                url: url.to_owned(),
                source,
            })?;
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            if let Some(Err(error)) = stop.run_until_cancelled(connection).await {
                tracing::debug!(%error, "A connection to a webhook ended early.");
            }
        });
        Ok(sender)
    }

    fn connector(&self, authorities: &Arc<str>) -> Result<TlsConnector, CallError> {
        if let Some(known) = self.connectors.lock().get(authorities) {
            return Ok(known.clone());
        }
        let config =
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .map_err(|error| CallError::Authorities(error.to_string()))?
                .with_root_certificates(roots(authorities)?)
                .with_no_client_auth();
        let connector = TlsConnector::from(Arc::new(config));
        let mut connectors = self.connectors.lock();
        if connectors.len() >= AUTHORITIES_MAX {
            connectors.clear();
        }
        connectors.insert(Arc::clone(authorities), connector.clone());
        Ok(connector)
    }
}

fn key(to: &Target) -> Key {
    (
        to.host.clone(),
        to.port,
        to.server_name.clone(),
        Arc::clone(&to.authorities),
    )
}

fn request(to: &Target, path: &str, body: &Bytes) -> Request<Full<Bytes>> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(path)
        .header(header::HOST, &to.authority)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::ACCEPT, "application/json, */*")
        .header(header::USER_AGENT, "kube-apiserver-admission");
    // Path and host were checked when the webhook was read.
    request.body(Full::new(body.clone())).unwrap_or_default()
}

fn roots(authorities: &str) -> Result<rustls::RootCertStore, CallError> {
    let mut roots = rustls::RootCertStore::empty();
    let failed = |why: String| CallError::Authorities(why);
    if !authorities.is_empty() {
        for certificate in CertificateDer::pem_slice_iter(authorities.as_bytes()) {
            let certificate = certificate.map_err(|error| failed(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| failed(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(failed("the bundle has no certificate".to_owned()));
        }
        return Ok(roots);
    }
    let found = SYSTEM_BUNDLES.iter().find_map(|path| std::fs::read(path).ok());
    let found = found.ok_or_else(|| failed("this system has no bundle of them".to_owned()))?;
    // Those that can't be read are of no use to anybody.
    let certificates = CertificateDer::pem_slice_iter(&found).filter_map(Result::ok);
    roots.add_parsable_certificates(certificates);
    Ok(roots)
}
