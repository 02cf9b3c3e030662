//! Where kernel work runs: threads that may block, a bounded number of them, with a word in the log when one hangs.

use std::{sync::Arc, time::Duration};

use moorline_driver_sdk::{DriverError, ErrorKind};
use tokio::{sync::Semaphore, time::Instant};

/// Threads at once. More would only wait for the same disk; fewer would not fill a shared fsync.
pub(crate) const THREADS_MAX: usize = 64;
/// A call that takes longer is reported, again and again, until it returns. It can't be cancelled.
const WATCHDOG_INTERVAL: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
pub(crate) struct Blocking {
    permits: Arc<Semaphore>,
}

impl Blocking {
    pub(crate) fn new() -> Self {
        Blocking {
            permits: Arc::new(Semaphore::new(THREADS_MAX)),
        }
    }

    /// Runs `work` on a thread that may block.
    ///
    /// Not cancel safe: the work goes on without the caller. Callers are operations that nobody drops.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DriverError> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit =
            permit.map_err(|error| DriverError::internal(format!("{what}: no threads left"), error))?;
        let span = tracing::Span::current();
        let mut thread = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            span.in_scope(work)
        });
        let started = Instant::now();
        loop {
            // The timeout only looks at the handle; the thread itself goes on.
            match tokio::time::timeout(WATCHDOG_INTERVAL, &mut thread).await {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(error)) => {
                    // After a panic nobody knows what was done.
                    let message = format!("{what} ended unexpectedly; this is a bug of the driver");
                    return Err(DriverError::new(ErrorKind::Uncertain, message).caused_by(error));
                }
                Err(_) => tracing::warn!(what, duration = ?started.elapsed(), "Still waiting for the kernel"),
            }
        }
    }
}
