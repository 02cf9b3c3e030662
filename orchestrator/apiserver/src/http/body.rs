//! Bodies: requests read up to a limit, answers whole or streamed.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use http::{HeaderValue, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::Value;
use tower::BoxError;

use super::{Answer, Failure};

/// Larger request bodies are refused, as upstream does.
pub(crate) const LIMIT_BYTES: usize = 3 * 1024 * 1024;

/// The chunks of a streamed answer.
pub(crate) type Chunks = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

/// The body of an answer.
pub(crate) enum ResponseBody {
    /// One piece, taken when sent.
    Whole(Option<Bytes>),
    /// Pieces as they come.
    Stream(Chunks),
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            ResponseBody::Whole(_) => "Whole",
            ResponseBody::Stream(_) => "Stream",
        })
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match self.get_mut() {
            ResponseBody::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            ResponseBody::Stream(chunks) => chunks
                .as_mut()
                .poll_next(context)
                .map(|next| next.map(|chunk| chunk.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, ResponseBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ResponseBody::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            ResponseBody::Stream(_) => SizeHint::default(),
        }
    }
}

/// Reads a whole request body.
pub(crate) async fn collect<B>(body: B) -> Result<Bytes, Failure>
where
    B: Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, LIMIT_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Failure::too_large(LIMIT_BYTES)),
        Err(error) => Err(Failure::bad_request(format!("the body cannot be read: {error}"))),
    }
}

pub(crate) const PROTOBUF: HeaderValue = HeaderValue::from_static("application/vnd.kubernetes.protobuf");
/// Of a watch, whose answer is a row of frames.
pub(crate) const PROTOBUF_WATCH: HeaderValue =
    HeaderValue::from_static("application/vnd.kubernetes.protobuf;stream=watch");
pub(crate) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer of one piece.
pub(crate) fn whole(code: StatusCode, content_type: HeaderValue, bytes: Bytes) -> Answer {
    let mut answer = http::Response::new(ResponseBody::Whole(Some(bytes)));
    *answer.status_mut() = code;
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}

/// An answer that comes in pieces.
pub(crate) fn streamed(content_type: HeaderValue, chunks: Chunks) -> Answer {
    let mut answer = http::Response::new(ResponseBody::Stream(chunks));
    answer.headers_mut().insert(header::CONTENT_TYPE, content_type);
    answer
}

/// A tree as JSON.
pub(crate) fn json(code: StatusCode, value: &Value) -> Answer {
    whole(code, JSON, Bytes::from(value.to_string()))
}

/// Plain text.
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Answer {
    whole(
        code,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        text.into(),
    )
}

/// A failure as its `Status`.
pub(crate) fn failure(failure: &Failure) -> Answer {
    let mut answer = json(failure.code(), &failure.to_json());
    if let Some(seconds) = failure.retry_after_seconds() {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
