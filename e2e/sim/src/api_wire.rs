//! The API over the simulated network: a tower service for the clients, and the server's side of each request.

use std::io;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::future::BoxFuture;
use futures::{FutureExt, Stream};
use http::{Method, Request, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::json;
use tower::Service;

use crate::net::{Address, AnswerSender, Net, ProcId, WatchNews};
use crate::plan::ApiFault;

/// What a client gets for its request.
pub(crate) type Answer = Result<Response<WireBody>, io::Error>;

/// A request under way.
pub(crate) struct ApiRequest {
    pub(crate) request: Request<Bytes>,
    pub(crate) fault: Option<ApiFault>,
    pub(crate) reply: Reply,
}

impl ApiRequest {
    /// Who asks for what, for the trace.
    pub(crate) fn line(&self) -> String {
        let fault = self.fault.map(|fault| format!(" {fault:?}")).unwrap_or_default();
        format!(
            "{:?} {} {}{fault}",
            self.reply.to.process,
            self.request.method(),
            self.request.uri()
        )
    }
}

/// Where the answer goes. Dropped without one, the connection is lost.
pub(crate) struct Reply {
    net: Net,
    to: Address,
    sender: Option<AnswerSender>,
}

impl Reply {
    /// Sends the answer, and says when it arrives.
    fn send(&mut self, answer: Answer) -> u64 {
        let Some(sender) = self.sender.take() else {
            return 0;
        };
        let held_until = self.net.cut_off_until(self.to.process);
        self.net.deliver(self.to, held_until, move || {
            sender.send(answer).ok(); // The caller may have given up.
        })
    }

    /// Who asked.
    pub(crate) fn process(&self) -> ProcId {
        self.to.process
    }

    pub(crate) fn fail(mut self, kind: io::ErrorKind, text: &str) {
        self.send(Err(io::Error::new(kind, text.to_owned())));
    }

    pub(crate) fn refuse(mut self, code: u16) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
            "message": "the simulator refuses this request",
            "reason": match code { 409 => "Conflict", 429 => "TooManyRequests", 504 => "Timeout", _ => "InternalError" },
        });
        let response = Response::builder()
            .status(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
            .header(header::CONTENT_TYPE, "application/json")
            .body(WireBody::full(Bytes::from(status.to_string())));
        self.send(response.map_err(io::Error::other));
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.sender.is_some() {
            self.send(Err(io::Error::new(
                io::ErrorKind::ConnectionReset,
                "the API server went away",
            )));
        }
    }
}

/// Answers a request, on the API server's runtime.
pub(crate) async fn serve(server: kube::Client, request: ApiRequest) {
    let ApiRequest {
        request,
        fault,
        mut reply,
    } = request;
    if let Some(ApiFault::Slow { millis }) = fault {
        tokio::time::sleep(std::time::Duration::from_millis(millis)).await;
    }
    let query = request.uri().query().unwrap_or_default();
    let is_watch = query
        .split('&')
        .any(|pair| pair == "watch=true" || pair == "watch=1");
    let path = request.uri().path().to_owned();
    let watched = request.uri().to_string();
    let line = format!("{} {path}", request.method());
    if fault == Some(ApiFault::Twice) {
        // Some proxy or library tried again; what the first one brought is lost.
        drop(server.send(request.clone().map(Body::from)).await);
    }
    let answered = server.send(request.map(Body::from)).await;
    let (parts, mut body) = match answered {
        Ok(answer) => answer.into_parts(),
        Err(error) => return reply.fail(io::ErrorKind::Other, &error.to_string()),
    };
    let net = reply.net.clone();
    net.trace(|| format!("  {} to {:?} {line}", parts.status.as_u16(), reply.to.process));
    if fault == Some(ApiFault::LoseAnswer) {
        return reply.fail(io::ErrorKind::ConnectionReset, "the answer was lost");
    }
    if !is_watch || parts.status != StatusCode::OK {
        let whole = body.collect().await.map(http_body_util::Collected::to_bytes);
        let answer = whole.map_err(|error| io::Error::other(error.to_string()));
        reply.send(answer.map(|bytes| Response::from_parts(parts, WireBody::full(bytes))));
        return;
    }
    let to = reply.to;
    let (answer, sender, is_cut) = net.open_stream(to, parts);
    let mut last_at = reply.send(answer);
    let told = Told::begin(&net, watched);
    loop {
        let frame = body.frame().await;
        if sender.is_closed() || is_cut.load(Ordering::Relaxed) || !net.is_alive(to) {
            return;
        }
        let item = match frame {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => {
                    told.tell(&data);
                    Ok(data)
                }
                Err(_) => continue,
            },
            Some(Err(error)) => Err(io::Error::other(error.to_string())),
            None => break,
        };
        let (sender, is_cut) = (sender.clone(), is_cut.clone());
        let not_before = (last_at + 1).max(net.watch_held_until(to.process, &path));
        last_at = net.deliver(to, not_before, move || {
            if !is_cut.load(Ordering::Relaxed) {
                sender.unbounded_send(item).ok(); // The watch may have been given up.
            }
        });
    }
    net.deliver(to, last_at + 1, move || sender.close_channel());
}

