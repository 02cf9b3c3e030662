//! Waits for kinds that the API server may not have yet: those that come with CustomResourceDefinitions.

use std::time::Duration;

use kube::Client;
use tokio_util::sync::CancellationToken;

/// Between two looks: doubling from the first to the second.
const INTERVAL: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(5);

/// Whether all `kinds` of `api_version` are served; `None` if the API server doesn't say.
async fn look(client: &Client, api_version: &str, kinds: &[&str]) -> Option<bool> {
    match client.list_api_group_resources(api_version).await {
        Ok(list) => {
            let is_served = |kind: &&str| list.resources.iter().any(|found| found.kind == **kind);
            Some(kinds.iter().all(is_served))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Some(false),
        Err(error) => {
            tracing::trace!(api_version, %error, "Kinds are not known");
            None
        }
    }
}

/// Whether all `kinds` of `api_version` (`group/version`) are served now. Asks until the API server says yes or no;
/// `None` when stopped before.
///
/// # Cancel safety
/// May be dropped at any time.
pub async fn are_served(
    client: &Client,
    api_version: &str,
    kinds: &[&str],
    stop: &CancellationToken,
) -> Option<bool> {
    let mut interval = INTERVAL;
    loop {
        let looking = async {
            let answer = look(client, api_version, kinds).await;
            if answer.is_none() {
                tokio::time::sleep(interval).await;
            }
            answer
        };
        if let Some(answer) = stop.run_until_cancelled(looking).await? {
            return Some(answer);
        }
        interval = (interval * 2).min(INTERVAL_MAX);
    }
}

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
            let all = look(client, api_version, kinds).await.unwrap_or(false);
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
