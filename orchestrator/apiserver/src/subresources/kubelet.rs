//! The way to a node's kubelet: HTTPS with the server's client certificate.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_util::task::TaskTracker;

use crate::objects::tree;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PORT_DEFAULT: u16 = 10250;

/// Why a kubelet did not answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KubeletError {
    #[error("node {node:?} has no address yet")]
    NoAddress { node: String },
    #[error("connect to {address}")]
    Connect { address: String, source: std::io::Error },
    #[error("connect to {address}: no answer in time")]
    Timeout { address: String },
    #[error("ask {address}")]
    Http { address: String, source: hyper::Error },
}

/// Where a kubelet listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KubeletAddress {
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
}

impl KubeletAddress {
    /// The address in a node's status.
    pub(crate) fn of_node(node: &Value) -> Result<Self, KubeletError> {
        let address = |kind: &str| {
            let of_kind = |address: &&Value| tree::text(address, &["type"]) == kind;
            let found = tree::list(node, &["status", "addresses"]).iter().find(of_kind)?;
            tree::text(found, &["address"]).parse().ok()
        };
        let ip = address("InternalIP").or_else(|| address("ExternalIP"));
        let port =
            tree::at(node, &["status", "daemonEndpoints", "kubeletEndpoint", "Port"]).and_then(Value::as_u64);
        let port = port
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .unwrap_or(PORT_DEFAULT);
        let node = tree::text(node, &["metadata", "name"]).to_owned();
        ip.map(|ip| KubeletAddress { ip, port })
            .ok_or(KubeletError::NoAddress { node })
    }
}

/// Asks kubelets.
pub(crate) struct KubeletClient {
    tls: TlsConnector,
    /// What goes on after an answer.
    pub(super) tasks: TaskTracker,
}

impl KubeletClient {
    pub(crate) fn new(tls: rustls::ClientConfig, tasks: TaskTracker) -> Self {
        KubeletClient {
            tls: TlsConnector::from(Arc::new(tls)),
            tasks,
        }
    }

    /// `GET` of a path. The answer's body comes as the kubelet sends it.
    pub(crate) async fn get(
        &self,
        to: &KubeletAddress,
        path: &str,
    ) -> Result<Response<Incoming>, KubeletError> {
        self.upgrade(to, &Method::GET, path, HeaderMap::new()).await
    }

    /// A request that may be the beginning of another protocol.
    pub(crate) async fn upgrade(
        &self,
        to: &KubeletAddress,
        method: &Method,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Response<Incoming>, KubeletError> {
        let address = format!("{}:{}", to.ip, to.port);
        let connect = async {
            let tcp = TcpStream::connect((to.ip, to.port)).await?;
            tcp.set_nodelay(true)?;
            self.tls.connect(ServerName::IpAddress(to.ip.into()), tcp).await
        };
        let stream = match tokio::time::timeout(CONNECT_TIMEOUT, connect).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(source)) => return Err(KubeletError::Connect { address, source }),
            Err(_) => return Err(KubeletError::Timeout { address }),
        };
        let failed = |source| KubeletError::Http {
            address: address.clone(),
            source,
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        self.tasks.spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "A connection to a kubelet ended early.");
            }
        });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &address);
        let mut request = request.body(Empty::<Bytes>::new()).unwrap_or_default();
        request.headers_mut().extend(headers);
        sender.send_request(request).await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn addresses() {
        let node = |addresses: Value, port: Value| {
            json!({"metadata": {"name": "n"}, "status": {"addresses": addresses,
                "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}})
        };
        let internal =
            json!([{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "10.0.0.1"}]);
        let cases = [
            ("both", node(internal.clone(), json!(4000)), Some("10.0.0.1:4000")),
            ("no port", node(internal, Value::Null), Some("10.0.0.1:10250")),
            ("no address", node(json!([]), json!(1)), None),
        ];
        for (case, node, expected) in cases {
            let found = KubeletAddress::of_node(&node)
                .ok()
                .map(|found| format!("{}:{}", found.ip, found.port));
            assert_eq!(found.as_deref(), expected, "{case}");
        }
    }
}
