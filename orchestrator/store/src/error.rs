//! Why a store operation failed, and what the caller may conclude from it.

use crate::{LeaseId, Revision};

/// What a failure means for the operation that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ErrorClass {
    /// Nothing was changed, and the same request will fail again.
    Final,
    /// A change may have happened or not: read again before trying again.
    Uncertain,
    /// The store's own state is bad; a human must act.
    Bug,
}

/// Why a store operation failed.
///
/// Clones are handed to all waiters of one commit, so the engine's error is kept as text.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// The revision asked for is older than the last compaction.
    #[error("revision is compacted, the oldest readable one is {compacted}")]
    Compacted {
        /// The oldest revision that can be read, and watched from.
        compacted: Revision,
    },
    /// The revision asked for does not exist yet.
    #[error("revision {requested} is in the future, the current one is {current}")]
    FutureRevision {
        /// What was asked for.
        requested: Revision,
        /// The newest revision.
        current: Revision,
    },
    /// The watcher did not keep up, and events were not kept for it. Only as a watch's last item.
    #[error("the watcher was too slow and has lost events after revision {seen}")]
    Lagged {
        /// All events up to here were delivered; a new watch may begin after it.
        seen: Revision,
    },
    /// The transaction is bigger than the store accepts.
    #[error("transaction has {size_bytes} bytes, the limit is {limit_bytes}")]
    TooLarge {
        /// Keys and values of the transaction.
        size_bytes: usize,
        /// The most the store accepts.
        limit_bytes: usize,
    },
    /// The transaction names a key in two operations.
    #[error("transaction changes one key twice")]
    DuplicateKey,
    /// The lease does not exist, or has ended.
    #[error("lease {lease} does not exist")]
    LeaseNotFound {
        /// The lease.
        lease: LeaseId,
    },
    /// The store is closed, or closes.
    #[error("the store is closed")]
    Closed,
    /// The disk failed or is full.
    #[error("{attempt}: {cause}")]
    Io {
        /// What was tried.
        attempt: &'static str,
        /// What the engine or the system answered.
        cause: String,
    },
    /// The stored data contradicts itself.
    #[error("store is corrupt: {found}")]
    Corrupt {
        /// What was found.
        found: String,
    },
}

impl StoreError {
    /// What the failure means for the caller.
    pub fn class(&self) -> ErrorClass {
        match self {
            StoreError::Compacted { .. }
            | StoreError::FutureRevision { .. }
            | StoreError::Lagged { .. }
            | StoreError::TooLarge { .. }
            | StoreError::DuplicateKey
            | StoreError::LeaseNotFound { .. } => ErrorClass::Final,
            StoreError::Closed | StoreError::Io { .. } => ErrorClass::Uncertain,
            StoreError::Corrupt { .. } => ErrorClass::Bug,
        }
    }
}
