//! How calls run: what changes something runs as a task of its own, which the caller only waits for.
//!
//! A caller that gives up drops its handler, but not the task; the claim on the volume stays until the work is done, so
//! that the retry is told `ABORTED` instead of working next to it.

use std::future::Future;

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Response, Status};
use tracing::Instrument as _;

use crate::{
    DriverError,
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
        claim: Claim,
        work: impl Future<Output = Result<T, DriverError>> + Send + 'static,
    ) -> Result<Response<T>, Status> {
        if self.is_stopping() {
            // Nothing has begun: the one case in which this code is true.
            return Err(Status::unavailable("the driver is stopping"));
        }
        let volume_id = match &claim {
            Claim::Name(id) | Claim::Volume(id) | Claim::Target(id, _) => id.clone(),
        };
        let span = tracing::info_span!("rpc", rpc.method = method, volume.id = volume_id);
        let guard = self.in_flight.acquire(claim, method)?;
        let task = async move {
            let _guard = guard;
            observe(work).await
        };
        let done = self.tasks.spawn(task.instrument(span)).await;
        done.unwrap_or_else(|error| {
            tracing::error!(rpc.method = method, volume.id = volume_id, %error, "An operation ended by a panic");
            Err(Status::internal(format!("{method} ended unexpectedly; this is a bug of the driver")))
        })
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
