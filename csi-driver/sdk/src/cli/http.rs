//! `/metrics` and `/healthz` over HTTP.

use std::{
    convert::Infallible,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::{encoding::text::encode, registry::Registry};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::traits::Readiness;

/// Connections served at once; further ones wait. Probes and scrapers need two or three.
const CONNECTIONS_MAX: usize = 16;
/// A client that opens a connection and asks nothing is dropped after this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT_TYPE: &str = "text/plain; charset=utf-8";

/// What the answers rest on.
pub(super) struct State {
    pub(super) registry: Registry,
    /// Set once the driver has started; `None` in it: always ready then.
    pub(super) started: OnceLock<Option<Arc<dyn Readiness>>>,
    pub(super) stop: CancellationToken,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("is_started", &self.started.get().is_some())
            .finish_non_exhaustive()
    }
}

impl State {
    async fn health(&self) -> Result<(), String> {
        if self.stop.is_cancelled() {
            return Err("stopping".to_owned());
        }
        match self.started.get() {
            None => Err("starting".to_owned()),
            Some(None) => Ok(()),
            Some(Some(readiness)) => match readiness.is_ready().await {
                Ok(true) => Ok(()),
                Ok(false) => Err("not ready".to_owned()),
                Err(error) => Err(error.full_message()),
            },
        }
    }

    async fn answer(&self, path: &str) -> Response<Full<Bytes>> {
        match path {
            "/healthz" => match self.health().await {
                Ok(()) => respond(StatusCode::OK, TEXT_TYPE, "ok\n".to_owned()),
                Err(why) => respond(StatusCode::SERVICE_UNAVAILABLE, TEXT_TYPE, why + "\n"),
            },
            "/metrics" => {
                let mut text = String::new();
                match encode(&mut text, &self.registry) {
                    Ok(()) => respond(StatusCode::OK, METRICS_TYPE, text),
                    Err(error) => respond(StatusCode::INTERNAL_SERVER_ERROR, TEXT_TYPE, error.to_string()),
                }
            }
            _ => respond(
                StatusCode::NOT_FOUND,
                TEXT_TYPE,
                "try /metrics or /healthz\n".to_owned(),
            ),
        }
    }
}

fn respond(code: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// Serves until `end`; connections that are open then are closed.
pub(super) async fn serve(listener: TcpListener, state: Arc<State>, end: CancellationToken) {
    let tasks = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = end.cancelled() => break,
            next = next => next,
        };
        let Ok((stream, _)) = accepted else {
            // The peer has gone already, or the process is out of descriptors: others first.
            tokio::task::yield_now().await;
            continue;
        };
        let (state, end) = (Arc::clone(&state), end.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(state.answer(request.uri().path()).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                ended = connection => if let Err(error) = ended {
                    tracing::debug!(%error, "Connection to the metrics endpoint ended");
                },
                () = end.cancelled() => {}
            }
            drop(slot);
        });
    }
    tasks.close();
    tasks.wait().await;
}
