//! Forgets old revisions: each round up to where the store was a round ago.

use std::sync::Arc;

use moorline_store::Revision;
use tokio_util::sync::CancellationToken;

use crate::api::Api;

/// Compacts at each interval until stopped.
pub(crate) async fn run(api: Arc<Api>, stop: CancellationToken) {
    let interval = api.config.compaction_interval;
    let mut before = Revision::default();
    while stop
        .run_until_cancelled(tokio::time::sleep(interval))
        .await
        .is_some()
    {
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
