//! The last step of each write: compare and swap in the store, then wait until every reader sees it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moorline_store::{Compare, KeyValue, LeaseId, Op, Revision, Txn, TxnOutcome};

use crate::api::Api;
use crate::cache::{Collection, Entry};
use crate::http::Failure;

/// How long an answer waits for the caches. They follow within a millisecond; if not, the write is done all the same.
const CACHE_WAIT_MAX: Duration = Duration::from_secs(3);

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Committed {
    /// It is durable, and visible to everybody.
    Done { revision: u64 },
    /// The object is not in the expected state; this is its state now.
    Conflict { current: Option<Arc<Entry>> },
}

/// Writes an object if its revision is still `expected`; zero: if there is none.
pub(crate) async fn put(
    api: &Api,
    collection: &Collection,
    path: &str,
    stored: Bytes,
    expected: u64,
) -> Result<Committed, Failure> {
    let refuses = collection.may_refuse().await;
    if expected == 0 && *refuses {
        return Err(Failure::terminating_definition());
    }
    let lease: Option<LeaseId> = match collection.resource.plural {
        "events" if !collection.resource.custom => Some(api.event_leases.lease(&*api.store).await?),
        _ => None,
    };
    let key = collection.key(path);
    submit(
        api,
        collection,
        path,
        Op::Put {
            key,
            value: stored,
            lease,
        },
        expected,
    )
    .await
}

/// Removes an object if its revision is still `expected`.
pub(crate) async fn remove(
    api: &Api,
    collection: &Collection,
    path: &str,
    expected: u64,
) -> Result<Committed, Failure> {
    submit(
        api,
        collection,
        path,
        Op::Delete {
            key: collection.key(path),
        },
        expected,
    )
    .await
}

/// Whether a write failed because the object is too large for the store.
pub(crate) fn is_too_large(outcome: &Result<Committed, Failure>) -> bool {
    outcome
        .as_ref()
        .is_err_and(|failure| failure.code() == http::StatusCode::PAYLOAD_TOO_LARGE)
}

async fn submit(
    api: &Api,
    collection: &Collection,
    path: &str,
    op: Op,
    expected: u64,
) -> Result<Committed, Failure> {
    let compare = vec![Compare {
        key: collection.key(path),
        mod_revision: Revision(expected),
    }];
    match api
        .store
        .txn(Txn {
            compare,
            ops: vec![op],
        })
        .await?
    {
        TxnOutcome::Committed { revision, .. } => {
            if !api.caches.reached(revision.0, CACHE_WAIT_MAX).await {
                tracing::warn!(revision = revision.0, "The caches are behind the store.");
            }
            Ok(Committed::Done { revision: revision.0 })
        }
        TxnOutcome::Conflict { current, .. } => {
            let entry = |kv: KeyValue| Arc::new(collection.entry(path, &kv.value, kv.mod_revision.0));
            Ok(Committed::Conflict {
                current: current.into_iter().next().flatten().map(entry),
            })
        }
    }
}
