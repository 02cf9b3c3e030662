//! The pool in memory: what exists or is about to, and how much of the capacity is theirs.
//!
//! ```text
//!            begin_create            finish_create(true)          begin_delete
//!   (none) ----------------> Creating -----------------> Ready ----------------> Deleting --+
//!     ^                         | finish_create(false)     ^ finish_delete(Kept)    |  ^    | begin_delete (again,
//!     +-------------------------+                          +------------------------+  +----+  after finish_delete(Left))
//!     +---- finish_delete(Gone, Leaving) -------------------------------------------+
//! ```
//! `Damaged` things are there from the start and stay: neither served nor touched.

mod entries;

use std::{collections::BTreeMap, sync::Arc};

use moorline_driver_sdk::DriverError;
use parking_lot::Mutex;

use self::entries::Entries;
pub(crate) use self::entries::{Entry, Kept, Promise};
use crate::{
    record::{GroupRecord, Record, SnapshotRecord},
    room::{self, Limits, Promised, Purpose, Space},
};

#[derive(Debug)]
pub(crate) struct Catalog {
    limits: Limits,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    volumes: Entries<Record>,
    snapshots: Entries<SnapshotRecord>,
    groups: Entries<GroupRecord>,
    promised: Promised,
}

/// What a start has found of one kind.
pub(crate) type FoundEntries<R> = BTreeMap<Arc<str>, Entry<R>>;

/// What a start has found in a pool.
#[derive(Debug, Default)]
pub(crate) struct FoundInPool {
    pub(crate) volumes: FoundEntries<Record>,
    pub(crate) snapshots: FoundEntries<SnapshotRecord>,
    pub(crate) groups: FoundEntries<GroupRecord>,
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

    fn entries(state: &mut State) -> (&mut Entries<Self>, &mut Promised) {
        (&mut state.volumes, &mut state.promised)
    }
}

impl Kept for SnapshotRecord {
    const NOUN: &'static str = "snapshot";

    fn id(&self) -> &Arc<str> {
        &self.snapshot_id
    }

    fn promise(&self) -> Promise {
        Promise {
            purpose: Purpose::Snapshot,
            bytes: self.reserved_bytes,
        }
    }

    fn source(&self) -> Option<&Arc<str>> {
        Some(&self.source_volume_id)
    }

    fn entries(state: &mut State) -> (&mut Entries<Self>, &mut Promised) {
        (&mut state.snapshots, &mut state.promised)
    }
}

impl Kept for GroupRecord {
    const NOUN: &'static str = "group snapshot";

    fn id(&self) -> &Arc<str> {
        &self.group_id
    }

    /// The members have their own.
    fn promise(&self) -> Promise {
        Promise {
            purpose: Purpose::Snapshot,
            bytes: 0,
        }
    }

    fn entries(state: &mut State) -> (&mut Entries<Self>, &mut Promised) {
        (&mut state.groups, &mut state.promised)
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
    /// It is not there any more, but its data is: its bytes stay promised until [`Catalog::finish_leaving`].
    Leaving,
    /// It has begun and must be finished by another try.
    Left,
    /// It has not begun.
    Kept,
}

impl Catalog {
    pub(crate) fn new(limits: Limits, found: FoundInPool) -> Self {
        let mut promised = Promised::default();
        let state = State {
            volumes: Entries::new(found.volumes, &mut promised),
            snapshots: Entries::new(found.snapshots, &mut promised),
            groups: Entries::new(found.groups, &mut promised),
            promised,
        };
        Catalog {
            limits,
            state: Mutex::new(state),
        }
    }

    /// How many things of this kind there are, served or not.
    pub(crate) fn count<R: Kept>(&self) -> usize {
        R::entries(&mut self.state.lock()).0.len()
    }

    /// How many things of this kind are kept but not served.
    pub(crate) fn damaged_count<R: Kept>(&self) -> usize {
        R::entries(&mut self.state.lock()).0.damaged().count()
    }

    pub(crate) fn promised(&self) -> Promised {
        self.state.lock().promised
    }

    /// Bytes that can still be promised, given the pool's filesystem.
    pub(crate) fn left(&self, space: Space, purpose: Purpose) -> u64 {
        room::left(self.limits, space, self.promised(), purpose)
    }

    /// Is there something of this kind with this id, served or not?
    pub(crate) fn has<R: Kept>(&self, id: &str) -> bool {
        R::entries(&mut self.state.lock()).0.has(id)
    }

    pub(crate) fn get<R: Kept>(&self, id: &str) -> Result<Arc<R>, DriverError> {
        R::entries(&mut self.state.lock()).0.get(id)
    }

    /// Reserves id and bytes, unless it is there.
    pub(crate) fn begin_create<R: Kept>(
        &self,
        id: &Arc<str>,
        promise: Promise,
        space: Space,
    ) -> Result<Begin<R>, DriverError> {
        let mut state = self.state.lock();
        let (entries, promised) = R::entries(&mut state);
        entries.begin_create(id, promise, promised, |promised| {
            room::check(self.limits, space, promised, promise.purpose, promise.bytes)
        })
    }

    /// Ends what [`Catalog::begin_create`] began; `None` gives id and bytes back.
    pub(crate) fn finish_create<R: Kept>(&self, id: &Arc<str>, made: Option<Arc<R>>) {
        let mut state = self.state.lock();
        let (entries, promised) = R::entries(&mut state);
        entries.put(id, made.map(Entry::Ready), promised);
    }

    /// Takes something out of service for its deletion; `None` when there is none.
    pub(crate) fn begin_delete<R: Kept>(&self, id: &str) -> Result<Option<Arc<R>>, DriverError> {
        R::entries(&mut self.state.lock()).0.begin_delete(id)
    }

    pub(crate) fn finish_delete<R: Kept>(&self, record: &Arc<R>, end: Deleted) {
        let mut state = self.state.lock();
        let (entries, promised) = R::entries(&mut state);
        entries.finish_delete(record, end, promised);
    }

    /// Gives the bytes back of something that was [`Deleted::Leaving`].
    pub(crate) fn finish_leaving<R: Kept>(&self, record: &R) {
        let Promise { purpose, bytes } = record.promise();
        self.state.lock().promised.give_back(purpose, bytes);
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
        let (volumes, promised) = Record::entries(&mut state);
        promised.give_back(purpose, new_bytes.saturating_sub(bytes));
        if let Some(record) = grown {
            let volume_id = Arc::clone(&record.volume_id);
            volumes.put(&volume_id, Some(Entry::Ready(record)), promised);
        }
    }

    /// Up to `count` records after `start`, in the order of ids, and whether there are more.
    pub(crate) fn page<R: Kept>(&self, start: Option<&str>, count: usize) -> (Vec<Arc<R>>, bool) {
        R::entries(&mut self.state.lock()).0.page(start, count)
    }

    /// As [`Catalog::page`], of those that were taken from this volume.
    pub(crate) fn page_of<R: Kept>(
        &self,
        source_volume_id: &str,
        start: Option<&str>,
        count: usize,
    ) -> (Vec<Arc<R>>, bool) {
        R::entries(&mut self.state.lock())
            .0
            .page_of(source_volume_id, start, count)
    }
}

#[cfg(test)]
mod tests;
