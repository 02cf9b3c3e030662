//! The things of one kind in a pool: which exist or are about to. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry as MapEntry},
    ops::Bound,
    sync::Arc,
};

use moorline_driver_sdk::{DriverError, ErrorKind};

use super::{Begin, Deleted, State};
use crate::room::{Promised, Purpose};

/// Something that a pool keeps.
pub(crate) trait Kept: Sized {
    /// What messages call it.
    const NOUN: &'static str;

    fn id(&self) -> &Arc<str>;

    /// What it is promised.
    fn promise(&self) -> Promise;

    /// The volume that it was taken from, for things that are listed by that.
    fn source(&self) -> Option<&Arc<str>> {
        None
    }

    /// Where things of this kind are.
    fn entries(state: &mut State) -> (&mut Entries<Self>, &mut Promised);
}

/// Bytes that are set aside, in the books at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Promise {
    pub(crate) purpose: Purpose,
    pub(crate) bytes: u64,
}

/// What is known of one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry<R> {
    Ready(Arc<R>),
    Creating(Promise),
    Deleting { record: Arc<R>, is_running: bool },
    Damaged { reason: Box<str> },
}

impl<R: Kept> Entry<R> {
    pub(super) fn promise(&self) -> Option<Promise> {
        match self {
            Entry::Ready(record) | Entry::Deleting { record, .. } => Some(record.promise()),
            Entry::Creating(promise) => Some(*promise),
            Entry::Damaged { .. } => None,
        }
    }
}

/// All of one kind, by id.
#[derive(Debug)]
pub(crate) struct Entries<R> {
    entries: BTreeMap<Arc<str>, Entry<R>>,
    /// Of those that are ready and have a source: source and id.
    by_source: BTreeSet<(Arc<str>, Arc<str>)>,
}

fn pending<R: Kept>(id: &str, what: &str) -> DriverError {
    DriverError::new(ErrorKind::Aborted, format!("{} {id} is being {what}", R::NOUN))
}

fn damaged<R: Kept>(id: &str, reason: &str) -> DriverError {
    DriverError::precondition(format!("{} {id} can't be used: {reason}", R::NOUN))
}

fn place_by_source<R: Kept>(entry: &Entry<R>) -> Option<(Arc<str>, Arc<str>)> {
    match entry {
        Entry::Ready(record) => Some((Arc::clone(record.source()?), Arc::clone(record.id()))),
        Entry::Creating(_) | Entry::Deleting { .. } | Entry::Damaged { .. } => None,
    }
}

