//! Moorline's revisioned key-value store: one trait, an in-memory and an embedded durable engine behind it.
//!
//! The store is what the API server keeps its objects in: one global revision, several versions of a key inside a
//! window, compare-and-swap transactions, watches from a revision, leases and compaction. It knows nothing of
//! Kubernetes. Start reading at [`Store`]; `transition` decides what a transaction does, `hub` brings events
//! to watchers, and both engines use them.

#![forbid(unsafe_code)]

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod embedded;
mod error;
mod hub;
mod key_value;
mod memory;
mod range;
mod store;
mod transaction;
mod transition;
mod watch;

pub use embedded::{EmbeddedOptions, EmbeddedStore, OpenError};
pub use error::{ErrorClass, StoreError};
pub use key_value::{KeyValue, LeaseId, Revision};
pub use memory::MemoryStore;
pub use range::{Range, RangeResult};
pub use store::Store;
pub use transaction::{Compare, Op, Txn, TxnOutcome};
pub use watch::{Event, EventKind, Watch, WatchMessage};
