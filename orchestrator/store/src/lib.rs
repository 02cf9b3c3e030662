//! Moorline's revisioned key-value store: one trait, an in-memory and an embedded durable engine behind it.
//!
//! The store is what the API server keeps its objects in: one global revision, several versions of a key inside a
//! window, compare-and-swap transactions, watches from a revision, leases and compaction. It knows nothing of
//! Kubernetes. Start reading at [`Store`].

#![forbid(unsafe_code)]

mod error;
mod key_value;
mod range;
mod store;
mod transaction;
mod watch;

pub use error::{ErrorClass, StoreError};
pub use key_value::{KeyValue, LeaseId, Revision};
pub use range::{Range, RangeResult};
pub use store::Store;
pub use transaction::{Compare, Op, Txn, TxnOutcome};
pub use watch::{Event, EventKind, Watch, WatchMessage};
