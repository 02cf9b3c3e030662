//! Forgets: old revisions in the store, each round up to where it was a round ago, and old changes in the caches.

use std::sync::Arc;
use std::time::Duration;

use moorline_store::Revision;
use tokio::time::Instant;

use crate::api::Api;

/// The caches are looked through this often, so that a burst of changes does not stay in memory for long.
const PRUNE_INTERVAL: Duration = Duration::from_secs(30);

/// Forgets for as long as it is polled.
pub(crate) async fn run(api: Arc<Api>) {
    let mut before = Revision::default();
    let mut due = Instant::now() + api.config.compaction_interval;
    loop {
        tokio::time::sleep_until(due.min(Instant::now() + PRUNE_INTERVAL)).await;
        for collection in api.caches.all() {
            collection.prune();
        }
        if Instant::now() < due {
            continue;
        }
        due = Instant::now() + api.config.compaction_interval;
        if before > api.store.compacted_revision()
            && let Err(error) = api.store.compact(before).await
        {
            tracing::warn!(%error, revision = before.0, "The store cannot be compacted; it is tried again.");
        }
        before = api.store.current_revision();
    }
}
