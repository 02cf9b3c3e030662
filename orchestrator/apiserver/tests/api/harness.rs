//! A server on an in-memory store, and requests to it.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, StatusCode};
use kube::client::Body;
use moorline_apiserver::{ApiServer, Config};
use moorline_store::{MemoryStore, Store};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// Everything a test waits for has to happen within this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    pub(crate) server: ApiServer,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) stop: CancellationToken,
    pub(crate) dir: TempDir,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    /// The body, or null if it is no JSON.
    pub(crate) json: Value,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Server::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(adjust: impl FnOnce(&mut Config)) -> Self {
        Server::start_on(Arc::new(MemoryStore::new()), adjust).await
    }

    pub(crate) async fn start_on(store: Arc<dyn Store>, adjust: impl FnOnce(&mut Config)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::new(dir.path().join("pki"));
        adjust(&mut config);
        let stop = CancellationToken::new();
        let server = ApiServer::start(config, Arc::clone(&store), stop.clone())
            .await
            .unwrap();
        Server {
            server,
            store,
            stop,
            dir,
        }
    }

    /// A client that may do everything.
    pub(crate) fn admin(&self) -> kube::Client {
        self.server.client("admin", &["system:masters"])
    }

    /// A client over TLS, with the administrator's certificate.
    pub(crate) async fn tls_client(&self) -> kube::Client {
        let kubeconfig = kube::config::Kubeconfig::from_yaml(&self.server.admin_kubeconfig()).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default())
            .await
            .unwrap();
        kube::Client::try_from(config).unwrap()
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Reply {
        send(&self.admin(), request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn write(&self, method: Method, path: &str, content_type: &str, body: &Value) -> Reply {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type);
        self.send(request.body(Body::from(body.to_string().into_bytes())).unwrap())
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.write(Method::POST, path, "application/json", body).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.write(Method::PUT, path, "application/json", body).await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Reply {
        self.write(Method::PATCH, path, "application/merge-patch+json", body)
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Reply {
        self.send(Request::delete(path).body(Body::empty()).unwrap())
            .await
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, what: &str, is_wanted: impl Fn(&Reply) -> bool) -> Reply {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let reply = self.get(path).await;
            if is_wanted(&reply) {
                return reply;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{path}: waited for {what}, last seen {reply:?}"
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Stops and waits until nothing runs any more.
    pub(crate) async fn shut_down(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.server.stopped())
            .await
            .unwrap();
    }
}

pub(crate) async fn send(client: &kube::Client, request: Request<Body>) -> Reply {
    let answer = client.send(request).await.unwrap();
    let (parts, body) = answer.into_parts();
    let bytes = body.collect_bytes().await.unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    Reply {
        code: parts.status,
        headers: parts.headers,
        json: serde_json::from_str(&text).unwrap_or_default(),
        text,
    }
}

/// Puts the reason for not running a test where CI counts it.
pub(crate) fn skipped(test: &str, reason: &str) {
    writeln!(std::io::stderr(), "skipped: {test}: {reason}").unwrap();
}

pub(crate) fn config_map(name: &str) -> Value {
    serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

pub(crate) fn claim(name: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": "fast"},
    })
}

pub(crate) fn pod(name: &str) -> Value {
    serde_json::json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "moorline.local/host"}]},
    })
}
