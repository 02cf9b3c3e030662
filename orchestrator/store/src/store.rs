//! The contract that every engine keeps.

use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::{KeyValue, LeaseId, Range, RangeResult, Revision, StoreError, Txn, TxnOutcome, Watch};

/// A revisioned key-value store, used as `Arc<dyn Store>`.
///
/// All methods may be called from any task, as often as wanted, at the same time. Reads see only durable revisions.
/// Dropping the future of a read loses nothing; dropping that of a change leaves open whether the change happens.
pub trait Store: Send + Sync + 'static {
    /// The version of one key at a revision (`None`: now), and the store's current revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] when `at` cannot be read.
    fn get(
        &self,
        key: Bytes,
        at: Option<Revision>,
    ) -> BoxFuture<'_, Result<(Revision, Option<KeyValue>), StoreError>>;

    /// The keys of a range, all as of one revision.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] and [`StoreError::FutureRevision`] when `range.at` cannot be read.
    fn range(&self, range: Range) -> BoxFuture<'_, Result<RangeResult, StoreError>>;

    /// Changes keys if all conditions hold. Resolves once the change is durable and readable, and has been handed to
    /// the watchers. All operations share one revision. A transaction that changes nothing takes no revision.
    ///
    /// # Errors
    /// Class final: nothing was changed. Class uncertain ([`StoreError::Io`]): look before trying again; if the change
    /// did happen after all, watchers see it.
    fn txn(&self, txn: Txn) -> BoxFuture<'_, Result<TxnOutcome, StoreError>>;

    /// The changes of keys with this prefix after a revision: first those of the past, then each new one as it
    /// becomes durable, without gap or repeat. `after` may lie in the future. See [`crate::WatchMessage`].
    ///
    /// # Errors
    /// [`StoreError::Compacted`] when changes after `after` are no longer kept; also as an item, if the replay of the
    /// past is overtaken by a compaction. [`StoreError::Lagged`] and [`StoreError::Closed`] as last items.
    fn watch(&self, prefix: Bytes, after: Revision) -> BoxFuture<'_, Result<Watch, StoreError>>;

    /// Makes a lease that ends `ttl` from now. Its keys are then deleted, each with a revision of its own.
    ///
    /// # Errors
    /// As [`Store::txn`].
    fn lease_grant(&self, ttl: Duration) -> BoxFuture<'_, Result<LeaseId, StoreError>>;

    /// Lets a lease live for its full time again, from now.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] when it has ended; else as [`Store::txn`].
    fn lease_keep_alive(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Ends a lease now and deletes its keys before it resolves.
    ///
    /// # Errors
    /// [`StoreError::LeaseNotFound`] when it has ended; else as [`Store::txn`].
    fn lease_revoke(&self, lease: LeaseId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Gives up all versions that only reads older than `revision` could see. The newest version of each key that
    /// lives at `revision` stays. Compacting at or below an earlier compaction changes nothing.
    ///
    /// # Errors
    /// [`StoreError::FutureRevision`] for a revision that does not exist yet; else as [`Store::txn`].
    fn compact(&self, revision: Revision) -> BoxFuture<'_, Result<(), StoreError>>;

    /// The newest revision that is durable and was handed to the watchers.
    fn current_revision(&self) -> Revision;

    /// The oldest revision that can be read, and that a watch can start after.
    fn compacted_revision(&self) -> Revision;

    /// Finishes the changes that wait, ends all watches with [`StoreError::Closed`] and lets the file go. Later calls
    /// of any method answer [`StoreError::Closed`]; closing twice is fine.
    ///
    /// # Errors
    /// [`StoreError::Io`] when the engine could not be shut down cleanly; no acknowledged change is lost by that.
    fn close(&self) -> BoxFuture<'_, Result<(), StoreError>>;
}
