//! How calls run: what changes something runs as a task of its own, which the caller only waits for.
//!
//! A caller that gives up drops its handler, but not the task; the claim on the volume stays until the work is done, so
//! that the retry is told `ABORTED` instead of working next to it.

use std::future::Future;

use futures::{Stream, StreamExt as _, stream};
use tokio::{sync::oneshot, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Response, Status};
use tracing::Instrument as _;

use crate::{
    DriverError,
    blocks::{BlockMessage, BlockSink, CallerGone},
    in_flight::{Claim, InFlight},
};

/// The running operations of one server.
#[derive(Clone, Debug)]
pub(crate) struct Operations {
    in_flight: InFlight,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Operations {
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Operations {
            in_flight: InFlight::default(),
            tasks: TaskTracker::new(),
            stop,
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Runs something that only looks.
    pub(crate) async fn look<T>(
        &self,
        method: &'static str,
        volume_id: &str,
        work: impl Future<Output = Result<T, DriverError>> + Send,
    ) -> Result<Response<T>, Status> {
        let span = tracing::info_span!("rpc", rpc.method = method, volume.id = volume_id);
        observe(work).instrument(span).await
    }

    /// Runs something that changes something, alone on what it claims, to its end.
    pub(crate) async fn change<T: Send + 'static>(
        &self,
        method: &'static str,
        claims: Vec<Claim>,
        work: impl Future<Output = Result<T, DriverError>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        self.refuse_when_stopping()?;
        let volume_id = claims
            .first()
            .map(|claim| claim.subject().to_owned())
            .unwrap_or_default();
        let span = tracing::info_span!("rpc", rpc.method = method, volume.id = volume_id);
        let guard = self.in_flight.acquire(claims, method)?;
        let task = async move {
            let _guard = guard;
            observe(work).await
        };
        let done = self.tasks.spawn(task.instrument(span)).await;
        done.unwrap_or_else(|error| {
            tracing::error!(rpc.method = method, volume.id = volume_id, %error, "An operation ended by a panic");
            Err(ended_unexpectedly(method))
        })
    }

    /// Runs something that streams block ranges: it only looks, but what it looks at must stay. It ends early when
    /// the caller goes or the driver stops; a stream that was cut short never looks like a complete one.
    pub(crate) fn stream<Work: Future<Output = Result<(), DriverError>> + Send + 'static>(
        &self,
        method: &'static str,
        claims: Vec<Claim>,
        max_results: Option<usize>,
        work: impl FnOnce(BlockSink) -> Work,
    ) -> Result<impl Stream<Item = Result<BlockMessage, Status>> + Send + 'static, Status> {
        self.refuse_when_stopping()?;
        let snapshot_id = claims
            .first()
            .map(|claim| claim.subject().to_owned())
            .unwrap_or_default();
        let span = tracing::info_span!("rpc", rpc.method = method, snapshot.id = snapshot_id);
        let guard = self.in_flight.acquire(claims, method)?;
        let (sink, end, messages) = BlockSink::new(max_results, self.stop.clone());
        let (tell_end, hear_end) = oneshot::channel();
        let (work, stop) = (work(sink), self.stop.clone());
        let task = async move {
            let _guard = guard;
            let ended = tokio::select! {
                biased;
                () = end.abandoned() => Err(DriverError::from(CallerGone).into()),
                () = stop.cancelled() => Err(Status::unavailable("the driver is stopping; go on from the last range")),
                sent = observe(async { work.await?; end.finish().await }) => sent.map(|_| ()),
            };
            // Nobody hears it when the caller has gone.
            tell_end.send(ended).ok();
        };
        self.tasks.spawn(task.instrument(span));
        let end = stream::once(async move {
            match hear_end.await {
                Ok(Ok(())) => None,
                Ok(Err(status)) => Some(Err(status)),
                Err(_) => Some(Err(ended_unexpectedly(method))),
            }
        });
        let messages = ReceiverStream::new(messages).map(Ok);
        Ok(messages.chain(end.filter_map(|end| async move { end })))
    }

    fn refuse_when_stopping(&self) -> Result<(), Status> {
        if self.is_stopping() {
            // Nothing has begun: the one case in which this code is true.
            return Err(Status::unavailable("the driver is stopping"));
        }
        Ok(())
    }

    /// Waits until the last operation has ended.
    pub(crate) async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    pub(crate) fn describe(&self) -> Vec<String> {
        self.in_flight.describe()
    }
}

fn ended_unexpectedly(method: &str) -> Status {
    Status::internal(format!(
        "{method} ended unexpectedly; this is a bug of the driver"
    ))
}

async fn observe<T>(
    work: impl Future<Output = Result<T, DriverError>> + Send,
) -> Result<Response<T>, Status> {
    let started = Instant::now();
    let result = work.await;
    let duration = started.elapsed();
    match result {
        Ok(answer) => {
            tracing::debug!(?duration, "Call answered");
            Ok(Response::new(answer))
        }
        Err(error) => {
            let status = Status::from(error);
            let (code, message) = (status.code(), status.message());
            match code {
                // The driver's own trouble: its operator should see it. Everything else is the caller's to handle.
                Code::Internal | Code::Aborted => tracing::warn!(?code, message, ?duration, "Call failed"),
                _ => tracing::debug!(?code, message, ?duration, "Call refused"),
            }
            Err(status)
        }
    }
}
