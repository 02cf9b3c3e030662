//! A driver with one flaw: every call goes on to a good one, but for what the flaw says about one method.

use std::{
    collections::HashSet,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody};
use tonic::{Code, body::Body, transport::Channel};
use tower::ServiceExt as _;

/// What is wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Flaw {
    /// Refusals of this code become successes without content.
    Accepts(Code),
    /// The same request a second time is answered with this code.
    RefusesAgain(Code),
    /// Nothing is done, and success answered.
    Ignores,
    /// It is done, and an answer without content given.
    AnswersNothing,
    /// Everything is answered with this code.
    Fails(Code),
    /// Whatever is asked later gets the first answer that was a success.
    Stuck,
}

/// An answer, read to its end.
#[derive(Clone)]
struct Answer {
    headers: HeaderMap,
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl Answer {
    async fn of(response: Response<Body>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap();
        Answer {
            headers: head.headers,
            trailers: body.trailers().cloned(),
            data: body.to_bytes(),
        }
    }

    /// Streams have it at their end.
    fn has_code(&self, code: Code) -> bool {
        let trailers = self.trailers.as_ref();
        let status = self
            .headers
            .get("grpc-status")
            .or_else(|| trailers?.get("grpc-status"));
        status.is_some_and(|status| status.as_bytes() == (code as i32).to_string().as_bytes())
    }

    fn into_response(self) -> Response<Body> {
        let data = http_body::Frame::data(self.data);
        let trailers = self.trailers.map(http_body::Frame::trailers);
        let frames = [data].into_iter().chain(trailers).map(Ok::<_, Infallible>);
        let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
        *response.headers_mut() = self.headers;
        response
    }
}

/// The good driver, seen through a flaw.
#[derive(Clone)]
pub(crate) struct Flawed {
    pub(crate) good: Channel,
    pub(crate) method: &'static str,
    pub(crate) flaw: Flaw,
    seen: Arc<Mutex<HashSet<Bytes>>>,
    first: Arc<Mutex<Option<Answer>>>,
}

fn refusal(code: Code) -> Response<Body> {
    tonic::Status::new(code, "a flaw").into_http()
}

/// Success with an empty message: five bytes of frame, and the status behind.
fn nothing() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let frames = [
        Ok::<_, Infallible>(http_body::Frame::data(Bytes::from_static(&[0; 5]))),
        Ok(http_body::Frame::trailers(trailers)),
    ];
    let mut response = Response::new(Body::new(StreamBody::new(futures::stream::iter(frames))));
    let grpc = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert("content-type", grpc);
    response
}

impl Flawed {
    pub(crate) fn new(good: Channel, method: &'static str, flaw: Flaw) -> Self {
        Flawed {
            good,
            method,
            flaw,
            seen: Arc::default(),
            first: Arc::default(),
        }
    }

    pub(crate) async fn answer(self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        if !request.uri().path().ends_with(&format!("/{}", self.method)) {
            return Ok(self.forward(request).await);
        }
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let is_repeated = !self.seen.lock().unwrap().insert(body.clone());
        let request = Request::from_parts(head, Body::new(Full::new(body)));
        Ok(match self.flaw {
            Flaw::Ignores => nothing(),
            Flaw::Fails(code) => refusal(code),
            Flaw::RefusesAgain(code) if is_repeated => refusal(code),
            Flaw::RefusesAgain(_) => self.forward(request).await,
            Flaw::AnswersNothing => {
                let response = self.forward(request).await;
                match response.headers().contains_key("grpc-status") {
                    true => response,
                    false => {
                        // To its end, so that it is done.
                        response.into_body().collect().await.unwrap();
                        nothing()
                    }
                }
            }
            Flaw::Accepts(code) => {
                let answer = Answer::of(self.forward(request).await).await;
                if answer.has_code(code) {
                    nothing()
                } else {
                    answer.into_response()
                }
            }
            Flaw::Stuck => {
                let answer = Answer::of(self.forward(request).await).await;
                let mut first = self.first.lock().unwrap();
                match (&*first, answer.has_code(Code::Ok)) {
                    (Some(first), _) => first.clone().into_response(),
                    (None, true) => first.insert(answer).clone().into_response(),
                    (None, false) => answer.into_response(),
                }
            }
        })
    }

    async fn forward(&self, request: Request<Body>) -> Response<Body> {
        self.good.clone().oneshot(request).await.unwrap()
    }
}
