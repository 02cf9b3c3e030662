//! The last step of each write: compare and swap in the store, then wait until every reader sees it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use moorline_store::{Compare, KeyValue, LeaseId, Op, Revision, Txn, TxnOutcome};

use crate::api::Api;
use crate::cache::{Collection, Entry};
use crate::http::Failure;
use crate::objects::services::Along;

/// How long an answer waits for the caches. They follow within a millisecond; if not, the write is done all the same.
const CACHE_WAIT_MAX: Duration = Duration::from_secs(3);

/// What became of a write.
#[derive(Debug)]
pub(crate) enum Committed {
    /// It is durable, and visible to everybody.
    Done { revision: u64 },
    /// The object is not in the expected state; this is its state now.
    Conflict { current: Option<Arc<Entry>> },
    /// The object is as expected, but something that goes along with it is not.
    Beside,
}

/// Writes an object if its revision is still `expected`; zero: if there is none.
pub(crate) async fn put(
    api: &Api,
    collection: &Collection,
    path: &str,
    stored: Bytes,
    expected: u64,
) -> Result<Committed, Failure> {
    put_along(api, collection, (path, expected), stored, Along::default()).await
}

/// As [`put`], with further changes that happen with it or not at all.
pub(crate) async fn put_along(
    api: &Api,
    collection: &Collection,
    (path, expected): (&str, u64),
    stored: Bytes,
    along: Along,
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
    let put = Op::Put {
        key,
        value: stored,
        lease,
    };
    submit(api, collection, (path, expected), put, along).await
}

/// Removes an object if its revision is still `expected`.
pub(crate) async fn remove(
    api: &Api,
    collection: &Collection,
    path: &str,
    expected: u64,
) -> Result<Committed, Failure> {
    remove_along(api, collection, (path, expected), Along::default()).await
}

/// As [`remove`], with further changes that happen with it or not at all.
pub(crate) async fn remove_along(
    api: &Api,
    collection: &Collection,
    (path, expected): (&str, u64),
    along: Along,
) -> Result<Committed, Failure> {
    let delete = Op::Delete {
        key: collection.key(path),
    };
    submit(api, collection, (path, expected), delete, along).await
}

/// What is told if what goes along with a write was always changed by somebody else meanwhile.
pub(crate) fn beside() -> Failure {
    Failure::unavailable("an address or a quota was taken by somebody else meanwhile; try again")
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
    (path, expected): (&str, u64),
    op: Op,
    along: Along,
) -> Result<Committed, Failure> {
    let mut compare = vec![Compare {
        key: collection.key(path),
        mod_revision: Revision(expected),
    }];
    compare.extend(along.compare);
    let mut ops = vec![op];
    ops.extend(along.ops);
    match api.store.txn(Txn { compare, ops }).await? {
        TxnOutcome::Committed { revision, .. } => {
            if !api.caches.reached(revision.0, CACHE_WAIT_MAX).await {
                tracing::warn!(revision = revision.0, "The caches are behind the store.");
            }
            Ok(Committed::Done { revision: revision.0 })
        }
        TxnOutcome::Conflict { current, .. } => {
            let entry = |kv: KeyValue| Arc::new(collection.entry(path, &kv.value, kv.mod_revision.0));
            let current = current.into_iter().next().flatten();
            let found = current.as_ref().map_or(0, |kv| kv.mod_revision.0);
            if found == expected {
                return Ok(Committed::Beside);
            }
            Ok(Committed::Conflict {
                current: current.map(entry),
            })
        }
    }
}