impl<R: Kept> Entries<R> {
    /// Those that a start has found; their promises are added.
    pub(super) fn new(entries: BTreeMap<Arc<str>, Entry<R>>, promised: &mut Promised) -> Self {
        for promise in entries.values().filter_map(Entry::promise) {
            promised.add(promise.purpose, promise.bytes);
        }
        let by_source = entries.values().filter_map(place_by_source).collect();
        Entries { entries, by_source }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Those that are not served, and why.
    pub(super) fn damaged(&self) -> impl Iterator<Item = (&Arc<str>, &str)> {
        self.entries.iter().filter_map(|(id, entry)| match entry {
            Entry::Damaged { reason } => Some((id, reason.as_ref())),
            Entry::Ready(_) | Entry::Creating(_) | Entry::Deleting { .. } => None,
        })
    }

    /// Is there an entry, served or not?
    pub(super) fn has(&self, id: &str) -> bool {
        self.entries.contains_key(id)
    }

    pub(super) fn get(&self, id: &str) -> Result<Arc<R>, DriverError> {
        match self.entries.get(id) {
            Some(Entry::Ready(record)) => Ok(Arc::clone(record)),
            Some(Entry::Damaged { reason }) => Err(damaged::<R>(id, reason)),
            Some(Entry::Creating(_) | Entry::Deleting { .. }) | None => {
                Err(DriverError::not_found(format!("there is no {} {id}", R::NOUN)))
            }
        }
    }

    /// Takes the id, unless it is there; `check` may refuse.
    pub(super) fn begin_create(
        &mut self,
        id: &Arc<str>,
        promise: Promise,
        promised: &mut Promised,
        check: impl FnOnce(Promised) -> Result<(), DriverError>,
    ) -> Result<Begin<R>, DriverError> {
        match self.entries.entry(Arc::clone(id)) {
            MapEntry::Occupied(entry) => match entry.get() {
                Entry::Ready(record) => Ok(Begin::Exists(Arc::clone(record))),
                Entry::Creating(_) => Err(pending::<R>(id, "created")),
                Entry::Deleting { .. } => Err(pending::<R>(id, "deleted")),
                Entry::Damaged { reason } => Err(damaged::<R>(id, reason)),
            },
            MapEntry::Vacant(entry) => {
                check(*promised)?;
                entry.insert(Entry::Creating(promise));
                promised.add(promise.purpose, promise.bytes);
                Ok(Begin::Create)
            }
        }
    }

    /// Takes a thing out of service for its deletion; `None` when there is none.
    pub(super) fn begin_delete(&mut self, id: &str) -> Result<Option<Arc<R>>, DriverError> {
        let Some(entry) = self.entries.get_mut(id) else {
            return Ok(None);
        };
        let record = match entry {
            Entry::Ready(record)
            | Entry::Deleting {
                record,
                is_running: false,
            } => Arc::clone(record),
            Entry::Creating(_) => return Err(pending::<R>(id, "created")),
            Entry::Deleting { is_running: true, .. } => return Err(pending::<R>(id, "deleted")),
            Entry::Damaged { reason } => return Err(damaged::<R>(id, reason)),
        };
        if let Some(place) = place_by_source(entry) {
            self.by_source.remove(&place);
        }
        *entry = Entry::Deleting {
            record: Arc::clone(&record),
            is_running: true,
        };
        Ok(Some(record))
    }

    pub(super) fn finish_delete(&mut self, record: &Arc<R>, end: Deleted, promised: &mut Promised) {
        let record = Arc::clone(record);
        let id = Arc::clone(record.id());
        let entry = match end {
            Deleted::Gone => None,
            Deleted::Leaving => {
                // Given back below, with the entry.
                let Promise { purpose, bytes } = record.promise();
                promised.add(purpose, bytes);
                None
            }
            Deleted::Left => Some(Entry::Deleting {
                record,
                is_running: false,
            }),
            Deleted::Kept => Some(Entry::Ready(record)),
        };
        self.put(&id, entry, promised);
    }

    /// Replaces or removes an entry, and what it is promised.
    pub(super) fn put(&mut self, id: &Arc<str>, entry: Option<Entry<R>>, promised: &mut Promised) {
        let after = entry.as_ref().and_then(Entry::promise);
        let place_after = entry.as_ref().and_then(place_by_source);
        let before = match entry {
            Some(entry) => self.entries.insert(Arc::clone(id), entry),
            None => self.entries.remove(id),
        };
        if let Some(place) = before.as_ref().and_then(place_by_source) {
            self.by_source.remove(&place);
        }
        self.by_source.extend(place_after);
        if let Some(before) = before.as_ref().and_then(Entry::promise) {
            promised.give_back(before.purpose, before.bytes);
        }
        if let Some(after) = after {
            promised.add(after.purpose, after.bytes);
        }
    }

    /// Up to `count` records after `start`, in the order of ids, and whether there are more.
    pub(super) fn page(&self, start: Option<&str>, count: usize) -> (Vec<Arc<R>>, bool) {
        let from = start.map_or(Bound::Unbounded, Bound::Excluded);
        let mut ready = self
            .entries
            .range::<str, _>((from, Bound::Unbounded))
            .filter_map(|(_, entry)| match entry {
                Entry::Ready(record) => Some(Arc::clone(record)),
                Entry::Creating(_) | Entry::Deleting { .. } | Entry::Damaged { .. } => None,
            });
        let page: Vec<_> = ready.by_ref().take(count).collect();
        let has_more = ready.next().is_some();
        (page, has_more)
    }

    /// As [`Entries::page`], of those with this source.
    pub(super) fn page_of(&self, source: &str, start: Option<&str>, count: usize) -> (Vec<Arc<R>>, bool) {
        // The set's own keys are pairs of owned texts, so that the bound has to be one too.
        let from = (Arc::from(source), Arc::from(start.unwrap_or_default()));
        let mut ready = self
            .by_source
            .range((Bound::Excluded(from), Bound::Unbounded))
            .take_while(|(of, _)| &**of == source)
            .filter_map(|(_, id)| self.get(id).ok());
        let page: Vec<_> = ready.by_ref().take(count).collect();
        let has_more = ready.next().is_some();
        (page, has_more)
    }

    #[cfg(test)]
    pub(super) fn promises(&self) -> impl Iterator<Item = Promise> {
        self.entries.values().filter_map(Entry::promise)
    }
}
