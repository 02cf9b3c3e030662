//! Waits for kinds that the API server may not have yet: those that come with CustomResourceDefinitions.

use std::time::Duration;

use kube::Client;
use tokio_util::sync::CancellationToken;

/// Between two looks: doubling from the first to the second.
const INTERVAL: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(5);

/// Waits until all `kinds` of `api_version` (`group/version`) are served; false when stopped before.
///
/// Caches of kinds that aren't served would only fail over and over: ask for them after this.
///
/// # Cancel safety
/// May be dropped at any time.
pub async fn until_served(
    client: &Client,
    api_version: &str,
    kinds: &[&str],
    stop: &CancellationToken,
) -> bool {
    let mut interval = INTERVAL;
    loop {
        let looking = async {
            let found = client.list_api_group_resources(api_version).await;
            let all = match found {
                Ok(list) => kinds
                    .iter()
                    .all(|kind| list.resources.iter().any(|found| found.kind == **kind)),
                Err(error) => {
                    tracing::trace!(api_version, %error, "Kinds are not served");
                    false
                }
            };
            if !all {
                tokio::time::sleep(interval).await;
            }
            all
        };
        match stop.run_until_cancelled(looking).await {
            None => return false,
            Some(true) => return true,
            Some(false) if interval == INTERVAL => {
                tracing::debug!(api_version, "Waiting until the kinds are served");
            }
            Some(false) => {}
        }
        interval = (interval * 2).min(INTERVAL_MAX);
    }
}
