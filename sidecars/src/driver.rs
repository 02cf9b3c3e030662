//! A discovered driver, and the loop that discovers it again when it comes back.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::connection::DriverConnection;
use crate::discovery::{DiscoveryError, DriverFacts, discover};

/// Between two discoveries when the driver refuses to be discovered.
const REDISCOVERY_INTERVAL: Duration = Duration::from_secs(5);

/// A driver that work can be given to.
#[derive(Clone, Debug)]
pub(crate) struct Driver {
    pub(crate) connection: DriverConnection,
    pub(crate) facts: DriverFacts,
}

/// Discovers the driver, runs `serve` with it until `stop`; when the driver has come back with other capabilities,
/// ends `serve` (through its token) and starts it again.
///
/// # Errors
/// Final: the very first discovery is refused. Later refusals are logged and tried again.
pub(crate) async fn supervise<F, Fut>(
    connection: &DriverConnection,
    timeout: Duration,
    stop: &CancellationToken,
    serve: F,
) -> Result<(), DiscoveryError>
where
    F: Fn(Driver, CancellationToken) -> Fut,
    Fut: Future<Output = ()>,
{
    let mut changes = connection.changes();
    let mut facts = match discover(connection, timeout, stop).await {
        Err(DiscoveryError::Stopped) => return Ok(()),
        facts => facts?,
    };
    while !stop.is_cancelled() {
        tracing::info!(driver.name = facts.driver_name, "Driver is ready");
        let generation = stop.child_token();
        let driver = Driver {
            connection: connection.clone(),
            facts: facts.clone(),
        };
        let serving = serve(driver, generation.clone());
        let watching = async {
            let next = changed(connection, &mut changes, timeout, &facts, &generation).await;
            generation.cancel();
            next
        };
        let ((), next) = futures::future::join(serving, watching).await;
        match next {
            Some(next) => facts = next,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// Waits until the driver has come back with other facts; `None` when stopped.
async fn changed(
    connection: &DriverConnection,
    changes: &mut tokio::sync::watch::Receiver<u64>,
    timeout: Duration,
    known: &DriverFacts,
    stop: &CancellationToken,
) -> Option<DriverFacts> {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            changed = changes.changed() => if changed.is_err() {
                // The channel is gone: only at the end of the process.
                stop.cancelled().await;
                return None;
            },
        }
        match discover(connection, timeout, stop).await {
            Ok(facts) if facts == *known => {
                tracing::debug!(driver.name = known.driver_name, "Driver is back")
            }
            Ok(facts) => {
                tracing::info!(
                    driver.name = known.driver_name,
                    "Driver is back with other capabilities"
                );
                return Some(facts);
            }
            Err(DiscoveryError::Stopped) => return None,
            Err(error) => {
                tracing::warn!(driver.name = known.driver_name, %error, "Driver can't be asked, trying again");
                tokio::select! {
                    () = stop.cancelled() => return None,
                    () = tokio::time::sleep(REDISCOVERY_INTERVAL) => changes.mark_changed(),
                }
            }
        }
    }
}
