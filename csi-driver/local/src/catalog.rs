//! The pool in memory: which volumes exist or are about to, and how much of the capacity is theirs.
//!
//! ```text
//!            begin_create            finish_create(true)          begin_delete
//!   (none) ----------------> Creating -----------------> Ready ----------------> Deleting --+
//!     ^                         | finish_create(false)     ^ finish_delete(Kept)    |  ^    | begin_delete (again,
//!     +-------------------------+                          +------------------------+  +----+  after finish_delete(Left))
//!     +---- finish_delete(Gone) ----------------------------------------------------+
//! ```
//! `Damaged` volumes are there from the start and stay: neither served nor touched.

use std::{
    collections::{BTreeMap, btree_map::Entry as MapEntry},
    ops::Bound,
    sync::Arc,
};

use moorline_driver_sdk::{DriverError, ErrorKind};
use parking_lot::Mutex;

use crate::record::Record;

#[derive(Debug)]
pub(crate) struct Catalog {
    limit_bytes: Option<u64>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    volumes: BTreeMap<String, Entry>,
    reserved_bytes: u64,
}

/// What is known of one volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    Ready(Arc<Record>),
    Creating { bytes: u64 },
    Deleting { record: Arc<Record>, is_running: bool },
    Damaged { reason: String },
}

/// What a create may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// The name and the bytes are reserved: make it.
    Create,
    /// It is there.
    Exists(Arc<Record>),
}

/// How a delete ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deleted {
    /// Nothing is left.
    Gone,
    /// It has begun and must be finished by another try.
    Left,
    /// It has not begun.
    Kept,
}

fn pending(volume_id: &str, what: &str) -> DriverError {
    DriverError::new(ErrorKind::Aborted, format!("volume {volume_id} is being {what}"))
}

fn damaged(volume_id: &str, reason: &str) -> DriverError {
    DriverError::precondition(format!("volume {volume_id} can't be used: {reason}"))
}

