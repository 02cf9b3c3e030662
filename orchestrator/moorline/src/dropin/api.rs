//! Clients of the API server: from a kubeconfig, a URL or the pod's account, throttled if asked, each request traced.

use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll};

use anyhow::Context as _;
use http::Request;
use kube::client::{Body, ClientBuilder};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use moorline_runtime::Throttle;
use tower::Service;

/// Where to find the API server, as upstream's programs decide: the file or URL that is given, else the pod's account.
///
/// # Errors
/// The file can't be read or used, the URL is none, or this is no pod.
pub(crate) async fn config(kubeconfig: Option<&Path>, master: Option<&str>) -> anyhow::Result<Config> {
    let mut config = match (kubeconfig, master) {
        (Some(path), _) => from_file(path).await?,
        (None, Some(master)) => Config::new(master.parse().with_context(|| format!("--master {master:?}"))?),
        (None, None) => Config::incluster()
            .context("use the pod's service account: outside of a pod, give --kubeconfig")?,
    };
    if let Some(master) = master {
        config.cluster_url = master.parse().with_context(|| format!("--master {master:?}"))?;
    }
    Ok(config)
}

/// The same, where a person calls: without a file, what kubectl would take.
///
/// # Errors
/// As [`config`].
pub(crate) async fn config_of_user(kubeconfig: Option<&Path>) -> anyhow::Result<Config> {
    match kubeconfig {
        Some(path) => from_file(path).await,
        None => Config::infer()
            .await
            .context("find a cluster: give --kubeconfig, or set KUBECONFIG"),
    }
}

async fn from_file(path: &Path) -> anyhow::Result<Config> {
    let kubeconfig =
        Kubeconfig::read_from(path).with_context(|| format!("read kubeconfig {}", path.display()))?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .context("use the kubeconfig")
}

/// A client whose requests wait for the throttle, if there is one.
///
/// # Errors
/// Certificates or proxies in the configuration can't be used.
pub(crate) fn client(config: Config, throttle: Option<Throttle>) -> anyhow::Result<Client> {
    let layer = tower::layer::layer_fn(move |inner| Throttled {
        inner,
        throttle: throttle.clone(),
    });
    let builder = ClientBuilder::try_from(config).context("connect to the cluster")?;
    Ok(builder.with_layer(&layer).build())
}

/// Holds requests up until the throttle lets them pass, and names them in the log.
#[derive(Clone)]
struct Throttled<S> {
    inner: S,
    throttle: Option<Throttle>,
}

impl<S> Service<Request<Body>> for Throttled<S>
where
    S: Service<Request<Body>>,
    S::Future: Send + 'static,
    S::Response: Send,
    S::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (method, uri) = (request.method(), request.uri());
        tracing::trace!(target: "moorline::requests", %method, path = uri.path(), query = uri.query(), "API request");
        let throttle = self.throttle.clone();
        // Nothing is sent before this future is polled beyond the wait.
        let answering = self.inner.call(request);
        Box::pin(async move {
            if let Some(throttle) = throttle {
                throttle.take().await;
            }
            answering.await
        })
    }
}
