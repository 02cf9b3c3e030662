//! The kubelet's HTTPS port: container logs, commands in containers, ports of pods, health, pods, metrics. Clients show a certificate of the cluster.

pub(crate) mod follow;
pub(crate) mod log_lines;
pub(crate) mod metrics;
mod port_forward;
mod remote_command;
mod spdy;
mod streams;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
mod websocket;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use k8s_openapi::api::core::v1::Pod;
use moorline_container_runtime::ContainerRuntime;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::pods::manager::PodManager;
use crate::volumes::manager::VolumeManager;
use crate::volumes::stats::UsageCache;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// What requests are answered from.
#[derive(Clone)]
pub(crate) struct Server {
    pods: Arc<PodManager>,
    volumes: Arc<VolumeManager>,
    runtime: Arc<dyn ContainerRuntime>,
    usage: Arc<UsageCache>,
    usage_max_age: Duration,
}

impl Server {
    pub(crate) fn new(
        pods: Arc<PodManager>,
        volumes: Arc<VolumeManager>,
        runtime: Arc<dyn ContainerRuntime>,
        usage_max_age: Duration,
    ) -> Self {
        Self {
            pods,
            volumes,
            runtime,
            usage: Arc::default(),
            usage_max_age,
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Response<Body> {
        // Some clients go over to another protocol by a POST.
        if request.method() != Method::GET && !request.headers().contains_key(http::header::UPGRADE) {
            return text(
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET is served here\n".to_owned(),
            );
        }
        let path: Vec<String> = request
            .uri()
            .path()
            .split('/')
            .skip(1)
            .map(|part| {
                percent_encoding::percent_decode_str(part)
                    .decode_utf8_lossy()
                    .into_owned()
            })
            .collect();
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path.as_slice() {
            ["healthz"] => text(StatusCode::OK, "ok".to_owned()),
            ["metrics"] => {
                let usage = self.volumes.usage(&self.usage, self.usage_max_age).await;
                text(StatusCode::OK, metrics::render(&usage, self.pods.pods().len()))
            }
            ["pods"] => {
                let pods = self.pods.pods();
                let items: Vec<_> = pods.iter().map(|pod| pod.as_ref()).collect();
                json_body(&json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
            }
            ["containerLogs", namespace, pod, container] => {
                let query = query(request.uri().query().unwrap_or_default());
                match log_lines::Options::parse(&query) {
                    Err(why) => text(StatusCode::BAD_REQUEST, why),
                    Ok(options) => self.logs((namespace, pod, container), options, tasks, stop).await,
                }
            }
            ["exec", namespace, pod, container] => match self.find(namespace, pod, Some(container)) {
                Err(why) => text(StatusCode::NOT_FOUND, why),
                Ok(found) => {
                    let host = self.host(tasks, stop);
                    streams::exec(host, request, crate::pods::uid(&found), container).await
                }
            },
            ["attach", namespace, pod, container] => match self.find(namespace, pod, Some(container)) {
                Err(why) => text(StatusCode::NOT_FOUND, why),
                Ok(found) => {
                    let host = self.host(tasks, stop);
                    streams::attach(host, request, crate::pods::uid(&found), container).await
                }
            },
            ["portForward", namespace, pod] => match self.find(namespace, pod, None) {
                Err(why) => text(StatusCode::NOT_FOUND, why),
                Ok(_) => streams::forward(self.host(tasks, stop), request),
            },
            _ => text(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        }
    }

    fn host<'h>(&'h self, tasks: &'h TaskTracker, stop: &'h CancellationToken) -> streams::Host<'h> {
        streams::Host {
            runtime: &self.runtime,
            tasks,
            stop,
        }
    }

    /// A pod of this node that has the container; the refusal is a whole answer.
    fn find(&self, namespace: &str, pod: &str, container: Option<&str>) -> Result<Arc<Pod>, String> {
        let is_wanted = |held: &Arc<Pod>| {
            held.metadata.namespace.as_deref() == Some(namespace)
                && held.metadata.name.as_deref() == Some(pod)
        };
        let found = self.pods.pods().into_iter().find(is_wanted);
        let found = found.ok_or_else(|| format!("pod {pod:?} not found in namespace {namespace:?}\n"))?;
        match container {
            Some(container) if crate::pods::find_container(&found, container).is_none() => {
                Err(format!("container {container:?} not found in pod {pod:?}\n"))
            }
            Some(_) | None => Ok(found),
        }
    }

    async fn logs(
        &self,
        (namespace, pod, container): (&str, &str, &str),
        options: log_lines::Options,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Response<Body> {
        let found = match self.find(namespace, pod, Some(container)) {
            Ok(found) => found,
            Err(why) => return text(StatusCode::NOT_FOUND, why),
        };
        match follow::open(
            &self.runtime,
            crate::pods::uid(&found),
            container,
            options.previous,
        )
        .await
        {
            Err(why) => text(StatusCode::BAD_REQUEST, format!("{why} in pod {pod:?}\n")),
            Ok(source) => follow::stream(source, options, self.runtime.clone(), tasks, stop.clone()),
        }
    }
}

pub(crate) fn query(text: &str) -> HashMap<String, String> {
    pairs(text).into_iter().collect()
}

/// The parameters in their order; some may be there several times.
pub(crate) fn pairs(text: &str) -> Vec<(String, String)> {
    let decode = |part: &str| {
        percent_encoding::percent_decode_str(&part.replace('+', " "))
            .decode_utf8_lossy()
            .into_owned()
    };
    let pairs = text.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(key, value)| (decode(key), decode(value)))
        .collect()
}

fn respond(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let value = http::HeaderValue::from_static(content_type);
    response.headers_mut().insert(http::header::CONTENT_TYPE, value);
    response
}

pub(crate) fn text(status: StatusCode, text: String) -> Response<Body> {
    respond(
        status,
        "text/plain; charset=utf-8",
        Full::new(Bytes::from(text)).boxed(),
    )
}

fn json_body(value: &serde_json::Value) -> Response<Body> {
    respond(
        StatusCode::OK,
        "application/json",
        Full::new(Bytes::from(value.to_string())).boxed(),
    )
}

/// Serves until `stop`; open answers are cut off then.
pub(crate) async fn serve(listener: TcpListener, tls: TlsAcceptor, server: Server, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (tls, server, stop, inner) = (tls.clone(), server.clone(), stop.clone(), tasks.clone());
                tasks.spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        () = connection(stream, tls, server, inner, stop.clone()) => {}
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "Connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    stream: tokio::net::TcpStream,
    tls: TlsAcceptor,
    server: Server,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_elapsed) => return,
    };
    let service = service_fn(move |request| {
        let (server, tasks, stop) = (server.clone(), tasks.clone(), stop.clone());
        async move { Ok::<_, Infallible>(server.answer(request, &tasks, &stop).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    if let Err(error) = builder
        .serve_connection_with_upgrades(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "Connection ended with an error");
    }
}
