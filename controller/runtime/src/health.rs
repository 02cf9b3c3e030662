//! Health, readiness and metrics over HTTP: `/healthz`, `/livez`, `/readyz`, `/metrics`, or any paths of a [`Site`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::fmt::Write;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{CONTENT_TYPE, Metrics};

/// Connections served at once; further ones wait. Probes and scrapers need two or three.
const CONNECTIONS_MAX: usize = 16;

type Check = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// For which question a check counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Shall the process be restarted? (`/healthz`, `/livez`)
    Live,
    /// Shall it be given work? (`/readyz`)
    Ready,
}

/// The checks of a process. Cheap to clone; clones share the checks.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<RwLock<Vec<(Question, String, Check)>>>,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health")
            .field("checks", &self.checks.read().len())
            .finish()
    }
}

impl Health {
    /// Without checks every answer is yes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a check. It must not block: it says what is known, it doesn't find out.
    pub fn add(
        &self,
        question: Question,
        name: &str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.checks
            .write()
            .push((question, name.to_string(), Box::new(check)));
    }

    /// The failed checks with their reasons; empty means yes.
    pub fn failures(&self, question: Question) -> Vec<(String, String)> {
        let checks = self.checks.read();
        let asked = checks.iter().filter(|(of, _, _)| *of == question);
        asked
            .filter_map(|(_, name, check)| check().err().map(|why| (name.clone(), why)))
            .collect()
    }
}

/// What one path of a [`Site`] answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The text.
    pub text: String,
    content_type: &'static str,
}

impl Answer {
    /// Plain text.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            content_type: "text/plain; charset=utf-8",
        }
    }

    /// `200 ok`, or 500 with the reason.
    pub fn of_check(result: Result<(), String>) -> Self {
        match result {
            Ok(()) => Self::new(StatusCode::OK, "ok"),
            Err(why) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, why),
        }
    }
}

type Handler = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Paths and what they answer. Cheap to clone; clones share the paths, also those added later.
#[derive(Clone, Default)]
pub struct Site {
    routes: Arc<RwLock<BTreeMap<String, Handler>>>,
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.routes.read().keys()).finish()
    }
}

impl Site {
    /// A site on which nothing is found.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers `path` with what `handler` says. It runs once for each request, a bounded number at a time.
    pub fn route<Fut>(&self, path: &str, handler: impl Fn() -> Fut + Send + Sync + 'static)
    where
        Fut: Future<Output = Answer> + Send + 'static,
    {
        let handler: Handler = Arc::new(move || Box::pin(handler()));
        self.routes.write().insert(path.to_string(), handler);
    }

    /// Answers `path` with the metrics.
    pub fn metrics(&self, path: &str, metrics: Metrics) {
        self.route(path, move || {
            let answer = match metrics.encode() {
                Ok(text) => Answer {
                    status: StatusCode::OK,
                    text,
                    content_type: CONTENT_TYPE,
                },
                Err(error) => Answer::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
            };
            async move { answer }
        });
    }

    async fn answer(&self, path: &str) -> Answer {
        let handler = self.routes.read().get(path).cloned();
        match handler {
            Some(handler) => handler().await,
            None => Answer::new(StatusCode::NOT_FOUND, "404 page not found\n"),
        }
    }
}

/// Serves health and metrics on `listener` until `stop`; connections that are open then are closed.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics, stop: CancellationToken) {
    let site = Site::new();
    for (path, question) in [
        ("/healthz", Question::Live),
        ("/livez", Question::Live),
        ("/readyz", Question::Ready),
    ] {
        let health = health.clone();
        site.route(path, move || {
            let answer = checked(&health.failures(question));
            async move { answer }
        });
    }
    site.metrics("/metrics", metrics);
    serve_site(listener, site, stop).await;
}

/// Serves a site on `listener` until `stop`; connections that are open then are closed.
pub async fn serve_site(listener: TcpListener, site: Site, stop: CancellationToken) {
    let tasks = TaskTracker::new();
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let next = async {
            let slot = slots
                .clone()
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            next = next => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "Connection to the health endpoint failed");
                continue;
            }
        };
        let (site, stop) = (site.clone(), stop.clone());
        tasks.spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let site = site.clone();
                async move { Ok::<_, Infallible>(respond(site.answer(request.uri().path()).await)) }
            });
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                result = connection => if let Err(error) = result {
                    tracing::debug!(%error, "Connection to the health endpoint ended");
                },
                () = stop.cancelled() => {}
            }
            drop(slot);
        });
    }
    tasks.close();
    tasks.wait().await;
}

fn checked(failures: &[(String, String)]) -> Answer {
    if failures.is_empty() {
        return Answer::new(StatusCode::OK, "ok");
    }
    let mut text = String::new();
    for (name, why) in failures {
        writeln!(text, "[-]{name} failed: {why}").ok(); // Writing to a string doesn't fail.
    }
    Answer::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn respond(answer: Answer) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(answer.text));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(answer.content_type),
    );
    response
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    async fn get(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connect");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("send");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("receive");
        text
    }

    #[tokio::test]
    async fn a_site_answers_its_own_paths() {
        let (site, stop) = (Site::new(), CancellationToken::new());
        site.route("/healthz", || async { Answer::of_check(Err("gone".to_string())) });
        site.route("/other", || async {
            Answer::new(StatusCode::NOT_FOUND, "no socket")
        });
        site.metrics("/m", Metrics::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let asking = async {
            for (path, parts) in [
                ("/healthz", ["HTTP/1.1 500", "gone"]),
                ("/other", ["HTTP/1.1 404", "no socket"]),
                ("/m", ["HTTP/1.1 200", "# EOF"]),
                ("/metrics", ["HTTP/1.1 404", "404 page not found"]),
            ] {
                let text = get(address, path).await;
                assert!(parts.iter().all(|part| text.contains(part)), "{path}: {text}");
            }
            stop.cancel();
        };
        futures::future::join(serve_site(listener, site, stop.clone()), asking).await;
    }

    #[tokio::test]
    async fn checks_and_metrics_are_served_until_stopped() {
        let (health, metrics, stop) = (Health::new(), Metrics::new(), CancellationToken::new());
        let is_synced = Arc::new(AtomicBool::new(false));
        let synced = is_synced.clone();
        health.add(Question::Ready, "caches", move || {
            if synced.load(Ordering::Relaxed) {
                Ok(())
            } else {
                Err("not filled".to_string())
            }
        });
        let counter: prometheus_client::metrics::counter::Counter =
            metrics.register("moorline_test_things", "Things", Default::default());
        counter.inc();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let serving = serve(listener, health, metrics, stop.clone());
        let asking = async {
            let ready = get(address, "/readyz").await;
            assert!(
                ready.starts_with("HTTP/1.1 500") && ready.contains("[-]caches failed: not filled"),
                "{ready}"
            );
            is_synced.store(true, Ordering::Relaxed);
            for (path, part) in [
                ("/readyz", "200 OK"),
                ("/livez", "200 OK"),
                ("/metrics", "things_total 1"),
                ("/x", "404"),
            ] {
                let text = get(address, path).await;
                assert!(text.contains(part), "{path}: {text}");
            }
            stop.cancel();
        };
        futures::future::join(serving, asking).await;
    }
}
