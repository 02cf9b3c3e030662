//! The HTTP endpoint of a drop-in: metrics, health, and what the process tells about itself.

use std::sync::atomic::AtomicU64;

use anyhow::Context as _;
use jiff::Timestamp;
use moorline_runtime::health::{Answer, Site, serve_site};
use moorline_runtime::metrics::Metrics;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Metrics and site of one process.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// What is answered.
    pub(crate) site: Site,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Endpoint {
    /// Metrics at `metrics_path`; nothing listens yet.
    pub(crate) fn new(metrics_path: Option<&str>) -> Self {
        let metrics = Metrics::new();
        let started: Gauge<f64, AtomicU64> = Gauge::default();
        started.set(Timestamp::now().as_duration().as_secs_f64());
        metrics.register(
            "process_start_time_seconds",
            "When the process started, in seconds since 1970",
            started,
        );
        let site = Site::new();
        if let Some(path) = metrics_path {
            site.metrics(path, metrics.clone());
        }
        Self {
            metrics,
            site,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        }
    }

    /// `/healthz` that says yes as long as the process runs.
    pub(crate) fn always_healthy(&self) {
        self.site.route("/healthz", || async { Answer::of_check(Ok(())) });
    }

    /// Listens at that address until [`Endpoint::close`]; does nothing for an empty one.
    ///
    /// # Errors
    /// The address can't be listened on.
    pub(crate) async fn listen(&self, address: &str) -> anyhow::Result<()> {
        if address.is_empty() {
            return Ok(());
        }
        let listener = bind(address)
            .await
            .with_context(|| format!("listen on {address} for metrics and health"))?;
        tracing::info!(address, "Metrics and health are served");
        let serving = serve_site(listener, self.site.clone(), self.stop.clone());
        self.tasks.spawn(serving);
        Ok(())
    }

    /// Stops listening.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// An address as Go takes it: without a host, all addresses of the machine.
async fn bind(address: &str) -> std::io::Result<TcpListener> {
    let Some(port) = address.strip_prefix(':') else {
        return TcpListener::bind(address).await;
    };
    match TcpListener::bind(format!("[::]:{port}")).await {
        Ok(listener) => Ok(listener),
        // No IPv6 here.
        Err(_) => TcpListener::bind(format!("0.0.0.0:{port}")).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses() {
        for good in [":0", "127.0.0.1:0", "localhost:0"] {
            assert!(bind(good).await.is_ok(), "{good}");
        }
        for bad in ["127.0.0.1", "", ":port"] {
            assert!(bind(bad).await.is_err(), "{bad}");
        }
    }
}
