//! Brings the store's changes into the caches, in order, for as long as the server runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use moorline_store::{Event, EventKind, Range, Revision, Store, StoreError, WatchMessage};
use tokio_util::sync::CancellationToken;

use super::{Caches, Collection, Entry, ROOT};

/// How long to wait before asking a failing store again.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Reads everything there is and gives the revision from which [`run`] goes on.
///
/// # Errors
/// Those of the store; the caches are as they were then.
pub(crate) async fn load(store: &dyn Store, caches: &Caches) -> Result<Revision, StoreError> {
    let read = store.range(Range::prefix(ROOT.as_bytes())).await?;
    let all = caches.all();
    let mut found: HashMap<String, Vec<Entry>> = HashMap::new();
    for kv in &read.kvs {
        let located = std::str::from_utf8(&kv.key)
            .ok()
            .and_then(|key| caches.locate(key));
        if let Some((collection, path)) = located {
            let entry = collection.entry(path, &kv.value, kv.mod_revision.0);
            found.entry(collection.prefix.clone()).or_default().push(entry);
        }
    }
    for collection in all {
        let entries = found.remove(&collection.prefix).unwrap_or_default();
        collection.reset(entries, read.revision.0);
        collection.announce();
    }
    caches.set_revision(read.revision.0);
    Ok(read.revision)
}

/// Follows the store from `after` on until stopped.
pub(crate) async fn run(
    store: Arc<dyn Store>,
    caches: Arc<Caches>,
    after: Revision,
    stop: CancellationToken,
) {
    let mut after = after;
    loop {
        let followed = stop
            .run_until_cancelled(follow(&*store, &caches, &mut after))
            .await;
        let Some(outcome) = followed else { return };
        match outcome {
            Err(StoreError::Closed) => return,
            // Fell behind: the watch goes on where it was.
            Ok(()) | Err(StoreError::Lagged { .. }) => {}
            Err(StoreError::Compacted { .. }) => reload(&*store, &caches, &mut after).await,
            Err(error) => tracing::error!(%error, "The store's watch failed; it is started again."),
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(RETRY_INTERVAL))
            .await
            .is_none()
        {
            return;
        }
    }
}

async fn reload(store: &dyn Store, caches: &Caches, after: &mut Revision) {
    tracing::warn!("The store was compacted beyond what the caches hold; everything is read again.");
    let _feeding = caches.feeding().await;
    match load(store, caches).await {
        Ok(revision) => *after = revision,
        Err(error) => tracing::error!(%error, "The store cannot be read; it is tried again."),
    }
}

async fn follow(store: &dyn Store, caches: &Caches, after: &mut Revision) -> Result<(), StoreError> {
    let mut watch = store.watch(Bytes::from_static(ROOT.as_bytes()), *after).await?;
    while let Some(message) = watch.next().await {
        let message = message?;
        let _feeding = caches.feeding().await;
        match message {
            WatchMessage::Events { revision, events } => {
                apply(caches, &events);
                *after = revision;
            }
            WatchMessage::Progress(revision) => *after = revision.max(*after),
        }
        caches.set_revision(after.0);
    }
    Ok(())
}

fn apply(caches: &Caches, events: &[Event]) {
    let mut touched: Vec<Arc<Collection>> = Vec::new();
    for event in events {
        let located = std::str::from_utf8(&event.kv.key)
            .ok()
            .and_then(|key| caches.locate(key));
        let Some((collection, path)) = located else {
            continue;
        };
        let stored = match event.kind {
            EventKind::Put => Some(event.kv.value.as_ref()),
            EventKind::Delete => None,
        };
        collection.apply(path, stored, event.kv.mod_revision.0);
        if !touched.iter().any(|known| Arc::ptr_eq(known, &collection)) {
            touched.push(collection);
        }
    }
    for collection in touched {
        collection.announce();
    }
}
