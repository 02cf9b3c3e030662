//! What a transaction does to the state, decided without doing it. Both engines store and publish what is said here.

use bytes::Bytes;

use crate::{Compare, Event, EventKind, KeyValue, LeaseId, Op, Revision, StoreError, Txn};

/// The most bytes of keys and values in one transaction: what etcd accepts, so that a store can move there.
pub(crate) const TXN_BYTES_MAX: usize = 1_572_864;

/// The newest state, including what earlier transactions of the same batch did.
pub(crate) trait Current {
    /// What the key holds.
    fn current(&self, key: &Bytes) -> Result<Option<KeyValue>, StoreError>;

    /// Whether the lease lives.
    fn has_lease(&self, lease: LeaseId) -> Result<bool, StoreError>;
}

/// What a transaction does.
#[derive(PartialEq, Eq, Debug)]
pub(crate) enum Transition {
    /// A condition does not hold.
    Conflict {
        /// What the compared keys hold.
        current: Vec<Option<KeyValue>>,
    },
    /// The conditions hold; the changes may be none.
    Apply {
        /// The changes, all of the given revision; empty if nothing has to change.
        events: Vec<Event>,
        /// What the changed keys held before, one per operation.
        previous: Vec<Option<KeyValue>>,
    },
}

/// Decides what a transaction does if it gets `revision`.
///
/// # Errors
/// Class final for a request that no state would accept, else the errors of `state`.
pub(crate) fn decide(state: &impl Current, txn: &Txn, revision: Revision) -> Result<Transition, StoreError> {
    check(txn)?;
    let current = read_compared(state, &txn.compare)?;
    let holds = |(compare, found): (&Compare, &Option<KeyValue>)| {
        found.as_ref().map_or(Revision::NONE, |found| found.mod_revision) == compare.mod_revision
    };
    if !txn.compare.iter().zip(&current).all(holds) {
        return Ok(Transition::Conflict { current });
    }
    let mut events = Vec::with_capacity(txn.ops.len());
    let mut previous = Vec::with_capacity(txn.ops.len());
    for op in &txn.ops {
        let before = match txn.compare.iter().position(|compare| compare.key == *op.key()) {
            Some(known) => current[known].clone(),
            None => state.current(op.key())?,
        };
        events.extend(event(state, op, revision, before.as_ref())?);
        previous.push(before);
    }
    Ok(Transition::Apply { events, previous })
}

/// The event of removing `before` at `revision`.
pub(crate) fn deletion(before: KeyValue, revision: Revision) -> Event {
    Event {
        kind: EventKind::Delete,
        kv: KeyValue {
            key: before.key.clone(),
            value: Bytes::new(),
            create_revision: Revision::NONE,
            mod_revision: revision,
            version: 0,
            lease: None,
        },
        previous: Some(before),
    }
}

fn check(txn: &Txn) -> Result<(), StoreError> {
    let size_of = |op: &Op| match op {
        Op::Put { key, value, .. } => key.len() + value.len(),
        Op::Delete { key } => key.len(),
    };
    let size_bytes = txn.ops.iter().map(size_of).sum::<usize>()
        + txn.compare.iter().map(|compare| compare.key.len()).sum::<usize>();
    if size_bytes > TXN_BYTES_MAX {
        return Err(StoreError::TooLarge {
            size_bytes,
            limit_bytes: TXN_BYTES_MAX,
        });
    }
    let mut keys: Vec<&Bytes> = txn.ops.iter().map(Op::key).collect();
    keys.sort_unstable();
    if keys.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(StoreError::DuplicateKey);
    }
    Ok(())
}

fn read_compared(state: &impl Current, compare: &[Compare]) -> Result<Vec<Option<KeyValue>>, StoreError> {
    compare
        .iter()
        .map(|compare| state.current(&compare.key))
        .collect()
}

fn event(
    state: &impl Current,
    op: &Op,
    revision: Revision,
    before: Option<&KeyValue>,
) -> Result<Option<Event>, StoreError> {
    match op {
        Op::Delete { .. } => Ok(before.map(|before| deletion(before.clone(), revision))),
        Op::Put { key, value, lease } => {
            if let Some(lease) = *lease
                && !state.has_lease(lease)?
            {
                return Err(StoreError::LeaseNotFound { lease });
            }
            Ok(Some(Event {
                kind: EventKind::Put,
                kv: KeyValue {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: before.map_or(revision, |before| before.create_revision),
                    mod_revision: revision,
                    version: before.map_or(1, |before| before.version + 1),
                    lease: *lease,
                },
                previous: before.cloned(),
            }))
        }
    }
}

#[cfg(test)]
mod tests;
