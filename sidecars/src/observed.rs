//! A channel to the driver that records how long each call took and how it ended.
//!
//! The end of a call is in the response's trailers, or in its headers when there is nothing else; a call that is given
//! up has no end of its own and is recorded when it is dropped.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower::Service;

use crate::{metrics::SidecarMetrics, rpc_class::code_name};

/// The channel.
#[derive(Clone, Debug)]
pub(crate) struct ObservedChannel {
    channel: Channel,
    metrics: SidecarMetrics,
}

impl ObservedChannel {
    pub(crate) fn new(channel: Channel, metrics: SidecarMetrics) -> Self {
        Self { channel, metrics }
    }
}

impl Service<Request<Body>> for ObservedChannel {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let mut observation = Observation {
            metrics: self.metrics.clone(),
            method: request.uri().path().to_owned(),
            started: Instant::now(),
            timeout: timeout_of(request.headers()),
            has_ended: false,
        };
        let answering = self.channel.call(request);
        Box::pin(async move {
            let response = match answering.await {
                Ok(response) => response,
                Err(error) => {
                    let code = if observation.is_late() {
                        Code::DeadlineExceeded
                    } else {
                        Code::Unavailable
                    };
                    observation.end(code);
                    return Err(error);
                }
            };
            if let Some(status) = Status::from_header_map(response.headers()) {
                observation.end(status.code());
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(ObservedBody { body, observation })))
        })
    }
}

/// One call under way.
struct Observation {
    metrics: SidecarMetrics,
    method: String,
    started: Instant,
    timeout: Option<Duration>,
    has_ended: bool,
}

impl Observation {
    fn is_late(&self) -> bool {
        self.timeout
            .is_some_and(|timeout| self.started.elapsed() >= timeout)
    }

    fn end(&mut self, code: Code) {
        if !std::mem::replace(&mut self.has_ended, true) {
            self.metrics
                .called(&self.method, code_name(code), self.started.elapsed());
        }
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let code = if self.is_late() {
            Code::DeadlineExceeded
        } else {
            Code::Cancelled
        };
        self.end(code);
    }
}

/// The body of an answer, whose trailers say how the call ended.
struct ObservedBody {
    body: Body,
    observation: Observation,
}

impl http_body::Body for ObservedBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(status) = frame.trailers_ref().and_then(Status::from_header_map) {
                    self.observation.end(status.code());
                }
            }
            Some(Err(status)) => {
                let code = status.code();
                self.observation.end(code);
            }
            None => self.observation.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The deadline that the driver is told: digits and a unit.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let unit = text.chars().last()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(number.checked_mul(3600)?),
        'M' => Duration::from_secs(number.checked_mul(60)?),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_of_requests() {
        let cases = [
            ("10000000u", Some(Duration::from_secs(10))),
            ("5S", Some(Duration::from_secs(5))),
            ("2m", Some(Duration::from_millis(2))),
            ("1H", Some(Duration::from_secs(3600))),
            ("", None),
            ("5", None),
            ("5x", None),
        ];
        for (text, expected) in cases {
            let headers: HeaderMap = [("grpc-timeout", text)]
                .into_iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
                .collect();
            assert_eq!(timeout_of(&headers), expected, "{text:?}");
        }
    }

    #[test]
    fn a_call_is_recorded_once_and_one_given_up_as_such() {
        let metrics = moorline_runtime::metrics::Metrics::new();
        let sidecar = SidecarMetrics::register(&metrics);
        sidecar.set_driver_name("d.example");
        let observation = |timeout| Observation {
            metrics: sidecar.clone(),
            method: "/csi.v1.Controller/CreateVolume".into(),
            started: Instant::now(),
            timeout: Some(timeout),
            has_ended: false,
        };
        observation(Duration::from_secs(60)).end(Code::Ok);
        drop(observation(Duration::from_secs(60)));
        drop(observation(Duration::ZERO));
        let text = metrics.encode().expect("encodes");
        for code in ["OK", "Canceled", "DeadlineExceeded"] {
            let line = format!(
                "csi_sidecar_operations_seconds_count{{driver_name=\"d.example\",method_name=\"/csi.v1.Controller/CreateVolume\",grpc_status_code=\"{code}\"}} 1"
            );
            assert!(text.contains(&line), "{code}: {text}");
        }
    }
}
