//! What a caller asks of a transaction and what it answers.

use std::fmt;

use bytes::Bytes;

use crate::{KeyValue, LeaseId, Revision};

/// A condition on one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Compare {
    /// The key looked at.
    pub key: Bytes,
    /// The key's last change must be this one; [`Revision::NONE`]: the key must be absent.
    pub mod_revision: Revision,
}

/// One change.
#[derive(Clone, PartialEq, Eq)]
pub enum Op {
    /// Write a key.
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
        /// The lease that the key belongs to from now on; `None` detaches it from any.
        lease: Option<LeaseId>,
    },
    /// Remove a key. Removing an absent key changes nothing.
    Delete {
        /// The key.
        key: Bytes,
    },
}

impl Op {
    /// The key that the operation is about.
    pub fn key(&self) -> &Bytes {
        match self {
            Op::Put { key, .. } | Op::Delete { key } => key,
        }
    }
}

/// Shows the value's length only: values hold secrets of the store's users.
impl fmt::Debug for Op {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Put { key, value, lease } => formatter
                .debug_struct("Put")
                .field("key", key)
                .field("value_bytes", &value.len())
                .field("lease", lease)
                .finish(),
            Op::Delete { key } => formatter.debug_struct("Delete").field("key", key).finish(),
        }
    }
}

/// A set of changes that happen together, if every condition holds, or not at all.
///
/// No key may occur in two operations.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Txn {
    /// The conditions; none means always.
    pub compare: Vec<Compare>,
    /// The changes.
    pub ops: Vec<Op>,
}

impl Txn {
    /// Makes a key that must not exist.
    pub fn create(key: Bytes, value: Bytes, lease: Option<LeaseId>) -> Txn {
        Txn::put_if(key, Revision::NONE, value, lease)
    }

    /// Writes a key if its last change was `mod_revision`.
    pub fn put_if(key: Bytes, mod_revision: Revision, value: Bytes, lease: Option<LeaseId>) -> Txn {
        Txn {
            compare: vec![Compare {
                key: key.clone(),
                mod_revision,
            }],
            ops: vec![Op::Put { key, value, lease }],
        }
    }

    /// Removes a key if its last change was `mod_revision`.
    pub fn delete_if(key: Bytes, mod_revision: Revision) -> Txn {
        Txn {
            compare: vec![Compare {
                key: key.clone(),
                mod_revision,
            }],
            ops: vec![Op::Delete { key }],
        }
    }
}

/// How a transaction ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TxnOutcome {
    /// The conditions held and the changes are durable.
    Committed {
        /// The transaction's revision; the store's current one if nothing had to change.
        revision: Revision,
        /// For each operation, in order, what the key held before.
        previous: Vec<Option<KeyValue>>,
    },
    /// A condition did not hold; nothing was changed.
    Conflict {
        /// The revision at which the conditions were looked at.
        revision: Revision,
        /// For each condition, in order, what the key holds.
        current: Vec<Option<KeyValue>>,
    },
}