/// What a watch is sent, for the check of it.
struct Told {
    net: Net,
    stream: u64,
}

impl Told {
    fn begin(net: &Net, line: String) -> Self {
        let stream = net.number();
        net.watch_news(WatchNews::Open { stream, line });
        Self {
            net: net.clone(),
            stream,
        }
    }

    fn tell(&self, data: &Bytes) {
        let (stream, data) = (self.stream, data.clone());
        self.net.watch_news(WatchNews::Data { stream, data });
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let stream = self.stream;
        self.net.watch_news(WatchNews::Closed { stream });
    }
}

/// A client's connection to the API server.
#[derive(Clone, Debug)]
pub(crate) struct ApiWire {
    net: Net,
    from: Address,
}

impl ApiWire {
    /// A client for a process in its present life. Must be called on its runtime.
    pub(crate) fn client(net: &Net, process: ProcId) -> kube::Client {
        let wire = ApiWire {
            net: net.clone(),
            from: net.address(process),
        };
        kube::Client::new(wire, "default")
    }
}

impl Service<Request<Body>> for ApiWire {
    type Response = Response<WireBody>;
    type Error = io::Error;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let (net, from) = (self.net.clone(), self.from);
        async move {
            let (parts, body) = request.into_parts();
            let whole = body
                .collect()
                .await
                .map_err(|error| io::Error::other(error.to_string()))?;
            let request = Request::from_parts(parts, whole.to_bytes());
            let is_write = request.method() != Method::GET;
            let may_conflict = matches!(*request.method(), Method::PUT | Method::PATCH | Method::DELETE)
                && has_precondition(request.body());
            let fault = net.take_api_fault(from.process, |fault| match fault {
                ApiFault::Refuse { code: 409 } => may_conflict,
                ApiFault::LoseAnswer | ApiFault::Twice => is_write,
                ApiFault::Refuse { .. } | ApiFault::LoseRequest | ApiFault::Slow { .. } => true,
            });
            let (sender, receiver) = oneshot::channel();
            let reply = Reply {
                net: net.clone(),
                to: from,
                sender: Some(sender),
            };
            net.request(ApiRequest {
                request,
                fault,
                reply,
            });
            receiver
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::ConnectionReset.into()))
        }
        .boxed()
    }
}

/// Only a write that says which version it expects may be told of a conflict.
fn has_precondition(body: &[u8]) -> bool {
    let wanted = b"\"resourceVersion\"";
    body.windows(wanted.len()).any(|window| window == wanted)
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct WireBody {
    rest: Rest,
}

#[derive(Debug)]
enum Rest {
    Full(Option<Bytes>),
    Streaming(mpsc::UnboundedReceiver<Result<Bytes, io::Error>>),
}

impl WireBody {
    fn full(bytes: Bytes) -> Self {
        Self {
            rest: Rest::Full(Some(bytes)),
        }
    }

    pub(crate) fn streaming(receiver: mpsc::UnboundedReceiver<Result<Bytes, io::Error>>) -> Self {
        Self {
            rest: Rest::Streaming(receiver),
        }
    }
}

impl http_body::Body for WireBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut self.rest {
            Rest::Full(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Rest::Streaming(receiver) => Pin::new(receiver)
                .poll_next(cx)
                .map(|item| item.map(|item| item.map(Frame::data))),
        }
    }
}
