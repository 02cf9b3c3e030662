//! The TLS listener: HTTP/1.1 and HTTP/2 on one port, the client certificate as identity.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::auth::certificate;
use crate::service::ApiService;

/// A peer that does not finish its handshake or its request's head is dropped after this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// After an error such as too many open files, accepting rests so long.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// Requests on one connection at a time; Go's clients put all their watches on one.
const STREAMS_MAX: u32 = 1000;
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(30);

/// Accepts connections until stopped, then waits for running requests until `drain_timeout`.
pub(crate) async fn run(
    api: Arc<Api>,
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    let acceptor = TlsAcceptor::from(tls);
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let (api, acceptor, stop) = (Arc::clone(&api), acceptor.clone(), stop.clone());
                connections.spawn(async move { serve(api, acceptor, stream, stop).await });
            }
            Err(error) => {
                tracing::warn!(%error, "A connection cannot be accepted.");
                tokio::time::sleep(ACCEPT_RETRY_INTERVAL).await;
            }
        }
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(api.config.drain_timeout, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!(
            connections = connections.len(),
            "Some requests did not end in time."
        );
    }
}

async fn serve(api: Arc<Api>, acceptor: TlsAcceptor, stream: TcpStream, stop: CancellationToken) {
    // Answers are written whole; waiting to fill packets only delays watches.
    stream.set_nodelay(true).ok(); // An option that cannot be set costs time, not correctness.
    let tls = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "A TLS handshake failed."),
        Err(_) => return tracing::debug!("A TLS handshake took too long."),
    };
    let certificates = tls.get_ref().1.peer_certificates();
    let identity = certificates
        .and_then(|chain| chain.first())
        .and_then(|der| certificate::user(der));
    let service = ApiService::new(api, identity.map(Arc::new));
    let handler = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(Box::pin(service.answer(request)).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(KEEP_ALIVE_INTERVAL);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(tls), handler);
    let mut connection = std::pin::pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "A connection ended early.");
    }
}
