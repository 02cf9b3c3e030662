//! The pool in memory: what exists or is about to, and how much of the capacity is theirs.
//!
//! ```text
//!            begin_create            finish_create(true)          begin_delete
//!   (none) ----------------> Creating -----------------> Ready ----------------> Deleting --+
//!     ^                         | finish_create(false)     ^ finish_delete(Kept)    |  ^    | begin_delete (again,
//!     +-------------------------+                          +------------------------+  +----+  after finish_delete(Left))
//!     +---- finish_delete(Gone) ----------------------------------------------------+
//! ```
//! `Damaged` things are there from the start and stay: neither served nor touched.

mod entries;

use std::{collections::BTreeMap, sync::Arc};

use moorline_driver_sdk::DriverError;
use parking_lot::Mutex;

use self::entries::Entries;
pub(crate) use self::entries::{Entry, Kept, Promise};
use crate::{
    record::Record,
    room::{self, Limits, Promised, Purpose, Space},
};

#[derive(Debug)]
pub(crate) struct Catalog {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    volumes: Entries<Record>,
    promised: Promised,
}

impl Kept for Record {
    const NOUN: &'static str = "volume";

    fn id(&self) -> &Arc<str> {
        &self.volume_id
    }

    fn promise(&self) -> Promise {
        Promise {
            purpose: Purpose::Volume(self.provisioning),
            bytes: self.capacity_bytes,
        }
    }
}

/// What a create may do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Begin<R> {
    /// The id and the bytes are reserved: make it.
    Create,
    /// It is there.
    Exists(Arc<R>),
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

impl Catalog {
    pub(crate) fn new(limits: Limits, volumes: BTreeMap<Arc<str>, Entry<Record>>) -> Self {
        let mut promised = Promised::default();
        let volumes = Entries::new(volumes, &mut promised);
        Catalog {
            limits,
            state: Mutex::new(State { volumes, promised }),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.state.lock().volumes.len()
    }

    /// How many things are kept but not served.
    pub(crate) fn damaged_count(&self) -> usize {
        self.state.lock().volumes.damaged().count()
    }

    pub(crate) fn promised(&self) -> Promised {
        self.state.lock().promised
    }

    /// Bytes that can still be promised, given the pool's filesystem.
    pub(crate) fn left(&self, space: Space, purpose: Purpose) -> u64 {
        room::left(self.limits, space, self.promised(), purpose)
    }

    /// Is there a volume with this id, served or not?
    pub(crate) fn has(&self, volume_id: &str) -> bool {
        self.state.lock().volumes.has(volume_id)
    }

    pub(crate) fn get(&self, volume_id: &str) -> Result<Arc<Record>, DriverError> {
        self.state.lock().volumes.get(volume_id)
    }

    /// Reserves id and bytes, unless the volume is there.
    pub(crate) fn begin_create(
        &self,
        volume_id: &Arc<str>,
        promise: Promise,
        space: Space,
    ) -> Result<Begin<Record>, DriverError> {
        let mut state = self.state.lock();
        let State { volumes, promised } = &mut *state;
        volumes.begin_create(volume_id, promise, promised, |promised| {
            room::check(self.limits, space, promised, promise.purpose, promise.bytes)
        })
    }

    /// Ends what [`Catalog::begin_create`] began; `None` gives id and bytes back.
    pub(crate) fn finish_create(&self, volume_id: &Arc<str>, made: Option<Arc<Record>>) {
        let mut state = self.state.lock();
        let State { volumes, promised } = &mut *state;
        volumes.put(volume_id, made.map(Entry::Ready), promised);
    }

    /// Takes the volume out of service for its deletion; `None` when there is none.
    pub(crate) fn begin_delete(&self, volume_id: &str) -> Result<Option<Arc<Record>>, DriverError> {
        self.state.lock().volumes.begin_delete(volume_id)
    }

    pub(crate) fn finish_delete(&self, record: &Arc<Record>, end: Deleted) {
        let mut state = self.state.lock();
        let State { volumes, promised } = &mut *state;
        volumes.finish_delete(record, end, promised);
    }

    /// Reserves the bytes that a volume shall grow by.
    pub(crate) fn begin_expand(
        &self,
        record: &Record,
        new_bytes: u64,
        space: Space,
    ) -> Result<(), DriverError> {
        let mut state = self.state.lock();
        let Promise { purpose, bytes } = record.promise();
        let more = new_bytes.saturating_sub(bytes);
        room::check(self.limits, space, state.promised, purpose, more)?;
        state.promised.add(purpose, more);
        Ok(())
    }

    /// Ends an expansion of `old`: `grown` on success, else the bytes are given back.
    pub(crate) fn finish_expand(&self, old: &Record, new_bytes: u64, grown: Option<Arc<Record>>) {
        let mut state = self.state.lock();
        let Promise { purpose, bytes } = old.promise();
        let State { volumes, promised } = &mut *state;
        promised.give_back(purpose, new_bytes.saturating_sub(bytes));
        if let Some(record) = grown {
            let volume_id = Arc::clone(&record.volume_id);
            volumes.put(&volume_id, Some(Entry::Ready(record)), promised);
        }
    }

    /// Up to `count` records after `start`, in the order of ids, and whether there are more.
    pub(crate) fn page(&self, start: Option<&str>, count: usize) -> (Vec<Arc<Record>>, bool) {
        self.state.lock().volumes.page(start, count)
    }
}

#[cfg(test)]
mod tests;
