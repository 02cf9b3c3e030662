//! Forgets old revisions: each round up to where the store was a round ago.

use std::sync::Arc;

use crate::api::Api;
use moorline_store::Revision;

/// Compacts at each interval for as long as it is polled.
pub(crate) async fn run(api: Arc<Api>) {
    let interval = api.config.compaction_interval;
    let mut before = Revision::default();
    loop {
        tokio::time::sleep(interval).await;
        if before > api.store.compacted_revision()
            && let Err(error) = api.store.compact(before).await
        {
            tracing::warn!(%error, revision = before.0, "The store cannot be compacted; it is tried again.");
        }
        before = api.store.current_revision();
        for collection in api.caches.all() {
            collection.prune();
        }
    }
}