impl Catalog {
    /// `limit_bytes`: the sum of sizes that may be reserved; `None`: whatever the pool's filesystem has.
    pub(crate) fn new(limit_bytes: Option<u64>, volumes: BTreeMap<String, Entry>) -> Self {
        let reserved_bytes = volumes.values().map(reserved_by).sum();
        Catalog {
            limit_bytes,
            state: Mutex::new(State {
                volumes,
                reserved_bytes,
            }),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().volumes.len()
    }

    pub(crate) fn reserved_bytes(&self) -> u64 {
        self.state.lock().reserved_bytes
    }

    /// Bytes that can still be reserved, given the size of the pool's filesystem.
    pub(crate) fn unreserved_bytes(&self, pool_bytes: u64) -> u64 {
        self.limit_bytes
            .unwrap_or(pool_bytes)
            .saturating_sub(self.reserved_bytes())
    }

    pub(crate) fn get(&self, volume_id: &str) -> Result<Arc<Record>, DriverError> {
        match self.state.lock().volumes.get(volume_id) {
            Some(Entry::Ready(record)) => Ok(Arc::clone(record)),
            Some(Entry::Damaged { reason }) => Err(damaged(volume_id, reason)),
            Some(Entry::Creating { .. } | Entry::Deleting { .. }) | None => {
                Err(DriverError::not_found(format!("there is no volume {volume_id}")))
            }
        }
    }

    /// Reserves name and bytes, unless the volume is there.
    pub(crate) fn begin_create(
        &self,
        volume_id: &str,
        bytes: u64,
        pool_bytes: u64,
    ) -> Result<Begin, DriverError> {
        let mut state = self.state.lock();
        let reserved = state.reserved_bytes;
        match state.volumes.entry(volume_id.to_owned()) {
            MapEntry::Occupied(entry) => match entry.get() {
                Entry::Ready(record) => return Ok(Begin::Exists(Arc::clone(record))),
                Entry::Creating { .. } => return Err(pending(volume_id, "created")),
                Entry::Deleting { .. } => return Err(pending(volume_id, "deleted")),
                Entry::Damaged { reason } => return Err(damaged(volume_id, reason)),
            },
            MapEntry::Vacant(entry) => {
                check_room(self.limit_bytes.unwrap_or(pool_bytes), reserved, bytes)?;
                entry.insert(Entry::Creating { bytes });
            }
        }
        state.reserved_bytes += bytes;
        Ok(Begin::Create)
    }

    /// Ends what [`Catalog::begin_create`] began; `None` gives name and bytes back.
    pub(crate) fn finish_create(&self, volume_id: &str, made: Option<Arc<Record>>) {
        let entry = made.map(Entry::Ready);
        self.put(volume_id, entry);
    }

    /// Takes the volume out of service for its deletion; `None` when there is none.
    pub(crate) fn begin_delete(&self, volume_id: &str) -> Result<Option<Arc<Record>>, DriverError> {
        let mut state = self.state.lock();
        let Some(entry) = state.volumes.get_mut(volume_id) else {
            return Ok(None);
        };
        let record = match entry {
            Entry::Ready(record)
            | Entry::Deleting {
                record,
                is_running: false,
            } => Arc::clone(record),
            Entry::Creating { .. } => return Err(pending(volume_id, "created")),
            Entry::Deleting { is_running: true, .. } => return Err(pending(volume_id, "deleted")),
            Entry::Damaged { reason } => return Err(damaged(volume_id, reason)),
        };
        *entry = Entry::Deleting {
            record: Arc::clone(&record),
            is_running: true,
        };
        Ok(Some(record))
    }

    pub(crate) fn finish_delete(&self, record: &Arc<Record>, end: Deleted) {
        let record = Arc::clone(record);
        let volume_id = record.volume_id.clone();
        let entry = match end {
            Deleted::Gone => None,
            Deleted::Left => Some(Entry::Deleting {
                record,
                is_running: false,
            }),
            Deleted::Kept => Some(Entry::Ready(record)),
        };
        self.put(&volume_id, entry);
    }

    /// Reserves the bytes that a volume shall grow by.
    pub(crate) fn begin_expand(
        &self,
        old_bytes: u64,
        new_bytes: u64,
        pool_bytes: u64,
    ) -> Result<(), DriverError> {
        let mut state = self.state.lock();
        let more = new_bytes.saturating_sub(old_bytes);
        check_room(self.limit_bytes.unwrap_or(pool_bytes), state.reserved_bytes, more)?;
        state.reserved_bytes += more;
        Ok(())
    }

    /// Ends an expansion: `grown` on success, else the bytes are given back.
    pub(crate) fn finish_expand(&self, old_bytes: u64, new_bytes: u64, grown: Option<Arc<Record>>) {
        let mut state = self.state.lock();
        match grown {
            // The bytes are reserved already: only the record changes.
            Some(record) => {
                state
                    .volumes
                    .insert(record.volume_id.clone(), Entry::Ready(record));
            }
            None => {
                state.reserved_bytes = state
                    .reserved_bytes
                    .saturating_sub(new_bytes.saturating_sub(old_bytes))
            }
        }
    }

    /// Up to `count` records after `start`, in the order of ids, and whether there are more.
    pub(crate) fn page(&self, start: Option<&str>, count: usize) -> (Vec<Arc<Record>>, bool) {
        let state = self.state.lock();
        let from = start.map_or(Bound::Unbounded, Bound::Excluded);
        let mut ready = state
            .volumes
            .range::<str, _>((from, Bound::Unbounded))
            .filter_map(|(_, entry)| match entry {
                Entry::Ready(record) => Some(Arc::clone(record)),
                Entry::Creating { .. } | Entry::Deleting { .. } | Entry::Damaged { .. } => None,
            });
        let page: Vec<_> = ready.by_ref().take(count).collect();
        let has_more = ready.next().is_some();
        (page, has_more)
    }

    fn put(&self, volume_id: &str, entry: Option<Entry>) {
        let mut state = self.state.lock();
        let after = entry.as_ref().map_or(0, reserved_by);
        let before = match entry {
            Some(entry) => state.volumes.insert(volume_id.to_owned(), entry),
            None => state.volumes.remove(volume_id),
        };
        let before = before.as_ref().map_or(0, reserved_by);
        state.reserved_bytes = state.reserved_bytes.saturating_sub(before).saturating_add(after);
    }
}

fn reserved_by(entry: &Entry) -> u64 {
    match entry {
        Entry::Ready(record) | Entry::Deleting { record, .. } => record.capacity_bytes,
        Entry::Creating { bytes } => *bytes,
        Entry::Damaged { .. } => 0,
    }
}

fn check_room(limit_bytes: u64, reserved_bytes: u64, bytes: u64) -> Result<(), DriverError> {
    let free = limit_bytes.saturating_sub(reserved_bytes);
    if bytes > free {
        return Err(DriverError::exhausted(format!(
            "the pool has {free} bytes left to reserve, not {bytes}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
