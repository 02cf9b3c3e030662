//! One lazily connected gRPC channel to a driver's socket, shared by all sidecars of a process.
//!
//! The channel dials at the first call and again after a loss; nothing exits because a driver restarts. Connections
//! made and lost are counted, so that discovery can be repeated: the driver may come back as another version.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use moorline_proto::csi::controller_client::ControllerClient;
use moorline_proto::csi::group_controller_client::GroupControllerClient;
use moorline_proto::csi::identity_client::IdentityClient;
use moorline_proto::csi::node_client::NodeClient;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Response, Status};

use crate::metrics::SidecarMetrics;
use crate::observed::ObservedChannel;

/// Answers of `ListVolumes` and the like can be long; drivers written in Go have no limit when sending.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The authority that gRPC wants and a unix socket doesn't have.
const AUTHORITY: &str = "http://localhost";

/// A `--csi-address` that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// Neither an absolute path nor `unix://` with one.
    #[error("driver address {0:?} is neither an absolute path nor a unix:// URL")]
    NotUnix(String),
}

/// Parses `--csi-address`: an absolute path, or the same as `unix://` URL.
///
/// # Errors
/// Final: anything else.
pub fn parse_address(address: &str) -> Result<PathBuf, AddressError> {
    let path = address
        .strip_prefix("unix://")
        .or_else(|| address.strip_prefix("unix:"))
        .unwrap_or(address);
    if path.starts_with('/') {
        Ok(PathBuf::from(path))
    } else {
        Err(AddressError::NotUnix(address.to_string()))
    }
}

/// The connection to one driver. Cheap to clone; clones share the channel.
#[derive(Clone)]
pub struct DriverConnection {
    channel: ObservedChannel,
    metrics: SidecarMetrics,
    path: PathBuf,
    changes: watch::Receiver<u64>,
}

impl fmt::Debug for DriverConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverConnection")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl DriverConnection {
    /// Prepares the connection; nothing is dialled yet. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// Final: the address isn't one of a unix socket.
    pub fn new(csi_address: &str) -> Result<Self, AddressError> {
        Self::observed(csi_address, SidecarMetrics::default())
    }

    /// The same, with its calls seen in `metrics`.
    ///
    /// # Errors
    /// As [`DriverConnection::new`].
    pub fn observed(csi_address: &str, metrics: SidecarMetrics) -> Result<Self, AddressError> {
        let path = parse_address(csi_address)?;
        let dialled = path.clone();
        Ok(Self::dialling(path, metrics, move || {
            UnixStream::connect(dialled.clone())
        }))
    }

    /// As [`DriverConnection::observed`], over streams that `dial` makes; `path` is only shown.
    pub fn dialling<S, F, Fut>(path: impl Into<PathBuf>, metrics: SidecarMetrics, dial: F) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = io::Result<S>> + Send + 'static,
    {
        let (count, changes) = watch::channel(0_u64);
        let connector = tower::service_fn(move |_| {
            let (dialled, count) = (dial(), count.clone());
            async move {
                let stream = dialled.await?;
                count.send_modify(|count| *count += 1);
                Ok::<_, io::Error>(TokioIo::new(Counted { stream, count }))
            }
        });
        let channel = Endpoint::from_static(AUTHORITY).connect_with_connector_lazy(connector);
        Self {
            channel: ObservedChannel::new(channel, metrics.clone()),
            metrics,
            path: path.into(),
            changes,
        }
    }

    /// Where work on this driver is recorded.
    pub fn metrics(&self) -> &SidecarMetrics {
        &self.metrics
    }

    /// The socket's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How often a connection was made or lost so far.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }

    pub(crate) fn identity(&self) -> IdentityClient<ObservedChannel> {
        IdentityClient::new(self.channel.clone())
    }

    pub(crate) fn controller(&self) -> ControllerClient<ObservedChannel> {
        ControllerClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn groups(&self) -> GroupControllerClient<ObservedChannel> {
        GroupControllerClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    pub(crate) fn node(&self) -> NodeClient<ObservedChannel> {
        NodeClient::new(self.channel.clone())
    }
}

/// A stream whose end is noticed, also while nobody is calling.
struct Counted<S> {
    stream: S,
    count: watch::Sender<u64>,
}

impl<S> Drop for Counted<S> {
    fn drop(&mut self) {
        self.count.send_modify(|count| *count += 1);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Makes one call with its own deadline, which the driver is told, too.
///
/// # Errors
/// The driver's status, or `DEADLINE_EXCEEDED` made here. An error of the transport has a source, an answer of the
/// driver has none (see [`crate::rpc_class`]).
pub(crate) async fn call<T, R, F>(
    timeout: Duration,
    message: T,
    send: impl FnOnce(Request<T>) -> F,
) -> Result<R, Status>
where
    F: Future<Output = Result<Response<R>, Status>>,
{
    let mut request = Request::new(message);
    request.set_timeout(timeout);
    let started = Instant::now();
    let late = || Status::deadline_exceeded(format!("no answer within {timeout:?}"));
    match tokio::time::timeout(timeout, send(request)).await {
        // The transport watches the same deadline, and calls its end a cancellation.
        Ok(Err(status)) if status.code() == Code::Cancelled && started.elapsed() >= timeout => Err(late()),
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(late()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let cases = [
            ("/run/csi/socket", Some("/run/csi/socket")),
            ("unix:///run/csi.sock", Some("/run/csi.sock")),
            ("unix:/run/csi.sock", Some("/run/csi.sock")),
            ("run/csi.sock", None),
            ("unix://run/csi.sock", None),
            ("tcp://127.0.0.1:1", None),
            ("", None),
        ];
        for (address, expected) in cases {
            assert_eq!(
                parse_address(address).ok(),
                expected.map(PathBuf::from),
                "{address}"
            );
        }
    }
}
